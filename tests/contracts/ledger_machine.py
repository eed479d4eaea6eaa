"""A tenant whose quotas administrators change while time goes by, in a ledger and in its model."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from src.domain.ledger.model import Scope, Unit, Window
from src.domain.ledger.quotas import Adjustment, LimitChange, QuotaKey
from src.shared.errors import Conflict, NotFound, QuotaExceeded
from tests.contracts.conftest import Backend, LossyNetwork
from tests.contracts.ledger_model import LedgerModel, Lent, Rule
from tests.makers import make_key, make_user

STEPS = (timedelta(seconds=30), timedelta(minutes=6), timedelta(hours=1), timedelta(hours=13), timedelta(days=20))

zones = st.sampled_from(["UTC", "America/New_York", "Pacific/Auckland"])
limits = st.integers(0, 600)
gifts = st.integers(-200, 400)
places = st.integers(0, 50)
models = st.sampled_from([None, None, "fast", "dear", "smart"])


@dataclass(slots=True, kw_only=True)
class Scene:
    """One implementation, served to by two replicas, for all runs of the machine."""

    runner: asyncio.Runner
    backend: Backend
    ledgers: list[Any]
    network: LossyNetwork


class AdministeredLedger(RuleBasedStateMachine):
    """A tenant with two users, each with a key, whose calls overlap while their quotas change and days go by."""

    scene: ClassVar[Scene]

    def __init__(self) -> None:
        super().__init__()
        self.lent: list[Lent] = []

    @initialize(zone=zones, hour=st.integers(0, 23))
    def a_tenant(self, zone: str, hour: int) -> None:
        self.zone = zone
        self.now = datetime(2026, 11, 30, hour, 56, tzinfo=UTC)
        self.model = LedgerModel(zone)
        self.tenant, user = self.run(self.scene.backend.with_user())
        self.users = [user, make_user(self.tenant)]
        self.keys = [make_key(each) for each in self.users]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.scene.runner.run(work)

    def told(self, work: Callable[[Any], Awaitable[Any]], loss: str | None = None, replica: int = 0) -> Any:
        """What the ledger answers, though the network may lose a commit or the news of it; its refusals are answers."""
        if loss is not None and self.scene.backend.engine is not None:
            self.scene.network.losses, self.scene.network.after_commit = 1, loss == "acknowledgement"

        async def asked() -> Any:
            try:
                return await work(self.scene.ledgers[replica % 2])
            except (QuotaExceeded, Conflict) as refusal:
                return refusal

        return self.run(asked())

    def changed(self, change: Adjustment | LimitChange) -> Any:
        """The account after an administrator's change, or why it was refused."""

        async def asked() -> Any:
            try:
                is_limit = isinstance(change, LimitChange)
                return await (self.scene.backend.set_limit if is_limit else self.scene.backend.adjust)(change)
            except (NotFound, Conflict) as refusal:
                return refusal

        return self.run(asked())

    # What administrators do.

    quota = st.tuples(st.sampled_from(Unit), st.sampled_from(Window), models)

    @rule(whose=places, what=quota, limit=limits)
    def set_limit(self, whose: int, what: tuple[Unit, Window, str | None], limit: int) -> None:
        self._set_limit(self._key(whose, *what), limit)

    @precondition(lambda self: self.model.rules)
    @rule(which=places, limit=limits)
    def change_a_limit(self, which: int, limit: int) -> None:
        self._set_limit(self._key_in_force(which), limit)

    @rule(whose=places, what=quota, amount=gifts)
    def adjust(self, whose: int, what: tuple[Unit, Window, str | None], amount: int) -> None:
        self._adjust(self._key(whose, *what), amount)

    @precondition(lambda self: self.model.rules)
    @rule(which=places, amount=gifts)
    def adjust_what_is_in_force(self, which: int, amount: int) -> None:
        self._adjust(self._key_in_force(which), amount)

    def _key(self, whose: int, unit: Unit, window: Window, model: str | None) -> QuotaKey:
        owners = [(Scope.TENANT, self.tenant.id), (Scope.API_KEY, self.keys[0].id)]
        owners += [(Scope.USER, user.id) for user in self.users]
        scope, scope_id = owners[whose % len(owners)]
        return QuotaKey(tenant_id=self.tenant.id, scope=scope, scope_id=scope_id, unit=unit, window=window, model=model)

    def _key_in_force(self, which: int) -> QuotaKey:
        return list(self.model.rules)[which % len(self.model.rules)]

    def _set_limit(self, key: QuotaKey, limit: int) -> None:
        period = self.model.period(key.window, self.now)
        account = self.changed(LimitChange(key=key, limit=limit, at=self.now, period=period))
        self.model.put_limit(key, account.quota_id, limit, self.now)
        assert account.limit == limit

    def _adjust(self, key: QuotaKey, amount: int) -> None:
        period = self.model.period(key.window, self.now)
        account = self.changed(Adjustment(key=key, amount=amount, at=self.now, period=period))
        had = self.model.rules.get(key)
        if had is None and (amount < 0 or key.window is not Window.NONE):
            assert isinstance(account, Conflict if key.window is Window.NONE else NotFound)
        elif had is not None and amount < 0 and had.free(period) + amount < 0:
            assert isinstance(account, Conflict)
        else:
            found = self.model.rules.setdefault(key, Rule(key, account.quota_id))
            found.purse(period).given += amount

    @precondition(lambda self: self.model.rules)
    @rule(which=places)
    def remove(self, which: int) -> None:
        key = self._key_in_force(which)
        quota_id = self.model.rules[key].id

        async def removed() -> bool:
            async with self.scene.backend.open_uow(self.tenant.id) as uow:
                done: bool = await uow.accounts.remove_quota(quota_id, self.now)  # type: ignore[arg-type]
                await uow.commit()
                return done

        assert self.run(removed())
        assert not self.run(removed())
        self.model.remove(key)

    @rule(step=st.sampled_from(STEPS))
    def time_passes(self, step: timedelta) -> None:
        self.now += step
