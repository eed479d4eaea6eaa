"""What every repository does: write with the domain's errors, and read in keyset pages."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, CursorResult, Executable, Row, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from src.data.integrity import domain_error, is_own_fault
from src.domain.identity.model import TenantId
from src.shared.errors import NotFound
from src.shared.pages import Page, PageRequest

T = TypeVar("T")


class Repository:
    """Statements on the connection of a unit of work."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def _write(self, statement: Executable) -> CursorResult[Any]:
        """Run it in a savepoint, so that a refusal (Conflict, NotFound, InvalidRequest) leaves the rest usable."""
        try:
            async with self._connection.begin_nested():
                return await self._connection.execute(statement)
        except (DBAPIError, UnicodeError) as error:
            if is_own_fault(error):
                raise domain_error(error) from error
            raise

    async def _first(self, statement: Select[Any], make: Callable[[Row[Any]], T]) -> T | None:
        row = (await self._connection.execute(statement)).first()
        return None if row is None else make(row)

    async def _page(
        self,
        statement: Select[Any],
        key: ColumnElement[UUID],
        page: PageRequest,
        make: Callable[[Row[Any]], T],
        *,
        newest_first: bool = False,
    ) -> Page[T]:
        """A page in the list's own order; `has_more` speaks of the direction asked for."""
        backwards = page.before is not None
        descending = newest_first != backwards
        if page.after is not None:
            statement = statement.where(key < page.after if newest_first else key > page.after)
        if page.before is not None:
            statement = statement.where(key > page.before if newest_first else key < page.before)
        statement = statement.order_by(key.desc() if descending else key.asc()).limit(page.limit + 1)
        rows = list(await self._connection.execute(statement))
        shown = rows[: page.limit]
        if backwards:
            shown.reverse()
        return Page(rows=[make(row) for row in shown], has_more=len(rows) > page.limit)


class TenantRepository(Repository):
    """A repository that cannot forget its tenant."""

    def __init__(self, connection: AsyncConnection, tenant_id: TenantId) -> None:
        super().__init__(connection)
        self._tenant_id = tenant_id

    def _require_own(self, tenant_id: TenantId) -> None:
        """Raises NotFound for another tenant's row."""
        if tenant_id != self._tenant_id:
            raise NotFound("No such tenant.")


def values_of(row: Row[Any]) -> dict[str, Any]:
    """A row's columns by name."""
    return dict(row._mapping)


def row_of(thing: Any) -> dict[str, Any]:
    """A dataclass as the values of a row."""
    return {field.name: getattr(thing, field.name) for field in fields(thing)}
