"""What a call would hold and cost, said beforehand."""

from dataclasses import replace
from typing import Any

import pytest

from src.domain.catalog.model import Model, Price, Provider, Tier
from src.domain.completion.estimating import Estimate, estimate
from src.domain.completion.holding import HoldingPolicy, plan_hold
from src.domain.completion.model import Call, Parameters
from src.domain.completion.use_cases import TaskKeeper
from src.domain.ledger.model import Hold, Scope, Unit, Window
from src.shared.errors import QuotaExceeded
from tests.fake_store import Store
from tests.fakes import FakeLedger, fake_unit_of_work_opener
from tests.makers import NOW, make_key, make_limit, make_tenant, make_top_up
from tests.unit import support
from tests.unit.support import (
    PROMPT_OVERHEAD,
    FakeUpstreams,
    WordMeter,
    completion_ports,
    make_call,
    make_catalog,
    make_model,
    make_principal,
    usd,
    user_says,
)

WORDS = 3
BOUND = WORDS + PROMPT_OVERHEAD
LONGEST = 100
"""The model's maximum."""
DEAR = make_model(name="dear", prices=(Price(input=usd(10), output=usd(20)),), max_output=50)
FAST = make_model()


class Upstreams(FakeUpstreams):
    """Providers that are there, except for some."""

    def __init__(self, *missing: str) -> None:
        super().__init__()
        self.missing = missing

    def is_ready(self, provider: Provider) -> bool:
        return provider.name not in self.missing


class Scene:
    """A user with a key who may have quotas, and the ledger that a real call would be held by."""

    def __init__(self, *models: Model, missing: tuple[str, ...] = (), **given: Any) -> None:
        self.store = Store()
        person = make_principal(tenant=make_tenant(time_zone=given.pop("zone", "UTC")))
        self.me = replace(person, api_key=make_key(person.user))
        self.models = models or (FAST,)
        parameters = Parameters(max_output_tokens=given.pop("wish", None))
        chat = user_says("how are you", parameters=parameters, stream=given.pop("stream", False))
        self.call: Call = make_call(*self.models, principal=self.me, chat=chat, **given)
        ledger = support.FakeLedger()
        catalog = make_catalog(*self.models)
        spare = Provider(name="spare", kind=catalog.providers["openai"].kind)
        catalog = replace(catalog, providers={**catalog.providers, "spare": spare})
        ports = completion_ports(ledger, Upstreams(*missing), catalog)
        holding = HoldingPolicy(least_output_tokens=20)
        self.ports = replace(ports, answers=replace(ports.answers, holding=holding), keeper=TaskKeeper(most=0))

    def quota(self, amount: int, scope: Scope = Scope.USER, **given: Any) -> None:
        """A limit per day or month where a window is given, else prepaid."""
        assert self.me.api_key is not None
        ids = {Scope.TENANT: self.me.tenant_id, Scope.USER: self.me.user_id, Scope.API_KEY: self.me.api_key.id}
        make = make_limit if "window" in given else make_top_up
        FakeLedger(self.store).change(make(self.me.user, amount, scope=scope, scope_id=ids[scope], **given))

    async def estimated(self) -> Estimate:
        """The estimate, which leaves everything as it was."""
        before = self.store.copy()
        found = await estimate(self.call, self.ports, fake_unit_of_work_opener(self.store))
        assert self.store == before
        return found

    async def held(self) -> Hold:
        """What a real call holds."""
        answers = self.ports.answers
        plan = await plan_hold(self.call, answers.meter, answers.clock, answers.holding)
        return await FakeLedger(self.store).open(plan.request)


def would_hold(found: Estimate) -> list[tuple[str, str, str, int]]:
    accounts = [(each.standing.account, each.would_hold) for each in found.payers]
    return [(account.scope.value, account.unit.value, account.window.value, amount) for account, amount in accounts]


async def test_without_a_quota_nothing_refuses_and_nothing_limits() -> None:
    found = await Scene().estimated()
    assert (found.refusals, found.payers, found.is_shrunk) == ((), (), False)
    assert (found.first.input_tokens, found.input_tokens_bound) == (WORDS, BOUND)
    assert found.first.output_tokens_cap is None
    assert found.needed == {Unit.TOKENS: BOUND + LONGEST, Unit.MICRO_USD: BOUND + 2 * LONGEST, Unit.REQUESTS: 1}
    assert (found.first.least, found.first.most, found.worst) == (WORDS, BOUND + 2 * LONGEST, BOUND + 2 * LONGEST)
    assert found.first.rates == (usd(1), usd(2))


