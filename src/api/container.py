"""The gateway as its doors see it: ports, opened by bootstrap, frozen."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from src.domain.catalog.ports import CatalogView
from src.domain.catalog.use_cases import CatalogAdmin
from src.domain.completion.ports import Upstreams
from src.domain.completion.use_cases import CompletionPorts
from src.domain.dialogs.use_cases import DialogPorts
from src.domain.identity.authentication import Authenticator
from src.domain.identity.ports import PasswordHasher, SecretHasher
from src.domain.identity.sessions import SessionPorts
from src.domain.limits.administration import RateLimitAdmin
from src.domain.unit_of_work import OpenUnitOfWork
from src.shared.clock import Clock


class Metrics(Protocol):
    """What the doors report and serve."""

    def request(self, endpoint: str, status: int, duration_s: float) -> None: ...

    def exposition(self) -> tuple[bytes, str]:
        """The text and its content type."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Everything a handler may use."""

    authenticator: Authenticator
    open_uow: OpenUnitOfWork
    open_reading: OpenUnitOfWork
    catalog: CatalogView
    catalog_admin: CatalogAdmin
    rate_limits: RateLimitAdmin
    upstreams: Upstreams
    completions: CompletionPorts
    dialogs: DialogPorts
    passwords: PasswordHasher
    hasher: SecretHasher
    sessions: SessionPorts
    clock: Clock
    metrics: Metrics
    is_migrated: Callable[[], Awaitable[bool]]
    check_database: Callable[[], Awaitable[None]]
    cache_state: Callable[[], str]
    version: str
