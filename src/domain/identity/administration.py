"""Users, and the log of who changed what.

A change counts at once on the process that made it when the caller then tells `Authenticator.forget`.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from src.domain.identity.model import Principal, Role, TenantId, User, UserId
from src.domain.identity.ports import AuditEvent, PasswordHasher
from src.domain.identity.rules import (
    check_fields,
    check_password,
    email_of,
    existing,
    name_of,
    require_rank_of,
    require_unscoped,
)
from src.domain.ledger.new_users import add_user
from src.domain.unit_of_work import OpenUnitOfWork
from src.shared.clock import Clock
from src.shared.errors import Conflict, NotAllowed, NotFound
from src.shared.ids import new_id, parse_id
from src.shared.pages import Page, PageRequest

_USER_FIELDS = frozenset({"name", "email", "role", "password", "disabled"})


def audit_event(
    principal: Principal,
    *,
    action: str,
    object_kind: str,
    object_id: str,
    now: datetime,
    request_id: str | None = None,
    details: Mapping[str, Any] | None = None,
    tenant_id: TenantId | None = None,
) -> AuditEvent:
    """What the principal did, for the log of `tenant_id` (the principal's own where it is not given)."""
    return AuditEvent(
        id=new_id(),
        tenant_id=tenant_id or principal.tenant_id,
        actor_user_id=principal.user_id,
        actor_key_id=None if principal.api_key is None else principal.api_key.id,
        action=action,
        object_kind=object_kind,
        object_id=object_id,
        details=dict(details or {}),
        request_id=request_id,
        created_at=now,
    )


async def list_audit(
    principal: Principal, page: PageRequest, *, open_uow: OpenUnitOfWork, tenant_id: TenantId | None = None
) -> Page[AuditEvent]:
    """What was changed, newest first: in one's own tenant; for platform admins in any, or in all with None."""
    principal.require_admin()
    if tenant_id is not None:
        principal.reach_of_tenant(tenant_id)
    elif not principal.is_platform_admin:
        tenant_id = principal.tenant_id
    async with open_uow(principal.tenant_id) as uow:
        return await uow.audit.events(page, tenant_id=tenant_id)


async def create_user(
    principal: Principal,
    tenant_id: TenantId,
    external_id: str,
    role: Role = Role.USER,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    passwords: PasswordHasher,
    name: str | None = None,
    email: str | None = None,
    password: str | None = None,
    request_id: str | None = None,
) -> User:
    """A new user of a tenant in the principal's reach.

    Raises NotAllowed, NotFound (tenant), InvalidRequest, Conflict when the external id or the e-mail address is taken.
    """
    principal.reach_of_tenant(tenant_id)
    require_unscoped(principal)
    _check_grant(principal, role)
    user = User(
        id=UserId(new_id()),
        tenant_id=tenant_id,
        external_id=name_of(external_id, "external_id"),
        role=role,
        created_at=clock(),
        name=None if name is None else name_of(name, "name"),
        email=None if email is None else email_of(email),
        password_hash=await _hashed(password, passwords),
    )
    async with open_uow(tenant_id) as uow:
        await add_user(uow, user, request_id)
        event = audit_event(
            principal,
            action="user.created",
            object_kind="user",
            object_id=str(user.id),
            now=user.created_at,
            request_id=request_id,
            details={"external_id": external_id, "role": role.value},
            tenant_id=tenant_id,
        )
        await uow.audit.record(event)
        await uow.commit()
    return user


async def get_user(principal: Principal, user_id: UserId, *, open_uow: OpenUnitOfWork) -> User:
    """Oneself, or a user in the principal's reach. Raises NotFound."""
    tenant_id = await tenant_of_user(principal, user_id, open_uow=open_uow)
    async with open_uow(tenant_id) as uow:
        return existing(await uow.identity.user(user_id), "user")


async def list_users(
    principal: Principal, page: PageRequest, *, open_uow: OpenUnitOfWork, tenant_id: TenantId | None = None
) -> Page[User]:
    """The users of a tenant in the principal's reach, by default of their own. Raises NotAllowed, NotFound."""
    reached = principal.reach_of_tenant(tenant_id or principal.tenant_id)
    async with open_uow(reached) as uow:
        return await uow.identity.users(page)


async def update_user(
    principal: Principal,
    user_id: UserId,
    changes: Mapping[str, Any],
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    passwords: PasswordHasher,
    request_id: str | None = None,
) -> User:
    """Change `name`, `email`, `role`, `password` or `disabled`, leave the rest.

    A new password, and being disabled, end the user's sessions. Raises NotAllowed, NotFound, InvalidRequest, Conflict.
    """
    principal.require_admin()
    require_unscoped(principal)
    check_fields(changes, _USER_FIELDS)
    _check_own_rights(principal, user_id, changes)
    fields = await _user_fields(principal, changes, passwords)
    tenant_id = await tenant_of_user(principal, user_id, open_uow=open_uow)
    now = clock()
    async with open_uow(tenant_id) as uow:
        before = existing(await uow.identity.user(user_id), "user")
        require_rank_of(principal, before)
        user = replace(before, **fields)
        await uow.identity.update_user(user)
        if "password" in changes or user.disabled:
            await uow.identity.revoke_sessions(user_id, now)
        event = audit_event(
            principal,
            action="user.updated",
            object_kind="user",
            object_id=str(user_id),
            now=now,
            request_id=request_id,
            details=_told(changes),
            tenant_id=tenant_id,
        )
        await uow.audit.record(event)
        await uow.commit()
    return user


async def tenant_of_user(principal: Principal, user_id: UserId, *, open_uow: OpenUnitOfWork) -> TenantId:
    """Where to look for the user: platform admins reach every tenant. Raises NotFound."""
    if user_id == principal.user_id:
        return principal.tenant_id
    if principal.is_platform_admin:
        async with open_uow(None) as uow:
            return existing(await uow.directory.user_anywhere(user_id), "user").tenant_id
    if not principal.is_admin:
        raise NotFound("No such user.")
    return principal.tenant_id


async def user_named(principal: Principal, named: str | None, *, open_uow: OpenUnitOfWork) -> User:
    """The user of the principal's tenant with that external id or id; oneself with None.

    Only administrators reach others. Raises NotFound.
    """
    if named is None or named in (principal.user.external_id, str(principal.user_id)):
        return principal.user
    found = await _user_named(principal, named, open_uow) if principal.is_admin else None
    return existing(found, "user")


async def spoken_for(principal: Principal, named: str | None, *, open_uow: OpenUnitOfWork, clock: Clock) -> User:
    """Whom the principal asks for: as user_named, but an administrator's unknown external id becomes a user.

    Raises NotFound, NotAllowed for a disabled user, InvalidRequest for what is no external id.
    """
    try:
        user = await user_named(principal, named, open_uow=open_uow)
    except NotFound:
        if not principal.is_admin or named is None:
            raise
        name_of(named, "user_id")
        user = await user_on_first_sight(
            principal.tenant_id, named, Role.USER, open_uow=open_uow, clock=clock, by=principal
        )
    if user.disabled:
        raise NotAllowed("The user is disabled.")
    return user


async def user_on_first_sight(
    tenant_id: TenantId,
    external_id: str,
    role: Role,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    by: Principal | None = None,
) -> User:
    """Make the user of a subject that is seen for the first time; of several callers at once, one does."""
    now = clock()
    user = User(id=UserId(new_id()), tenant_id=tenant_id, external_id=external_id, role=role, created_at=now)
    event = AuditEvent(
        id=new_id(),
        tenant_id=tenant_id,
        actor_user_id=user.id if by is None else by.user_id,
        actor_key_id=None if by is None or by.api_key is None else by.api_key.id,
        action="user.seen_first",
        object_kind="user",
        object_id=str(user.id),
        details={"external_id": external_id, "role": role.value},
        request_id=None,
        created_at=now,
    )
    try:
        async with open_uow(tenant_id) as uow:
            await add_user(uow, user)
            await uow.audit.record(event)
            await uow.commit()
    except Conflict:
        async with open_uow(tenant_id) as uow:
            found = await uow.identity.user_by_external_id(external_id)
        if found is None:
            raise
        return found
    return user


async def _user_named(principal: Principal, named: str, open_uow: OpenUnitOfWork) -> User | None:
    user_id = parse_id(named)
    async with open_uow(principal.tenant_id) as uow:
        found = await uow.identity.user_by_external_id(named)
        if found is None and user_id is not None:
            found = await uow.identity.user(UserId(user_id))
    return found


def _check_grant(principal: Principal, role: Role) -> None:
    if not principal.may_grant(role):
        raise NotAllowed(f"Only a platform_admin may grant the role {role.value}.")


def _check_own_rights(principal: Principal, user_id: UserId, changes: Mapping[str, Any]) -> None:
    """An administrator who locks themselves out may leave nobody to let them in."""
    if user_id != principal.user_id:
        return
    if changes.get("disabled") or changes.get("role", principal.user.role) is not principal.user.role:
        raise Conflict("You cannot disable yourself or change your own role; ask another administrator.")


async def _user_fields(principal: Principal, changes: Mapping[str, Any], passwords: PasswordHasher) -> dict[str, Any]:
    """The changes as fields of a User, checked."""
    fields = {name: value for name, value in changes.items() if name != "password"}
    if "role" in changes:
        _check_grant(principal, changes["role"])
    if changes.get("name") is not None:
        name_of(changes["name"], "name")
    if changes.get("email") is not None:
        fields["email"] = email_of(changes["email"])
    if "password" in changes:
        fields["password_hash"] = await _hashed(changes["password"], passwords)
    return fields


async def _hashed(password: str | None, passwords: PasswordHasher) -> str | None:
    """Called with no unit of work open: a hash takes a fifth of a second."""
    if password is None:
        return None
    check_password(password)
    return await passwords.hash(password)


def _told(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What the log may know: that a password was changed, never which."""
    return {name: "changed" if name == "password" else value for name, value in changes.items()}