async def test_a_wish_is_the_cap_and_never_costs_more_than_the_model_can_say() -> None:
    short = await Scene(wish=30).estimated()
    assert (short.first.output_tokens_cap, short.first.most) == (30, BOUND + 60)
    assert short.needed[Unit.TOKENS] == BOUND + 30
    long = await Scene(wish=10 * LONGEST).estimated()
    assert long.first.most == BOUND + 2 * LONGEST


@pytest.mark.parametrize("scope", [Scope.TENANT, Scope.USER, Scope.API_KEY])
@pytest.mark.parametrize("window", list(Window))
@pytest.mark.parametrize("unit", list(Unit))
async def test_an_account_would_hold_what_a_call_then_holds(scope: Scope, window: Window, unit: Unit) -> None:
    scene = Scene()
    scene.quota(1000, scope, unit=unit, **({} if window is Window.NONE else {"window": window}))
    found = await scene.estimated()
    hold = await scene.held()
    assert would_hold(found) == [(scope.value, unit.value, window.value, hold.lines[0].amount)]
    assert found.needed[unit] == hold.lines[0].amount
    assert (found.first.output_tokens_cap, found.is_shrunk) == (hold.output_cap, False)


@pytest.mark.parametrize("unit", [Unit.TOKENS, Unit.MICRO_USD])
async def test_a_quota_that_pays_for_a_part_shrinks_the_answer(unit: Unit) -> None:
    scene = Scene()
    scene.quota(BOUND + 60, unit=unit)
    scene.quota(5, unit=Unit.REQUESTS)
    found = await scene.estimated()
    hold = await scene.held()
    assert found.is_shrunk
    assert found.first.output_tokens_cap == hold.output_cap == (60 if unit is Unit.TOKENS else 30)
    assert found.first.most == BOUND + 2 * hold.output_cap
    assert found.needed[unit] == next(line.amount for line in hold.lines if line.unit is unit) == BOUND + 60
    assert sorted(amount for *_, amount in would_hold(found)) == sorted(line.amount for line in hold.lines)


async def test_what_others_hold_is_counted() -> None:
    scene = Scene()
    scene.quota(2 * (BOUND + LONGEST) - 1)
    await scene.held()
    found = await scene.estimated()
    assert found.first.output_tokens_cap == LONGEST - 1
    assert found.payers[0].standing.account.held == BOUND + LONGEST


async def test_the_day_is_the_tenants() -> None:
    scene = Scene(zone="Pacific/Honolulu")
    scene.quota(1000, window=Window.DAY, period="2026-11-20")
    await scene.held()
    [payer] = (await scene.estimated()).payers
    assert (payer.standing.account.period, payer.standing.account.held) == ("2026-11-20", BOUND + LONGEST)
    assert payer.standing.resets_at == NOW.replace(hour=10, minute=0, second=0, microsecond=0)


async def test_every_account_that_would_refuse_is_told_as_a_call_is_told() -> None:
    scene = Scene()
    scene.quota(BOUND + 19, Scope.TENANT)
    scene.quota(10_000)
    scene.quota(BOUND + 39, window=Window.DAY, unit=Unit.MICRO_USD)
    scene.quota(0, Scope.API_KEY, window=Window.MONTH, unit=Unit.REQUESTS)
    found = await scene.estimated()
    told = [each.details for each in found.refusals]
    assert [(each["scope"], each["unit"], each["window"], each["needed"]) for each in told] == [
        ("tenant", "tokens", "none", BOUND + 20),
        ("user", "micro_usd", "day", BOUND + 40),
        ("api_key", "requests", "month", 1),
    ]
    assert found.needed == {Unit.TOKENS: BOUND + 20, Unit.MICRO_USD: BOUND + 40, Unit.REQUESTS: 1}
    assert len(found.payers) == 4
    assert {amount for *_, amount in would_hold(found)} == {0}
    assert (found.first.output_tokens_cap, found.is_shrunk) == (LONGEST, False)
    with pytest.raises(QuotaExceeded) as refused:
        await scene.held()
    assert (refused.value.message, refused.value.details) == (found.refusals[0].message, told[0])


