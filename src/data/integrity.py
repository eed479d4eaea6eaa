"""What went wrong in the database, in the domain's words."""

from asyncpg import InternalClientError
from sqlalchemy import Index, UniqueConstraint
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from src.data.tables import metadata
from src.shared.errors import Conflict, GatewayError, InvalidRequest, NotFound, Unavailable

_TAKEN: dict[str, tuple[str, str | None]] = {
    "uq_tenants_slug": ("This slug is taken: choose another.", "slug"),
    "uq_users_tenant_id_external_id": ("The tenant has a user with this external id.", "external_id"),
    "uq_users_tenant_id_email": ("The tenant has a user with this e-mail address.", "email"),
    "uq_api_keys_secret_hmac": ("This API key exists.", None),
    "uq_sessions_refresh_hmac": ("This session exists.", None),
    "uq_dialogs_chat": ("The user has a chat dialog already.", None),
}

_TRANSIENT_SQLSTATES = (
    "08",  # the connection broke
    "40001",  # serialization failure
    "40P01",  # deadlock
    "53",  # too many connections, out of memory or disk: it may pass
    "55P03",  # a lock was not to be had in time
    "57",  # shutting down, starting up, or a statement timed out
    "25P03",  # idle in transaction for too long
)


def domain_error(error: BaseException) -> GatewayError:
    """The error a caller is told: the row's own fault where it is one, else Unavailable."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, IntegrityError):
        return _integrity_error(error)
    if is_own_fault(error):
        return InvalidRequest("Something in the request cannot be stored: a number out of range, or text that is none.")
    return Unavailable("The database is away or busy; try again in a moment.")


def is_own_fault(error: BaseException) -> bool:
    """Whether the rows themselves were refused: trying again would not help."""
    return isinstance(error, IntegrityError | DataError | UnicodeError) or (_sqlstate(error) or "").startswith("22")


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed in a moment: lost connections, deadlocks, busy files."""
    if isinstance(error, OSError | TimeoutError | PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(_driver_error(error), InternalClientError):  # the server had ended the session a moment ago
        return True
    state = _sqlstate(error)
    if state is not None:
        return state.startswith(_TRANSIENT_SQLSTATES)
    text = str(getattr(error, "orig", error)).lower()
    return isinstance(error, DBAPIError) and not is_own_fault(error) and _reads_transient(text)


def _reads_transient(text: str) -> bool:
    return any(word in text for word in ("locked", "busy", "connection", "closed"))


def _driver_error(error: BaseException) -> BaseException | None:
    """asyncpg's own exception behind SQLAlchemy's two wrappers."""
    orig = getattr(error, "orig", None)
    return error if orig is None else (orig.__cause__ or orig)


def _sqlstate(error: BaseException) -> str | None:
    return getattr(_driver_error(error), "sqlstate", None)


def _integrity_error(error: IntegrityError) -> GatewayError:
    text = str(error.orig)
    if _sqlstate(error) == "23503" or "FOREIGN KEY" in text:
        return NotFound("What this belongs to does not exist (any more).")
    name = getattr(_driver_error(error), "constraint_name", None) or _sqlite_constraint(text)
    message, param = _TAKEN.get(name or "", ("This exists already, or is not allowed.", None))
    return Conflict(message, param=param)


def _sqlite_constraint(text: str) -> str | None:
    """The name behind SQLite's "UNIQUE constraint failed: users.tenant_id, users.email"."""
    _, found, columns = text.rpartition("UNIQUE constraint failed: ")
    return _UNIQUE_BY_COLUMNS.get(columns) if found else None


def _names_by_columns() -> dict[str, str]:
    return {
        ", ".join(f"{table.name}.{column.name}" for column in unique.columns): str(unique.name)
        for table in metadata.tables.values()
        for unique in (*table.constraints, *table.indexes)
        if isinstance(unique, UniqueConstraint) or (isinstance(unique, Index) and unique.unique)
    }


_UNIQUE_BY_COLUMNS = _names_by_columns()
