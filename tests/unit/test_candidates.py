"""In which order deployments are tried."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from src.domain.catalog.model import (
    Capabilities,
    ChainStrategy,
    Deployment,
    Model,
    Price,
    Provider,
    ProviderKind,
    Route,
    WireFormat,
)
from src.domain.completion.content import Media, MediaKind, ToolResult
from src.domain.completion.model import ChatMessage, ChatRequest, ChatRole, WireBody
from src.domain.completion.tools import Tool
from src.domain.routing.board import Board
from src.domain.routing.candidates import Candidate, can_do, candidates, sticky_word
from src.shared.money import Rate
from tests.makers import NOW
from tests.unit.support import make_model, user_says

PROVIDERS = {name: Provider(name=name, kind=ProviderKind.OPENAI) for name in ("openai", "east", "west")}
PROVIDERS["off"] = Provider(name="off", kind=ProviderKind.OPENAI, enabled=False)
CALLS = 4000


def named(*names: str, **given: Any) -> tuple[Model, ...]:
    return tuple(make_model(name=name, upstream=name, **given) for name in names)


def tried(route: Route, board: Board | None = None, *, stream: bool = True, sticky: str | None = None) -> list[str]:
    found = candidates(route, PROVIDERS, board or Board(), stream=stream, sticky=sticky, now=NOW)
    return [each.key for each in found]


def route_of(strategy: ChainStrategy, *models: Model, **given: Any) -> Route:
    return Route(name="chain", models=models, strategy=strategy, **given)


def test_an_ordered_chain_is_tried_in_order() -> None:
    assert tried(route_of(ChainStrategy.ORDERED, *named("a", "b", "c"))) == ["openai/a", "openai/b", "openai/c"]


def test_a_weighted_chain_shares_out_its_calls() -> None:
    route = route_of(ChainStrategy.WEIGHTED, *named("a", "b", "c"), weights=(6, 3, 1))
    orders = [tried(route) for _ in range(CALLS)]
    assert all(len(set(order)) == 3 for order in orders)
    first = Counter(order[0] for order in orders)
    for name, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
        assert first[f"openai/{name}"] / CALLS == pytest.approx(share, abs=0.04)


def test_what_has_no_weight_is_tried_last() -> None:
    route = route_of(ChainStrategy.WEIGHTED, *named("a", "b", "c"), weights=(0, 1, 0))
    assert {tuple(tried(route)) for _ in range(50)} == {("openai/b", "openai/a", "openai/c")}


def test_a_conversation_stays_where_it_is_and_few_move_when_a_model_comes() -> None:
    few = route_of(ChainStrategy.WEIGHTED, *named("a", "b", "c"))
    more = route_of(ChainStrategy.WEIGHTED, *named("a", "b", "c", "d"))
    words = [f"dialog {number}" for number in range(1000)]
    before = {word: tried(few, sticky=word)[0] for word in words}
    assert before == {word: tried(few, sticky=word)[0] for word in words}
    assert len(set(before.values())) == 3
    moved = {word: place for word in words if (place := tried(more, sticky=word)[0]) != before[word]}
    assert set(moved.values()) == {"openai/d"}
    assert len(moved) < 350


def test_a_chain_that_is_not_sticky_draws_each_time() -> None:
    route = route_of(ChainStrategy.WEIGHTED, *named("a", "b"), sticky=False)
    assert len({tried(route, sticky="the same")[0] for _ in range(100)}) == 2
    places = (Deployment(provider="east", upstream="a"), Deployment(provider="west", upstream="a"))
    spread = route_of(ChainStrategy.ORDERED, replace(named("a")[0], deployments=places), sticky=False)
    assert len({tried(spread, sticky="the same")[0] for _ in range(100)}) == 3


def test_the_cheapest_is_first_by_todays_prices() -> None:
    dear, cheap = (Price(input=Rate(rate), output=Rate(rate)) for rate in (9, 1))
    a, b = named("a", "b")
    route = route_of(ChainStrategy.CHEAPEST, replace(a, prices=(dear,)), replace(b, prices=(cheap,)))
    assert tried(route) == ["openai/b", "openai/a"]


def test_the_fastest_is_first_and_what_is_unknown_is_measured() -> None:
    now_s = [0.0]
    board = Board(clock=lambda: now_s[0])
    route = route_of(ChainStrategy.FASTEST, *named("a", "b", "c"))
    board.answered("openai/a", 2.0, stream=True)
    board.answered("openai/b", 0.5, stream=True)
    board.answered("openai/b", 9.0, stream=False)
    assert tried(route, board) == ["openai/c", "openai/b", "openai/a"]
    board.answered("openai/c", 1.0, stream=True)
    assert tried(route, board) == ["openai/b", "openai/c", "openai/a"]
    now_s[0] = 100.0
    board.answered("openai/b", 0.5, stream=True)
    assert tried(route, board) == ["openai/a", "openai/c", "openai/b"]


def test_a_models_deployments_share_its_calls_by_weight_before_the_next_model() -> None:
    a, b = named("a", "b")
    places = (Deployment(provider="east", upstream="a-1"), Deployment(provider="west", upstream="a-2", weight=0))
    route = route_of(ChainStrategy.ORDERED, replace(a, weight=3, deployments=places), b)
    orders = [tried(route) for _ in range(CALLS)]
    assert {tuple(order[2:]) for order in orders} == {("west/a-2", "openai/b")}
    first = Counter(order[0] for order in orders)
    assert first["openai/a"] / CALLS == pytest.approx(0.75, abs=0.04)
    assert first["east/a-1"] / CALLS == pytest.approx(0.25, abs=0.04)


def test_a_deployment_is_called_by_its_own_name_at_its_own_provider() -> None:
    place = Deployment(provider="east", upstream="a-1")
    route = route_of(ChainStrategy.ORDERED, replace(named("a")[0], weight=0, deployments=(place,)))
    first = candidates(route, PROVIDERS, Board(), stream=True, sticky=None, now=NOW)[0]
    assert (first.model.name, first.model.upstream, first.provider) == ("a", "a-1", PROVIDERS["east"])


def test_deployments_of_providers_that_are_off_or_gone_are_left_out() -> None:
    places = (Deployment(provider="off", upstream="a"), Deployment(provider="nowhere", upstream="a"))
    assert tried(route_of(ChainStrategy.ORDERED, replace(named("a")[0], deployments=places))) == ["openai/a"]


@pytest.mark.parametrize(
    ("kind", "abilities", "carried", "able"),
    [
        (ProviderKind.OPENAI, {}, ("modalities",), True),
        (ProviderKind.ANTHROPIC, {}, ("modalities",), False),
        (ProviderKind.ANTHROPIC, {"tools": False}, (), True),
    ],
)
def test_what_a_model_cannot_do_is_known_beforehand(
    kind: ProviderKind, abilities: dict[str, bool], carried: tuple[str, ...], able: bool
) -> None:
    model = replace(named("a")[0], capabilities=Capabilities(**abilities))
    wire = WireBody(format=WireFormat.CHAT_COMPLETIONS, body={}, untranslatable=carried)
    candidate = Candidate(model=model, provider=Provider(name="p", kind=kind))
    assert can_do(candidate, user_says("hello", wire=wire)) is able
    assert can_do(candidate, user_says("hello"))


@pytest.mark.parametrize(
    ("abilities", "able"), [({}, True), ({"images": False}, False), ({"tools": False}, False), ({"audio": True}, True)]
)
def test_what_a_request_needs_is_looked_for_among_the_abilities(abilities: dict[str, bool], able: bool) -> None:
    candidate = Candidate(
        model=replace(named("a")[0], capabilities=Capabilities(**abilities)), provider=PROVIDERS["east"]
    )
    picture = Media(kind=MediaKind.IMAGE, url="https://example.org/a.png")
    message = ChatMessage(role=ChatRole.USER, parts=(ToolResult(call_id="1", content=(picture,)),))
    assert can_do(candidate, ChatRequest(messages=(message,), tools=(Tool(name="look"),))) is able


def test_the_turns_of_a_conversation_have_a_word_in_common() -> None:
    first, later = user_says("be brief", "hello"), user_says("be brief", "hello", "and then?")
    assert sticky_word(first, None) == sticky_word(later, None) != sticky_word(user_says("be brief", "bye"), None)
    assert sticky_word(first, "dialog") == sticky_word(user_says("else"), "dialog")
