"""The audit log: written and read, never changed."""

from typing import Any

from sqlalchemy import Row, insert, select

from src.data.repositories.base import Repository, row_of, values_of
from src.data.tables import audit_events
from src.domain.identity.model import TenantId
from src.domain.identity.ports import AuditEvent
from src.shared.pages import Page, PageRequest


class SqlAuditLog(Repository):
    """Audit events in SQL. Only platform admins may be given all tenants."""

    async def record(self, event: AuditEvent) -> None:
        await self._write(insert(audit_events).values(**row_of(event)))

    async def events(self, page: PageRequest, *, tenant_id: TenantId | None) -> Page[AuditEvent]:
        statement = select(audit_events)
        if tenant_id is not None:
            statement = statement.where(audit_events.c.tenant_id == tenant_id)
        return await self._page(statement, audit_events.c.id, page, _event_from, newest_first=True)


def _event_from(row: Row[Any]) -> AuditEvent:
    return AuditEvent(**values_of(row))
