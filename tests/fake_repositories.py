"""Repositories in memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, TypeVar
from uuid import UUID

from src.domain.catalog.model import Catalog, Chain, Model, Price, Provider
from src.domain.dialogs.model import Dialog, DialogId, DialogKind, Exchange, Message, MessageId, MessageRole
from src.domain.identity.model import ApiKey, ApiKeyId, Session, Tenant, TenantId, User, UserId
from src.domain.identity.ports import AuditEvent
from src.domain.ledger.model import Account, Entry, HoldState, QuotaId, Scope
from src.domain.ledger.ports import UsageRow
from src.domain.ledger.quotas import Adjustment, LimitChange, Quota, QuotaChange
from src.shared.errors import Conflict, NotFound
from src.shared.pages import Page, PageRequest
from tests.fake_store import Store, page_of

T = TypeVar("T")


def _require_free(rows: Iterable[Any], thing: Any, *names: str) -> None:
    """Raises Conflict where another row has the same values under all the names (none of them None)."""
    values = [getattr(thing, name) for name in names]
    if None not in values and any(
        row.id != thing.id and [getattr(row, name) for name in names] == values for row in rows
    ):
        raise Conflict(f"This {names[-1]} is taken.", param=names[-1])


@dataclass(slots=True)
class FakeDirectory:
    store: Store

    async def add_tenant(self, tenant: Tenant) -> None:
        _require_free(self.store.tenants.values(), tenant, "slug")
        self.store.tenants[tenant.id] = tenant

    async def update_tenant(self, tenant: Tenant) -> None:
        if tenant.id not in self.store.tenants:
            raise NotFound("No such tenant.")
        await self.add_tenant(tenant)

    async def tenant(self, tenant_id: TenantId) -> Tenant | None:
        return self.store.tenants.get(tenant_id)

    async def tenant_by_slug(self, slug: str) -> Tenant | None:
        return next((tenant for tenant in self.store.tenants.values() if tenant.slug == slug), None)

    async def tenants(self, page: PageRequest) -> Page[Tenant]:
        return page_of(self.store.tenants.values(), page)

    async def key_by_hmac(self, secret_hmac: bytes) -> tuple[Tenant, User, ApiKey] | None:
        key = next((key for key in self.store.keys.values() if key.secret_hmac == secret_hmac), None)
        return None if key is None else (self.store.tenants[key.tenant_id], self.store.users[key.user_id], key)

    async def key_anywhere(self, key_id: ApiKeyId) -> ApiKey | None:
        return self.store.keys.get(key_id)

    async def users_by_email(self, email: str) -> list[tuple[Tenant, User]]:
        users = (user for user in self.store.users.values() if (user.email or "").lower() == email.lower())
        return [(self.store.tenants[user.tenant_id], user) for user in users]

    async def user_anywhere(self, user_id: UserId) -> User | None:
        return self.store.users.get(user_id)

    async def tenant_of_quota(self, quota_id: QuotaId) -> TenantId | None:
        quota = self.store.quotas.get(quota_id)
        return None if quota is None else quota.key.tenant_id


@dataclass(slots=True)
class FakeIdentity:
    store: Store
    tenant_id: TenantId

    async def add_user(self, user: User) -> None:
        self._require_own(user)
        _require_free(self.store.users.values(), user, "tenant_id", "external_id")
        _require_free(self.store.users.values(), user, "tenant_id", "email")
        self.store.users[user.id] = user

    async def user(self, user_id: UserId) -> User | None:
        return next((user for user in self._mine(self.store.users) if user.id == user_id), None)

    async def user_by_external_id(self, external_id: str) -> User | None:
        return next((user for user in self._mine(self.store.users) if user.external_id == external_id), None)

    async def update_user(self, user: User) -> None:
        if await self.user(user.id) is None:
            raise NotFound("No such user.")
        await self.add_user(user)

    async def users(self, page: PageRequest) -> Page[User]:
        return page_of(self._mine(self.store.users), page)

    async def add_key(self, key: ApiKey) -> None:
        self._require_own(key)
        _require_free(self.store.keys.values(), key, "secret_hmac")
        self.store.keys[key.id] = key

    async def key(self, key_id: ApiKeyId) -> ApiKey | None:
        return next((key for key in self._mine(self.store.keys) if key.id == key_id), None)

    async def keys(self, page: PageRequest, *, user_id: UserId | None) -> Page[ApiKey]:
        return page_of((key for key in self._mine(self.store.keys) if user_id in (None, key.user_id)), page)

    async def replace_secret(self, key_id: ApiKeyId, *, old: bytes, new: bytes, prefix: str) -> bool:
        key = await self.key(key_id)
        if key is None or key.revoked_at is not None or key.secret_hmac != old:
            return False
        self.store.keys[key_id] = replace(key, secret_hmac=new, prefix=prefix)
        return True

    async def revoke_key(self, key_id: ApiKeyId, at: datetime) -> None:
        key = await self.key(key_id)
        if key is not None and key.revoked_at is None:
            self.store.keys[key_id] = replace(key, revoked_at=at)

    async def add_session(self, session: Session) -> None:
        self._require_own(session)
        self.store.sessions[session.id] = session

    async def session(self, session_id: UUID) -> Session | None:
        return next((each for each in self._mine(self.store.sessions) if each.id == session_id), None)

    async def replace_refresh(self, session_id: UUID, *, old: bytes, new: bytes, expires_at: datetime) -> bool:
        session = await self.session(session_id)
        if session is None or session.revoked_at is not None or session.refresh_hmac != old:
            return False
        self.store.sessions[session_id] = replace(session, refresh_hmac=new, expires_at=expires_at)
        return True

    async def revoke_session(self, session_id: UUID, at: datetime) -> None:
        session = await self.session(session_id)
        if session is not None and session.revoked_at is None:
            self.store.sessions[session_id] = replace(session, revoked_at=at)

    async def revoke_sessions(self, user_id: UserId, at: datetime) -> None:
        for session in list(self._mine(self.store.sessions)):
            if session.user_id == user_id:
                await self.revoke_session(session.id, at)

    def _mine(self, rows: dict[Any, T]) -> Iterable[T]:
        return (row for row in rows.values() if row.tenant_id == self.tenant_id)  # type: ignore[attr-defined]

    def _require_own(self, thing: User | ApiKey | Session) -> None:
        if thing.tenant_id != self.tenant_id:
            raise NotFound("No such tenant.")


@dataclass(slots=True)
class FakeAuditLog:
    store: Store

    async def record(self, event: AuditEvent) -> None:
        self.store.events[event.id] = event

    async def events(self, page: PageRequest, *, tenant_id: TenantId | None) -> Page[AuditEvent]:
        chosen = (event for event in self.store.events.values() if tenant_id in (None, event.tenant_id))
        return page_of(chosen, page, newest_first=True)


@dataclass(slots=True)
class FakeCatalog:
    store: Store

    async def load(self) -> Catalog:
        return Catalog(
            providers={name: row for name, (row, _) in self.store.providers.items()},
            models={name: row for name, (row, _) in self.store.models.items()},
            chains={name: row for name, (row, _) in self.store.chains.items()},
        )

    async def version(self) -> int:
        return self.store.version["version"]

    async def put_provider(self, provider: Provider, *, source: str) -> None:
        self._put(self.store.providers, provider, source)

    async def put_model(self, model: Model, *, source: str) -> None:
        self._put(self.store.models, model, source)

    async def add_price(self, model: str, price: Price) -> None:
        if model not in self.store.models:
            raise NotFound("No such model.")
        row, source = self.store.models[model]
        self.store.models[model] = (replace(row, prices=(price, *row.prices)), source)
        self.store.version["version"] += 1

    async def put_chain(self, chain: Chain, *, source: str) -> None:
        self._put(self.store.chains, chain, source)

    async def delete_chain(self, name: str) -> bool:
        if self.store.chains.pop(name, None) is None:
            return False
        self.store.version["version"] += 1
        return True

    def _put(self, rows: dict[str, Any], thing: Any, source: str) -> None:
        if source == "file" and rows.get(thing.name, (None, "file"))[1] == "admin":
            return
        rows[thing.name] = (thing, source)
        self.store.version["version"] += 1


@dataclass(slots=True)
class FakeDialogs:
    store: Store
    tenant_id: TenantId

    async def add(self, dialog: Dialog) -> None:
        if dialog.tenant_id != self.tenant_id or dialog.user_id not in self.store.users:
            raise NotFound("No such user.")
        if dialog.kind is DialogKind.CHAT and await self.chat_dialog(dialog.user_id):
            raise Conflict("The user has a chat dialog already.")
        self.store.dialogs[dialog.id] = dialog

    async def dialog(self, dialog_id: DialogId, user_id: UserId, *, still: bool = False) -> Dialog | None:
        return next((dialog for dialog in self._of(user_id) if dialog.id == dialog_id), None)

    async def chat_dialog(self, user_id: UserId) -> Dialog | None:
        return next((dialog for dialog in self._of(user_id) if dialog.kind is DialogKind.CHAT), None)

    async def dialogs(self, user_id: UserId, page: PageRequest, *, search: str | None) -> Page[Dialog]:
        mine = (each for each in self._of(user_id) if each.kind is not DialogKind.CHAT)
        return page_of((each for each in mine if self._matches(each, search)), page, newest_first=True)

    async def update(self, dialog: Dialog) -> None:
        kept = await self.dialog(dialog.id, dialog.user_id)
        if kept is None:
            raise NotFound("No such dialog.")
        self.store.dialogs[dialog.id] = replace(dialog, head_id=kept.head_id)

    async def delete(self, dialog_id: DialogId, user_id: UserId) -> bool:
        if await self.dialog(dialog_id, user_id) is None:
            return False
        del self.store.dialogs[dialog_id]
        for message_id in [row.id for row in self.store.messages.values() if row.dialog_id == dialog_id]:
            del self.store.messages[message_id]
        return True

    async def message(self, dialog_id: DialogId, message_id: MessageId) -> Message | None:
        return next((row for row in self._in(dialog_id) if row.id == message_id), None)

    async def said(self, message_id: MessageId, user_id: UserId) -> Message | None:
        found = self.store.messages.get(message_id)
        return found if found is not None and await self.dialog(found.dialog_id, user_id) else None

    async def append(self, dialog: Dialog, messages: Sequence[Message]) -> None:
        if messages and dialog.id not in self.store.dialogs:
            raise NotFound("What this belongs to does not exist (any more).")
        for message in messages:
            self.store.messages[message.id] = message
        if messages:
            newest = messages[-1]
            kept = self.store.dialogs[dialog.id]
            self.store.dialogs[dialog.id] = replace(kept, head_id=newest.id, updated_at=newest.created_at)

    async def change(self, message: Message) -> None:
        kept = self.store.messages[message.id]
        changes = {"content": message.content, "parts": message.parts, "settings": message.settings}
        self.store.messages[message.id] = replace(kept, **changes)

    async def remove(self, message: Message) -> None:
        for row in list(self._in(message.dialog_id)):
            if row.parent_id == message.id:
                self.store.messages[row.id] = replace(row, parent_id=message.parent_id)
        dialog = self.store.dialogs[message.dialog_id]
        if dialog.head_id == message.id:
            self.store.dialogs[dialog.id] = replace(dialog, head_id=message.parent_id)
        del self.store.messages[message.id]

    async def has_children(self, message: Message) -> bool:
        return any(row.parent_id == message.id for row in self._in(message.dialog_id))

    async def request_cancel(self, dialog_id: DialogId, message_id: MessageId) -> None:
        if await self.message(dialog_id, message_id) is not None:
            hold = self.store.holds.get(self.store.message_holds.get(message_id))
            if hold is not None and hold.state is HoldState.OPEN:
                self.store.holds[hold.id] = replace(hold, cancel_requested=True)

    async def messages(self, dialog_id: DialogId, page: PageRequest) -> Page[Message]:
        return page_of(self._in(dialog_id), page)

    async def path(self, dialog_id: DialogId, leaf_id: MessageId, *, limit: int) -> list[Message]:
        path: list[Message] = []
        here: MessageId | None = leaf_id
        while here is not None and len(path) < limit:
            message = await self.message(dialog_id, here)
            if message is None:
                break
            path.insert(0, message)
            here = message.parent_id
        return path

    async def exchanges(self, user_id: UserId, *, limit: int) -> list[Exchange]:
        dialog = await self.chat_dialog(user_id)
        if dialog is None:
            return []
        rows = sorted(self._in(dialog.id), key=lambda row: row.id, reverse=True)
        answers = {row.parent_id: row for row in rows if row.role is MessageRole.ASSISTANT}
        external_id = self.store.users[user_id].external_id
        return [
            Exchange(question=row, answer=answers[row.id], user_external_id=external_id)
            for row in rows
            if row.role is MessageRole.USER and row.id in answers
        ][:limit]

    def _of(self, user_id: UserId) -> Iterable[Dialog]:
        rows = self.store.dialogs.values()
        return (row for row in rows if row.tenant_id == self.tenant_id and row.user_id == user_id)

    def _in(self, dialog_id: DialogId) -> Iterable[Message]:
        rows = self.store.messages.values()
        return (row for row in rows if row.tenant_id == self.tenant_id and row.dialog_id == dialog_id)

    def _matches(self, dialog: Dialog, search: str | None) -> bool:
        said = [dialog.title or "", *(row.content for row in self._in(dialog.id))]
        return search is None or any(search.lower() in text.lower() for text in said)


@dataclass(slots=True)
class FakeAccounts:
    store: Store
    tenant_id: TenantId
    apply: Callable[[QuotaChange], Account]

    async def quotas(
        self, page: PageRequest, *, scope: Scope | None = None, scope_id: UUID | None = None
    ) -> Page[Quota]:
        mine = (quota for quota in self.store.quotas.values() if quota.key.tenant_id == self.tenant_id)
        rows = (q for q in mine if scope in (None, q.key.scope) and scope_id in (None, q.key.scope_id))
        return page_of(rows, page)

    async def quota(self, quota_id: QuotaId) -> Quota | None:
        quota = self.store.quotas.get(quota_id)
        return quota if quota is not None and quota.key.tenant_id == self.tenant_id else None

    async def quotas_of(self, scopes: Sequence[tuple[Scope, UUID]]) -> list[Quota]:
        mine = (quota for quota in self.store.quotas.values() if quota.key.tenant_id == self.tenant_id)
        return sorted((q for q in mine if (q.key.scope, q.key.scope_id) in scopes), key=lambda quota: quota.id)

    async def accounts_of(self, quota_ids: Sequence[QuotaId], periods: Sequence[str]) -> list[Account]:
        rows = (row for row in self.store.accounts.values() if row.tenant_id == self.tenant_id)
        return [row for row in rows if row.quota_id in quota_ids and row.period in periods]

    async def set_limit(self, change: LimitChange) -> Account:
        return self._applied(change)

    async def adjust(self, adjustment: Adjustment) -> Account:
        return self._applied(adjustment)

    def _applied(self, change: QuotaChange) -> Account:
        if change.key.tenant_id != self.tenant_id:
            raise NotFound("No such tenant.")
        return self.apply(change)

    async def remove_quota(self, quota_id: QuotaId, at: datetime) -> bool:
        if await self.quota(quota_id) is None:
            return False
        del self.store.quotas[quota_id]
        return True

    async def entries(self, page: PageRequest, *, scope_id: UUID, quota_id: QuotaId | None = None) -> Page[Entry]:
        own = {row.id for row in self.store.accounts.values() if quota_id in (None, row.quota_id)}
        mine = (each for each in self.store.entries.values() if each.tenant_id == self.tenant_id)
        rows = (entry for entry in mine if entry.scope_id == scope_id and entry.account_id in own)
        return page_of(rows, page, newest_first=True)

    async def tokens_used(self, user_id: UserId) -> int:
        rows = self.store.usage.values()
        mine = (row for row in rows if row.tenant_id == self.tenant_id and row.user_id == user_id)
        return sum(row.usage.total_tokens for row in mine)

    async def usage(self, *, user_id: UserId | None, since: date, until: date) -> list[UsageRow]:
        sums: dict[tuple[date, str, UUID | None], list[int]] = {}
        for row in self.store.usage.values():
            if row.tenant_id == self.tenant_id and user_id in (None, row.user_id):
                key = (row.created_at.date(), row.model or row.requested_model, row.api_key_id)
                counts = (1, row.usage.input_tokens, row.usage.output_tokens, row.cost_micro_usd)
                sums[key] = [had + more for had, more in zip(sums.get(key, [0] * 4), counts, strict=True)]
        return [
            UsageRow(
                day=day,
                model=model,
                api_key_id=key_id,
                calls=calls,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                cost_micro_usd=cost,
            )
            for (day, model, key_id), (calls, input_tokens, output_tokens, cost) in sums.items()
            if since <= day <= until
        ]
