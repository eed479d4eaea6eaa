"""How quotas stand: each with the account of the period that a moment is in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from src.domain.ledger.model import Account, Scope, Window
from src.domain.ledger.periods import period_of, resets_at
from src.domain.ledger.quotas import Quota, untouched
from src.domain.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaStanding:
    """A quota in its present period. `resets_at` is None for a prepaid balance."""

    quota: Quota
    account: Account
    resets_at: datetime | None

    @property
    def remaining(self) -> int:
        """What is neither spent nor held."""
        return max(0, self.account.available)

    @property
    def is_untouched(self) -> bool:
        """Nothing was done in this period yet: there is no account in the books."""
        return self.account.id == self.quota.id


async def quota_standings(
    uow: UnitOfWork, quotas: Sequence[Quota], at: datetime, time_zone: str
) -> list[QuotaStanding]:
    """The quotas, in their order, in the period that `at` is in."""
    periods = {window: period_of(window, at, time_zone) for window in Window}
    found = await uow.accounts.accounts_of([quota.id for quota in quotas], list(periods.values()))
    used = {(account.quota_id, account.period): account for account in found}
    standings = []
    for quota in quotas:
        period = periods[quota.key.window]
        account = used.get((quota.id, period)) or untouched(quota, period)
        ends = resets_at(quota.key.window, at, time_zone)
        standings.append(QuotaStanding(quota=quota, account=account, resets_at=ends))
    return standings


async def standings_of(
    uow: UnitOfWork, scopes: Sequence[tuple[Scope, UUID]], at: datetime, time_zone: str
) -> list[QuotaStanding]:
    """Every quota in force of these scopes."""
    return await quota_standings(uow, await uow.accounts.quotas_of(scopes), at, time_zone)
