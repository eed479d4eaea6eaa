"""Looks into Google's bodies: fields are written in camelCase or snake_case, and whole numbers in three ways."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from src.api.dialects.fields import integer_field
from src.shared.errors import InvalidRequest

_UNDERSCORE = re.compile(r"(?<!^)_([a-z0-9])")
_DIGITS = re.compile(r"-?[0-9]{1,20}")


@dataclass(slots=True)
class Notes:
    """What is met on the way through a body: content that only Google's models can be told, and other fields."""

    untranslatable: dict[str, None] = field(default_factory=dict)
    untranslated: dict[str, None] = field(default_factory=dict)

    def refuse(self, name: str) -> None:
        """Models of other formats must refuse it."""
        self.untranslatable[name[:64]] = None

    def leave_out(self, name: str) -> None:
        """Models of other formats are not told."""
        self.untranslated[name[:64]] = None


def camel(name: str) -> str:
    """The name in camelCase."""
    return _UNDERSCORE.sub(lambda match: match[1].upper(), name)


def camel_fields(value: Any, where: str) -> dict[str, Any]:
    """The fields that an object sets, by their names in camelCase. Raises InvalidRequest for what is no object."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} must be an object.", param=where)
    found = {name: given for name, given in value.items() if given is not None}
    if "_" not in "".join(found):
        return found
    return {camel(name): given for name, given in found.items()} | {
        name: given for name, given in found.items() if camel(name) == name
    }


def listed(value: Any, where: str, most: int = 100_000) -> list[Any]:
    """A list; one object alone is a list of it. Raises InvalidRequest."""
    found = [value] if isinstance(value, dict) else value
    if not isinstance(found, list) or len(found) > most:
        raise InvalidRequest(f"{where} must be a list of at most {most} objects.", param=where)
    return found


def text_in(fields: Mapping[str, Any], name: str, where: str) -> str | None:
    """A string, or None where it is absent."""
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{where}.{name} must be a string.", param=f"{where}.{name}")
    return value


def whole_field(fields: Mapping[str, Any], name: str, *, least: int, most: int) -> int | None:
    """A whole number, which may be written as 5, 5.0 and "5"; None where it is absent."""
    value = fields.get(name)
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _DIGITS.fullmatch(value)):
        value = int(value)
    return integer_field({name: value}, name, least=least, most=most)
