"""How much of a call is held at first, how much it may come to, and what is sent upstream."""

from typing import Any

import pytest

from src.domain.catalog.model import Price
from src.domain.completion.holding import HoldingPolicy, Plan, plan_hold
from src.domain.completion.model import Call, Parameters
from src.domain.ledger.model import Hold
from tests.makers import NOW
from tests.unit.support import PROMPT_OVERHEAD, WordMeter, hold_for, make_call, make_model, usd, user_says

MOST = 100
RESERVE = 40


def asked(*models: Any, stream: bool = True, wish: int | None = None, choices: int = 1) -> Call:
    parameters = Parameters(max_output_tokens=wish, choices=choices)
    return make_call(*models, chat=user_says("how are you", stream=stream, parameters=parameters))


async def planned(call: Call, **policy: Any) -> Plan:
    return await plan_hold(call, WordMeter(), lambda: NOW, HoldingPolicy(**policy))


def outputs(plan: Plan) -> tuple[int, int, int | None]:
    """(held at first, in all, step)"""
    return plan.request.demand.output_tokens, plan.output_tokens, plan.step


def held(plan: Plan, output_cap: int | None) -> Hold:
    return hold_for(asked(), output_cap=output_cap)


@pytest.mark.parametrize(
    ("stream", "wish", "reserve", "expected"),
    [
        (False, None, None, (MOST, MOST, None)),
        (False, 30, None, (30, 30, None)),
        (False, 500, None, (MOST, MOST, None)),
        (False, None, RESERVE, (RESERVE, RESERVE, None)),
        (False, 30, RESERVE, (30, 30, None)),
        (False, 70, RESERVE, (70, 70, None)),
        (True, None, None, (MOST, MOST, None)),
        (True, 30, None, (30, 30, None)),
        (True, None, RESERVE, (RESERVE, MOST, RESERVE)),
        (True, 30, RESERVE, (30, 30, None)),
        (True, RESERVE, RESERVE, (RESERVE, RESERVE, None)),
        (True, 70, RESERVE, (RESERVE, 70, RESERVE)),
        (True, 500, RESERVE, (RESERVE, MOST, RESERVE)),
        (True, None, MOST, (MOST, MOST, None)),
    ],
)
async def test_a_reserve_bounds_what_is_held_at_first(
    stream: bool, wish: int | None, reserve: int | None, expected: tuple[int, int, int | None]
) -> None:
    plan = await planned(asked(make_model(output_reserve=reserve), stream=stream, wish=wish))
    assert outputs(plan) == expected


@pytest.mark.parametrize(
    ("reserves", "expected"),
    [((40, 60), (60, 200, 60)), ((40, None), (200, 200, None)), ((None, None), (200, 200, None))],
)
async def test_a_chain_holds_the_most_that_any_of_its_models_would(
    reserves: tuple[int | None, int | None], expected: tuple[int, int, int | None]
) -> None:
    small = make_model(output_reserve=reserves[0])
    large = make_model(name="large", max_output=200, output_reserve=reserves[1])
    assert outputs(await planned(asked(small, large))) == expected
    assert outputs(await planned(asked(large, small))) == expected


@pytest.mark.parametrize(("wish", "expected"), [(None, (120, 300, 120)), (30, (90, 90, None)), (70, (120, 210, 120))])
async def test_each_choice_has_its_own_output(wish: int | None, expected: tuple[int, int, int | None]) -> None:
    plan = await planned(asked(make_model(output_reserve=RESERVE), wish=wish, choices=3))
    assert outputs(plan) == expected
    assert plan.request.demand.least_output_tokens == 3 * 16


async def test_the_request_asks_for_the_longest_prompt_at_the_dearest_rates() -> None:
    other = make_model(name="other", prices=(Price(input=usd(3), output=usd(1)),))
    plan = await planned(asked(make_model(), other), lease_s=30.0, least_output_tokens=5)
    request = plan.request
    assert request.demand.rates == (usd(3), usd(2))
    assert request.models == ("fast", "other")
    assert (request.demand.prompt_tokens, request.demand.least_output) == (3 + PROMPT_OVERHEAD, 5)
    assert (request.expires_at - request.at).total_seconds() == 30


async def test_the_least_useful_output_is_never_more_than_the_wish() -> None:
    assert (await planned(asked(wish=3))).request.demand.least_output == 3


@pytest.mark.parametrize(
    ("output_cap", "upstream", "grows", "shrunk"),
    [
        (None, None, False, None),
        (RESERVE, MOST, True, None),
        (RESERVE + 5, MOST, True, None),
        (RESERVE - 1, RESERVE - 1, False, RESERVE - 1),
    ],
    ids=["unlimited", "the first step", "grown", "less than the first step"],
)
async def test_only_a_hold_with_its_whole_first_step_grows(
    output_cap: int | None, upstream: int | None, grows: bool, shrunk: int | None
) -> None:
    plan = await planned(asked(make_model(output_reserve=RESERVE)))
    hold = held(plan, output_cap)
    assert (plan.upstream_cap(hold), plan.grows(hold), plan.shrunk_cap(hold)) == (upstream, grows, shrunk)


@pytest.mark.parametrize(("output_cap", "shrunk"), [(None, None), (MOST, None), (99, 99)])
async def test_without_a_reserve_the_hold_is_the_cap(output_cap: int | None, shrunk: int | None) -> None:
    plan = await planned(asked())
    hold = held(plan, output_cap)
    assert (plan.upstream_cap(hold), plan.grows(hold), plan.shrunk_cap(hold)) == (output_cap, False, shrunk)


async def test_no_more_is_ever_demanded_than_the_call_may_come_to() -> None:
    plan = await planned(asked(make_model(output_reserve=RESERVE)))
    assert [plan.grown(each).output_tokens for each in (80, MOST, 120)] == [80, MOST, MOST]
    assert plan.grown(80).prompt_tokens == plan.request.demand.prompt_tokens
