"""Prices, tiers, chains and what a budget pays for."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.domain.catalog.model import (
    FREE,
    Chain,
    Price,
    Provider,
    ProviderKind,
    Tier,
    Usage,
    WireFormat,
    output_affordable,
)
from src.shared.errors import InvalidRequest, NotFound
from src.shared.money import PER_MILLION, Rate, rounded_up
from tests.makers import NOW
from tests.unit.support import make_catalog, make_model, usd

rates = st.integers(0, 100_000_000).map(Rate)
cache_rates = st.none() | rates
tokens = st.integers(0, 2_000_000)
tiers = st.builds(
    Tier, above_input_tokens=tokens, input=rates, output=rates, cache_read=cache_rates, cache_write=cache_rates
)
prices = st.builds(
    Price,
    input=rates,
    output=rates,
    cache_read=cache_rates,
    cache_write=cache_rates,
    tiers=st.lists(tiers, max_size=3).map(tuple),
)


@st.composite
def usages(draw: st.DrawFn, most_input: int = 2_000_000) -> Usage:
    input_tokens = draw(st.integers(0, most_input))
    read = draw(st.integers(0, input_tokens))
    written = draw(st.integers(0, input_tokens - read))
    return Usage(
        input_tokens=input_tokens, output_tokens=draw(tokens), cache_read_tokens=read, cache_write_tokens=written
    )


def test_a_call_costs_tokens_times_rates() -> None:
    price = Price(input=usd(10), output=usd(30))
    assert price.cost(Usage(input_tokens=1000, output_tokens=500)) == 10_000 + 15_000


def test_the_sum_is_rounded_once_and_up() -> None:
    price = Price(input=usd(0.1), output=usd(0.1))
    assert price.cost(Usage(input_tokens=1, output_tokens=1)) == 1
    assert price.cost(Usage()) == 0


def test_cached_tokens_cost_their_own_rates() -> None:
    price = Price(input=usd(3), output=usd(15), cache_read=usd(0.3), cache_write=usd(3.75))
    usage = Usage(input_tokens=1000, cache_read_tokens=600, cache_write_tokens=300)
    assert price.cost(usage) == 100 * 3 + 180 + 1125


def test_cached_tokens_without_a_rate_cost_the_input_rate() -> None:
    price = Price(input=usd(3), output=usd(15))
    usage = Usage(input_tokens=1000, cache_read_tokens=600, cache_write_tokens=300)
    assert price.cost(usage) == 3000


def test_a_cache_rate_of_zero_is_a_rate() -> None:
    price = Price(input=usd(3), output=usd(15), cache_read=Rate(0))
    assert price.cost(Usage(input_tokens=10, cache_read_tokens=10)) == 0


@pytest.mark.parametrize(("input_tokens", "rate"), [(200, 1), (201, 2), (500, 2), (501, 4)])
def test_the_highest_tier_reached_sets_the_rates(input_tokens: int, rate: int) -> None:
    high = Tier(above_input_tokens=500, input=usd(4), output=usd(4))
    middle = Tier(above_input_tokens=200, input=usd(2), output=usd(2))
    price = Price(input=usd(1), output=usd(1), tiers=(high, middle))
    assert price.rates_for(input_tokens).input == usd(rate)
    assert price.cost(Usage(input_tokens=input_tokens)) == input_tokens * rate


@pytest.mark.parametrize(
    ("name", "responses", "expected"),
    [
        ("openai", None, True),
        ("openai", False, False),
        ("my-vllm", None, False),
        ("my-vllm", True, True),
    ],
)
def test_only_openai_itself_has_responses_unless_the_operator_says_otherwise(
    name: str, responses: bool | None, expected: bool
) -> None:
    formats = Provider(name=name, kind=ProviderKind.OPENAI, responses=responses).formats
    assert (WireFormat.RESPONSES in formats, WireFormat.CHAT_COMPLETIONS in formats) == (expected, True)


@given(price=prices, bound=st.integers(0, 2_000_000), data=st.data())
def test_no_usage_within_the_bound_costs_more_than_the_worst_rates(
    price: Price, bound: int, data: st.DataObject
) -> None:
    usage = data.draw(usages(most_input=bound))
    input_rate, output_rate = price.worst_rates(bound)
    assert price.cost(usage) <= rounded_up(bound * input_rate + usage.output_tokens * output_rate)


@given(price=prices, usage=usages())
def test_a_cost_is_never_negative_nor_short_of_the_exact_sum(price: Price, usage: Usage) -> None:
    rates_in_force = price.rates_for(usage.input_tokens)
    caches = (rates_in_force.cache_read, rates_in_force.cache_write)
    cheapest = min(rates_in_force.input, *(rates_in_force.input if rate is None else rate for rate in caches))
    exact = usage.input_tokens * cheapest + usage.output_tokens * rates_in_force.output
    assert price.cost(usage) * PER_MILLION >= exact >= 0


def test_the_price_in_force_is_the_latest_that_has_begun() -> None:
    always = Price(input=usd(1), output=usd(1))
    now = Price(input=usd(2), output=usd(2), effective_from=NOW)
    later = Price(input=usd(3), output=usd(3), effective_from=NOW + timedelta(days=1))
    model = make_model(prices=(later, always, now))
    assert model.price_at(NOW - timedelta(microseconds=1)) is always
    assert model.price_at(NOW) is now
    assert model.price_at(NOW + timedelta(days=1)) is later


def test_before_the_first_price_the_first_is_in_force() -> None:
    first = Price(input=usd(2), output=usd(2), effective_from=NOW)
    second = Price(input=usd(3), output=usd(3), effective_from=NOW + timedelta(days=1))
    assert make_model(prices=(second, first)).price_at(NOW - timedelta(days=1)) is first


def test_a_model_without_prices_is_free() -> None:
    assert make_model(prices=()).price_at(NOW) is FREE


def test_a_model_is_a_route_of_one() -> None:
    fast = make_model()
    assert make_catalog(fast).route("fast").models == (fast,)


def test_a_chain_keeps_its_order_and_leaves_out_what_is_switched_off() -> None:
    fast, slow, off = make_model(), make_model(name="slow"), make_model(name="off", enabled=False)
    chain = Chain(name="smart", models=("slow", "off", "gone", "fast"))
    route = make_catalog(fast, slow, off, chains={"smart": chain}).route("smart")
    assert (route.name, route.models) == ("smart", (slow, fast))


@pytest.mark.parametrize("name", ["gone", "off", "orphan", "shut", "nothing", "x" * 500])
def test_what_cannot_be_called_does_not_exist(name: str) -> None:
    catalog = make_catalog(
        make_model(name="off", enabled=False),
        make_model(name="orphan", provider="unknown"),
        make_model(name="shut", provider="closed"),
        providers={"closed": Provider(name="closed", kind=ProviderKind.OPENAI, enabled=False)},
        chains={"nothing": Chain(name="nothing", models=("off", "shut"))},
    )
    with pytest.raises(NotFound) as caught:
        catalog.route(name)
    assert (caught.value.specific_code, caught.value.param) == ("model_not_found", "model")
    assert len(caught.value.message) < 400


def test_a_call_without_a_model_gets_the_default() -> None:
    catalog = make_catalog(default_model="fast")
    assert catalog.name_or_default(None) == "fast"
    assert catalog.name_or_default("slow") == "slow"


def test_without_a_default_a_model_must_be_named() -> None:
    with pytest.raises(InvalidRequest):
        make_catalog().name_or_default(None)


@given(budget=st.integers(0, 10**9), prompt=tokens, input_rate=rates, output_rate=rates.filter(bool))
def test_a_budget_pays_for_what_is_affordable_and_for_no_token_more(
    budget: int, prompt: int, input_rate: int, output_rate: int
) -> None:
    affordable = output_affordable(budget, prompt, (input_rate, output_rate))
    assert affordable is not None
    if affordable >= 0:
        assert rounded_up(prompt * input_rate + affordable * output_rate) <= budget
    assert rounded_up(prompt * input_rate + (affordable + 1) * output_rate) > budget


def test_free_output_is_unlimited_once_the_input_is_paid() -> None:
    assert output_affordable(10, 10, (usd(1), 0)) is None
    assert output_affordable(9, 10, (usd(1), 0)) == -1
