"""The gateway without its doors, for the command line."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from src.api.bootstrap import jwt_settings, open_database, open_providers, require_migrated
from src.data.auditor import SqlAuditor
from src.data.group_commit import GroupCommitLedger
from src.domain.completion.ports import Upstreams
from src.domain.identity.model import Principal
from src.domain.identity.ports import PasswordHasher, SecretHasher, TokenIssuer
from src.domain.identity.sessions import acting_admin, bootstrap_admin
from src.domain.ledger.ports import Auditor
from src.domain.unit_of_work import OpenUnitOfWork
from src.integrations.jwt_tokens import JwtTokens
from src.integrations.password_hashing import Argon2Passwords
from src.integrations.secret_hashing import KeyedHasher
from src.shared.clock import Clock, utc_now
from src.shared.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """What the command line works with: the database, as the first platform admin."""

    principal: Principal
    open_uow: OpenUnitOfWork
    auditor: Auditor
    upstreams: Upstreams
    tokens: TokenIssuer
    passwords: PasswordHasher
    hasher: SecretHasher
    clock: Clock
    database: str


@asynccontextmanager
async def open_operator(settings: Settings) -> AsyncIterator[Operator]:
    """The gateway without its doors. Raises Misconfigured."""
    async with AsyncExitStack() as stack:
        engine, open_uow = await stack.enter_async_context(open_database(settings, patient=True))
        await require_migrated(engine)
        hasher = KeyedHasher(settings.encryption_key)
        await bootstrap_admin(open_uow, utc_now, hasher, settings.bootstrap_key)
        ledger = GroupCommitLedger(engine, clock=utc_now)
        await ledger.start()
        stack.push_async_callback(ledger.stop)
        upstreams = open_providers(settings)
        stack.push_async_callback(upstreams.close)
        tokens = JwtTokens(jwt_settings(settings))
        stack.push_async_callback(tokens.close)
        passwords = Argon2Passwords()
        stack.callback(passwords.close)
        yield Operator(
            principal=await acting_admin(open_uow),
            open_uow=open_uow,
            auditor=SqlAuditor(engine, ledger),
            upstreams=upstreams,
            tokens=tokens,
            passwords=passwords,
            hasher=hasher,
            clock=utc_now,
            database=engine.dialect.name,
        )
