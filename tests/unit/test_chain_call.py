"""A chain in bad weather: retries, breakers, deadlines and windows."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

import pytest

from src.domain.catalog.model import Deadlines, Model, Provider, ProviderKind
from src.domain.completion.deltas import TextDelta
from src.domain.completion.fallback import ChainCall, Routing, Trace
from src.domain.completion.model import (
    ChatRequest,
    Failure,
    Finished,
    FinishReason,
    Reply,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
)
from src.domain.routing.board import Board
from src.domain.routing.breaker import BreakerPolicy, BreakerState
from src.domain.routing.candidates import Candidate
from src.domain.routing.retry import RetryBudget, RetryPolicy
from tests.unit.support import make_model, user_says

PROVIDER = Provider(name="openai", kind=ProviderKind.OPENAI)
DONE = Finished(reason=FinishReason.STOP)
A, B, C = (make_model(name=name, upstream=name) for name in "abc")
STREAM, WHOLE = user_says("hello", stream=True), user_says("hello")
Weather = Callable[[str], UpstreamFailed | float | None]
"""What happens to a call of that model: a failure, a silence of so many seconds before it answers, or nothing."""


def failure(kind: Failure = Failure.SERVER, retry_after_s: float | None = None) -> UpstreamFailed:
    return UpstreamFailed(kind, f"It failed: {kind}.", retry_after_s=retry_after_s)


@dataclass
class Sky:
    """Providers under a weather, and how often each model was called."""

    weather: Weather
    calls: Counter[str] = field(default_factory=Counter)
    model: Model = A

    def chat_model(self, model: Model, provider: Provider) -> "Sky":
        self.calls[model.name] += 1
        return replace(self, model=model)

    def is_ready(self, provider: Provider) -> bool:
        return True

    async def close(self) -> None: ...

    async def complete(self, request: UpstreamRequest) -> Reply:
        await self._weathered()
        return Reply(text=self.model.name, finished=DONE)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        await self._weathered()
        yield TextDelta(self.model.name)
        await self._weathered()
        yield DONE

    async def _weathered(self) -> None:
        found = self.weather(self.model.name)
        if isinstance(found, UpstreamFailed):
            raise found
        await asyncio.sleep(found or 0)


class House:
    """One process: what it knows of its providers from call to call, on a clock that tests set."""

    def __init__(self, weather: Weather, breakers: BreakerPolicy | None = None, **retries: float) -> None:
        policy = RetryPolicy(**{"first_pause_s": 0.0, **retries})  # type: ignore[arg-type]
        self.now_s = 0.0
        self.sky = Sky(weather)
        self.board = Board(breakers or BreakerPolicy(most_in_a_row=0), clock=lambda: self.now_s)
        self.routing = Routing(
            upstreams=self.sky, board=self.board, retry=policy, budget=RetryBudget(policy, time.monotonic())
        )

    async def ask(self, *models: Model, chat: ChatRequest = STREAM, total_s: float = 5.0) -> tuple[str, Trace]:
        trace = Trace()
        found = [Candidate(model=model, provider=PROVIDER) for model in models]
        call = ChainCall(found, chat, None, trace, self.routing, total_s=total_s)
        try:
            texts = [event.text async for event in call.events() if isinstance(event, TextDelta)]
        except UpstreamFailed as failed:
            return failed.kind.value, trace
        return "".join(texts), trace


def outcomes(trace: Trace) -> list[tuple[str, str]]:
    return [(each.model, each.outcome) for each in trace.attempts]


def fails(*failures: UpstreamFailed | None) -> Weather:
    """So, call after call; then all is well."""
    coming = list(failures)
    return lambda _: coming.pop(0) if coming else None


@pytest.mark.parametrize("chat", [STREAM, WHOLE], ids=["stream", "whole"])
async def test_when_all_have_failed_one_is_tried_again(chat: ChatRequest) -> None:
    answered, trace = await House(fails(failure(), failure(Failure.TIMEOUT))).ask(A, B, chat=chat)
    assert answered == "a"
    assert outcomes(trace) == [("a", "server_error"), ("b", "timeout"), ("a", "ok")]


async def test_a_call_is_tried_again_no_more_often_than_it_may() -> None:
    answered, trace = await House(lambda _: failure(), most=2).ask(A, B)
    assert (answered, len(trace.attempts)) == ("server_error", 4)
    assert trace.last is not None


@pytest.mark.parametrize("kind", [Failure.CREDENTIALS, Failure.UNKNOWN_MODEL, Failure.UNSUPPORTED])
async def test_what_will_not_pass_is_not_tried_again(kind: Failure) -> None:
    answered, trace = await House(lambda _: failure(kind)).ask(A, B)
    assert (answered, len(trace.attempts)) == (kind.value, 2)


async def test_whoever_asks_for_time_gets_it_and_the_other_is_tried_first() -> None:
    house = House(fails(failure(Failure.RATE_LIMITED, 0.2), failure()))
    answered, trace = await house.ask(A, B)
    assert (answered, outcomes(trace)[-1]) == ("b", ("b", "ok"))
    began_s = asyncio.get_running_loop().time()
    answered, _ = await House(fails(failure(Failure.RATE_LIMITED, 0.05))).ask(A)
    assert answered == "a"
    assert asyncio.get_running_loop().time() - began_s >= 0.05


async def test_nobody_waits_longer_than_there_is_time() -> None:
    house = House(lambda _: failure(Failure.RATE_LIMITED, 2.0))
    answered, trace = await house.ask(A, total_s=1.0)
    assert (answered, len(trace.attempts)) == ("rate_limited", 1)
    assert trace.last is not None
    assert trace.last.retry_after_s == 2.0


async def test_in_a_storm_retries_stay_within_their_share() -> None:
    house = House(lambda _: failure(Failure.RATE_LIMITED), share=0.1, first_saved=3)
    for _ in range(200):
        await house.ask(A)
    assert 1.09 * 200 <= house.sky.calls["a"] <= 1.2 * 200


async def test_with_the_first_model_dead_nearly_every_call_goes_to_the_second_at_once() -> None:
    house = House(lambda name: failure(Failure.CONNECT) if name == "a" else None, BreakerPolicy())
    for _ in range(600):
        house.now_s += 0.1
        answered, _ = await house.ask(A, B)
        assert answered == "b"
    assert house.sky.calls.total() <= 1.05 * 600
    assert house.board.health("openai/a").state is not BreakerState.CLOSED


async def test_a_model_that_is_back_is_found_by_one_probe() -> None:
    house = House(fails(*[failure()] * 5), BreakerPolicy(most_in_a_row=5, open_s=5), most=0)
    for _ in range(5):
        await house.ask(A)
    assert (await house.ask(A))[0] == "resting"
    house.now_s = 5.0
    answers = await asyncio.gather(*(house.ask(A) for _ in range(10)))
    assert Counter(answered for answered, _ in answers) == {"a": 1, "resting": 9}
    assert (await house.ask(A))[0] == "a"


async def test_where_all_are_resting_the_caller_hears_when_to_come_back() -> None:
    house = House(lambda _: failure(), BreakerPolicy(most_in_a_row=1, open_s=5), most=0)
    await house.ask(A, B)
    house.now_s = 2.0
    call = ChainCall([Candidate(model=A, provider=PROVIDER)], STREAM, None, Trace(), house.routing, total_s=5)
    with pytest.raises(UpstreamFailed) as told:
        _ = [event async for event in call.events()]
    assert (told.value.kind, told.value.retry_after_s) == (Failure.RESTING, 3.0)
    assert house.sky.calls == {"a": 1, "b": 1}


async def test_a_call_that_is_given_up_does_not_keep_the_probe() -> None:
    weather: list[UpstreamFailed | float | None] = [failure(), 10.0]
    house = House(lambda _: weather.pop(0) if weather else None, BreakerPolicy(most_in_a_row=1, open_s=5), most=0)
    await house.ask(A)
    house.now_s = 5.0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await house.ask(A)
    assert (await house.ask(A))[0] == "a"


async def test_a_prompt_too_long_for_one_model_goes_to_a_larger_one_only() -> None:
    small, medium, large = (replace(model, context_window=window) for model, window in ((A, 100), (B, 100), (C, 1000)))
    house = House(lambda name: None if name == "c" else failure(Failure.CONTEXT_WINDOW))
    answered, trace = await house.ask(small, medium, large)
    assert (answered, outcomes(trace)) == ("c", [("a", "context_window"), ("c", "ok")])
    assert (await house.ask(small, medium))[0] == "context_window"


@pytest.mark.parametrize(
    ("deadlines", "chat"),
    [
        (Deadlines(first_event_s=0.02), STREAM),
        (Deadlines(total_s=0.02), STREAM),
        (Deadlines(total_s=0.02), WHOLE),
    ],
)
async def test_a_model_that_is_late_by_its_own_deadlines_is_left_for_the_next(
    deadlines: Deadlines, chat: ChatRequest
) -> None:
    house = House(lambda name: 10.0 if name == "a" else None)
    answered, trace = await house.ask(replace(A, deadlines=deadlines), B, chat=chat)
    assert (answered, outcomes(trace)) == ("b", [("a", "timeout"), ("b", "ok")])


@pytest.mark.parametrize("deadlines", [Deadlines(between_events_s=0.02), Deadlines(total_s=0.02)])
async def test_a_stream_that_falls_silent_is_cut_and_nobody_else_is_asked(deadlines: Deadlines) -> None:
    silences = [0.0, 10.0]
    house = House(lambda _: silences.pop(0))
    answered, trace = await house.ask(replace(A, deadlines=deadlines), B)
    assert (answered, outcomes(trace)) == ("timeout", [("a", "timeout")])


async def test_a_whole_answer_is_silent_for_as_long_as_it_takes() -> None:
    slow = replace(A, deadlines=Deadlines(first_event_s=0.01, between_events_s=0.01, total_s=5.0))
    assert (await House(lambda _: 0.05).ask(slow, chat=WHOLE))[0] == "a"


async def test_what_took_long_to_answer_is_known_afterwards() -> None:
    house = House(lambda _: 0.02)
    await house.ask(A)
    assert 0.01 < (house.board.latency_s("openai/a", stream=True) or 0) < 1
    assert house.board.latency_s("openai/a", stream=False) is None