async def test_a_chain_holds_the_dearest_and_costs_what_each_of_its_models_costs() -> None:
    scene = Scene(FAST, DEAR, name="smart")
    scene.quota(10_000, unit=Unit.MICRO_USD)
    found = await scene.estimated()
    assert (found.model, [each.model.name for each in found.models]) == ("smart", ["fast", "dear"])
    fast, dear = found.models
    assert (found.first, fast.least, fast.most) == (fast, WORDS, BOUND + 2 * LONGEST)
    assert (dear.output_tokens_cap, dear.least, dear.most) == (50, 10 * WORDS, 10 * BOUND + 20 * 50)
    assert found.worst == dear.most
    assert found.needed[Unit.MICRO_USD] == (await scene.held()).lines[0].amount == 10 * BOUND + 20 * LONGEST


async def test_a_model_that_is_left_out_costs_nothing_and_another_answers() -> None:
    scene = Scene(DEAR, FAST, name="smart")
    scene.quota(BOUND, model="dear")
    scene.quota(1000)
    found = await scene.estimated()
    assert [(each.model.name, each.is_left_out) for each in found.models] == [("dear", True), ("fast", False)]
    assert (found.first.model.name, found.worst) == ("fast", BOUND + 2 * LONGEST)
    assert [(each.standing.account.model, each.would_hold) for each in found.payers] == [
        ("dear", 0),
        (None, BOUND + LONGEST),
    ]
    assert found.refusals == ()


async def test_a_chain_of_which_no_model_can_pay_is_refused_by_all_of_them() -> None:
    scene = Scene(DEAR, FAST, name="smart")
    scene.quota(BOUND, model="dear")
    scene.quota(BOUND, model="fast", window=Window.DAY)
    found = await scene.estimated()
    assert [each.details["model"] for each in found.refusals] == ["dear", "fast"]
    assert found.worst == found.models[0].most


async def test_a_quota_for_another_model_or_another_user_says_nothing() -> None:
    scene = Scene()
    scene.quota(0, model="dear")
    other = make_principal(tenant=scene.me.tenant)
    FakeLedger(scene.store).change(make_limit(other.user, 0))
    found = await scene.estimated()
    assert (found.refusals, found.payers) == ((), ())


async def test_the_first_model_that_can_be_called_is_the_one_that_counts() -> None:
    spare = replace(DEAR, provider="spare")
    found = await Scene(spare, FAST, name="smart", missing=("spare",)).estimated()
    assert [each.is_available for each in found.models] == [False, True]
    assert found.first.model.name == "fast"
    nowhere = await Scene(spare, missing=("spare",)).estimated()
    assert nowhere.first.model.name == "dear"


async def test_a_stream_holds_its_reserve_at_first_and_may_say_more() -> None:
    model = make_model(output_reserve=40)
    stream = Scene(model, stream=True)
    stream.quota(1000)
    found = await stream.estimated()
    assert (found.needed[Unit.TOKENS], found.first.output_tokens_cap) == (BOUND + 40, LONGEST)
    assert (found.first.most, found.is_shrunk) == (BOUND + 2 * LONGEST, False)
    whole = Scene(model)
    whole.quota(1000)
    assert (await whole.estimated()).first.output_tokens_cap == 40


async def test_a_dearer_tier_is_what_a_prompt_that_may_reach_it_costs_at_the_most() -> None:
    class Long(WordMeter):
        async def prompt_bound(self, chat: Any, model: Model) -> int:
            return 300

    tier = Tier(above_input_tokens=200, input=usd(5), output=usd(7))
    price = Price(input=usd(1), output=usd(2), tiers=(tier,))
    scene = Scene(make_model(prices=(price,)))
    scene.ports = replace(scene.ports, answers=replace(scene.ports.answers, meter=Long()))
    found = await scene.estimated()
    assert (found.first.rates, found.first.least) == ((usd(1), usd(2)), WORDS)
    assert found.first.most == 5 * 300 + 7 * LONGEST
