"""What a model may call, and the shape its answer is to have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function of the caller's. `schema` is the JSON schema of its arguments; a custom one takes free text instead.

    `strict` None leaves it to the provider whether the schema is kept to exactly.
    """

    name: str
    description: str | None = None
    schema: Mapping[str, Any] = field(default_factory=dict)
    strict: bool | None = None
    is_custom: bool = False


MAX_TOOL_NAME = 64
DEFAULT_NAMESPACE = "functions"
"""Tools of this namespace are called as if they had none."""


def flat_name(namespace: str | None, name: str) -> str:
    """The name of a tool of a namespace, for models that know of no namespaces; the same for the same."""
    if not namespace or namespace == DEFAULT_NAMESPACE:
        return name
    flat = f"{namespace}{'' if namespace.endswith('__') else '__'}{name}"
    if len(flat) <= MAX_TOOL_NAME:
        return flat
    mark = sha256(flat.encode(errors="replace")).hexdigest()[:8]
    return f"{flat[: MAX_TOOL_NAME - len(mark) - 1]}_{mark}"


class ToolUse(StrEnum):
    """Whether tools are to be called."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """`names` restricts what may be called; with REQUIRED and one name, that tool is called."""

    use: ToolUse = ToolUse.AUTO
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseFormat:
    """The answer is to be JSON; with a `schema`, JSON that fits it."""

    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    description: str | None = None
    strict: bool | None = None


EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""How hard to think, in the words that most providers share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """How much to think before the answer: an `effort` (one of EFFORTS), or a budget of tokens.

    `shown`: the thoughts, or a summary of them, are wanted too.
    """

    effort: str | None = None
    budget_tokens: int | None = None
    shown: bool = False
