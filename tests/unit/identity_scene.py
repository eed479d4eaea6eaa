"""Two tenants, their people, and the use cases of identity called on them."""

from typing import Any

from src.domain.identity import administration, api_keys, tenants
from src.domain.identity.model import ApiKey, ApiKeyId, Principal, Role, Tenant, TenantId, User, UserId
from src.integrations.secret_hashing import KeyedHasher
from src.shared.pages import PageRequest
from tests.fake_store import Store
from tests.fakes import fake_unit_of_work_opener
from tests.makers import NOW, make_key, make_tenant, make_user

HASHER = KeyedHasher("k" * 32)
PAGE = PageRequest()


class Passwords:
    async def hash(self, password: str) -> str:
        return f"hash of {len(password)}"

    async def verify(self, password_hash: str | None, password: str) -> bool:
        return password_hash == f"hash of {len(password)}"


class Scene:
    """Two tenants, each with an administrator and a user, and a platform administrator beside them."""

    def __init__(self) -> None:
        self.store = Store()
        self.open_uow = fake_unit_of_work_opener(self.store)
        self.clock = lambda: NOW
        self.acme, self.other = make_tenant(slug="acme"), make_tenant(slug="other")
        self.admin = make_user(self.acme, role=Role.TENANT_ADMIN)
        self.alice = make_user(self.acme, external_id="alice", email="alice@acme.test")
        self.foreigner = make_user(self.other)
        self.root = make_user(self.acme, role=Role.PLATFORM_ADMIN)
        for tenant in (self.acme, self.other):
            self.store.tenants[tenant.id] = tenant
        for user in (self.admin, self.alice, self.foreigner, self.root):
            self.store.users[user.id] = user

    def principal(self, user: User, key: ApiKey | None = None, role: Role | None = None) -> Principal:
        tenant = self.acme if user.tenant_id == self.acme.id else self.other
        return Principal(tenant=tenant, user=user, role=role or user.role, api_key=key)

    def key(self, user: User, **given: Any) -> ApiKey:
        key = make_key(user, **given)
        self.store.keys[key.id] = key
        return key

    @property
    def actions(self) -> list[str]:
        return [event.action for event in self.store.events.values()]

    async def create_tenant(self, who: User, slug: str = "new", name: str = "New") -> Tenant:
        return await tenants.create_tenant(
            self.principal(who), slug, name, open_uow=self.open_uow, clock=self.clock, request_id="req-1"
        )

    async def update_tenant(self, who: User, tenant_id: TenantId, changes: dict[str, Any]) -> Tenant:
        return await tenants.update_tenant(
            self.principal(who), tenant_id, changes, open_uow=self.open_uow, clock=self.clock
        )

    async def create_user(self, who: Principal, tenant_id: TenantId, **given: Any) -> User:
        return await administration.create_user(
            who,
            tenant_id,
            **{"external_id": "bob", "role": Role.USER, **given},
            open_uow=self.open_uow,
            clock=self.clock,
            passwords=Passwords(),
        )

    async def update_user(self, who: User, user_id: UserId, changes: dict[str, Any]) -> User:
        return await administration.update_user(
            self.principal(who), user_id, changes, open_uow=self.open_uow, clock=self.clock, passwords=Passwords()
        )

    async def create_key(self, who: Principal, **given: Any) -> tuple[ApiKey, str]:
        return await api_keys.create_api_key(
            who, **{"name": "laptop", **given}, open_uow=self.open_uow, clock=self.clock, hasher=HASHER
        )

    async def revoke(self, who: User, key_id: ApiKeyId) -> ApiKey:
        return await api_keys.revoke_api_key(self.principal(who), key_id, open_uow=self.open_uow, clock=self.clock)

    async def rotate(self, who: Principal, key_id: ApiKeyId) -> tuple[ApiKey, str]:
        return await api_keys.rotate_api_key(who, key_id, open_uow=self.open_uow, clock=self.clock, hasher=HASHER)
