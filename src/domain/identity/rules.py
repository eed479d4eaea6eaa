"""What may be stored about tenants and users, and who outranks whom."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, TypeVar

from src.domain.identity.model import Principal, Role, User
from src.shared.errors import InvalidRequest, NotAllowed, NotFound
from src.shared.ids import parse_id

T = TypeVar("T")

MAX_NAME = 200
MAX_EMAIL = 254
MIN_PASSWORD = 10
MAX_PASSWORD_BYTES = 1024

_SLUG = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_RANK = {Role.USER: 0, Role.TENANT_ADMIN: 1, Role.PLATFORM_ADMIN: 2}


def is_storable_name(text: str) -> bool:
    """One to 200 characters, not all blank, no control characters and no lone surrogates."""
    return 0 < len(text) <= MAX_NAME and bool(text.strip()) and not _has_control(text)


def name_of(text: str, param: str) -> str:
    """`text` as it may be stored. Raises InvalidRequest."""
    if not is_storable_name(text):
        raise InvalidRequest(f"{param} must have 1 to {MAX_NAME} characters and no control characters.", param=param)
    return text


def slug_of(text: str) -> str:
    """A tenant's slug. What could be taken for an id is refused. Raises InvalidRequest."""
    if not _SLUG.fullmatch(text) or parse_id(text) is not None:
        raise InvalidRequest(
            "slug must have 1 to 100 of a-z, 0-9, '-', '_' and '.', begin with a letter or digit, and be no UUID.",
            param="slug",
        )
    return text


def email_of(text: str) -> str:
    """An e-mail address in the one form it is looked up by. Raises InvalidRequest."""
    if len(text) > MAX_EMAIL or not _EMAIL.fullmatch(text) or _has_control(text):
        raise InvalidRequest("email is not an e-mail address.", param="email")
    return text.casefold()


def check_password(password: str) -> None:
    """Raises InvalidRequest for passwords that are too short to be safe or too long to be hashed."""
    if len(password) < MIN_PASSWORD:
        raise InvalidRequest(f"password must have at least {MIN_PASSWORD} characters.", param="password")
    if len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES:
        raise InvalidRequest(f"password may have at most {MAX_PASSWORD_BYTES} bytes.", param="password")


def require_rank_of(principal: Principal, user: User) -> None:
    """Raises NotAllowed where the user's own role is above what the principal has now.

    Whoever can change a user, or make a key for one, can become that user.
    """
    if _RANK[user.role] > _RANK[principal.role]:
        raise NotAllowed(f"The user has the role {user.role.value}; you act with the role {principal.role.value}.")


def require_unscoped(principal: Principal) -> None:
    """Raises NotAllowed for keys that are limited to some models: who can make users can log in as them."""
    if principal.api_key is not None and principal.api_key.models is not None:
        raise NotAllowed("This API key is limited to some models; users and tenants need one without limits.")


def existing(row: T | None, what: str) -> T:
    """Raises NotFound for None."""
    if row is None:
        raise NotFound(f"No such {what}.")
    return row


def check_fields(changes: Mapping[str, Any], allowed: frozenset[str]) -> None:
    """Raises InvalidRequest for changes of anything else, and for nulls where there must be a value."""
    for name in changes:
        if name not in allowed:
            raise InvalidRequest(f"{name} cannot be changed; these can: {', '.join(sorted(allowed))}.", param=name)
    for name in ("disabled", "role"):
        if name in changes and changes[name] is None:
            raise InvalidRequest(f"{name} cannot be null.", param=name)


def _has_control(text: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
