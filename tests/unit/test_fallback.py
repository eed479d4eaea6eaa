"""A chain of models: who is tried, in which order, and when no longer."""

from contextlib import aclosing

import pytest

from src.domain.catalog.model import Model
from src.domain.completion.deltas import TextDelta
from src.domain.completion.fallback import ChainCall, Routing, Trace, as_gateway_error
from src.domain.completion.model import (
    ChatRequest,
    Failure,
    Finished,
    Parameters,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
)
from src.domain.routing.candidates import Candidate
from src.shared.errors import InvalidRequest, ProvidersFailed, ProvidersResting, ProvidersTimedOut
from tests.unit.support import (
    DONE,
    FakeUpstreams,
    Gate,
    ScriptedModel,
    Step,
    answers,
    make_catalog,
    make_model,
    make_routing,
    user_says,
)

FAST, SLOW = make_model(), make_model(name="slow")
STREAMED = user_says("how are you", stream=True)
THE_CALLERS = (Failure.CALLER, Failure.UNSUPPORTED, Failure.CONTEXT_WINDOW)
TECHNICAL = [kind for kind in Failure if kind not in (*THE_CALLERS, Failure.DROPPED)]


def failed(kind: Failure, status: int | None = None) -> UpstreamFailed:
    return UpstreamFailed(kind, f"It failed: {kind}.", status=status)


def scripted(**scripts: list[Step]) -> FakeUpstreams:
    return FakeUpstreams(**{name: ScriptedModel(script) for name, script in scripts.items()})


async def run(
    upstreams: FakeUpstreams, trace: Trace, *models: Model, chat: ChatRequest = STREAMED, cap: int | None = None
) -> list[UpstreamEvent]:
    return [event async for event in calling(upstreams, trace, *models, chat=chat, cap=cap).events()]


def calling(
    upstreams: FakeUpstreams,
    trace: Trace,
    *models: Model,
    chat: ChatRequest = STREAMED,
    cap: int | None = None,
    routing: Routing | None = None,
) -> ChainCall:
    provider = make_catalog().providers["openai"]
    found = [Candidate(model=model, provider=provider) for model in models]
    return ChainCall(found, chat, cap, trace, routing or make_routing(upstreams), total_s=5.0)


def tried(trace: Trace) -> list[tuple[str, str]]:
    return [(attempt.model, attempt.outcome) for attempt in trace.attempts]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_first_model_that_answers_answers(stream: bool) -> None:
    trace = Trace()
    events = await run(scripted(fast=answers("fine")), trace, FAST, SLOW, chat=user_says("hello", stream=stream))
    assert events == [TextDelta("fine"), DONE]
    assert (trace.answering, tried(trace)) == (FAST, [("fast", "ok")])


async def test_an_answer_without_words_is_an_answer() -> None:
    trace = Trace()
    assert await run(scripted(fast=[DONE]), trace, FAST, chat=user_says("hello")) == [DONE]
    assert trace.answering is FAST


@pytest.mark.parametrize("kind", [*TECHNICAL, Failure.UNSUPPORTED])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_chain_falls_through_on_technical_failures(kind: Failure, stream: bool) -> None:
    trace = Trace()
    upstreams = scripted(fast=[failed(kind, 503)], slow=answers("fine"))
    assert await run(upstreams, trace, FAST, SLOW, chat=user_says("hello", stream=stream)) == [TextDelta("fine"), DONE]
    assert (trace.answering, tried(trace)) == (SLOW, [("fast", kind.value), ("slow", "ok")])
    assert trace.attempts[0].status == 503


async def test_a_chain_ends_at_the_callers_own_mistake() -> None:
    trace = Trace()
    with pytest.raises(UpstreamFailed):
        await run(scripted(fast=[failed(Failure.CALLER, 400)], slow=answers("fine")), trace, FAST, SLOW)
    assert (trace.answering, tried(trace)) == (None, [("fast", "bad_request")])


@pytest.mark.parametrize("kind", [*TECHNICAL, Failure.DROPPED])
async def test_a_chain_never_falls_through_after_the_first_event(kind: Failure) -> None:
    trace = Trace()
    upstreams = scripted(fast=[TextDelta("fi"), failed(kind)], slow=answers("fine"))
    with pytest.raises(UpstreamFailed):
        await run(upstreams, trace, FAST, SLOW)
    assert (trace.answering, tried(trace)) == (FAST, [("fast", kind.value)])


async def test_the_last_failure_is_raised_when_all_have_failed() -> None:
    trace = Trace()
    upstreams = scripted(fast=[failed(Failure.TIMEOUT)], slow=[failed(Failure.RATE_LIMITED)])
    with pytest.raises(UpstreamFailed) as caught:
        await run(upstreams, trace, FAST, SLOW)
    assert caught.value.kind is Failure.RATE_LIMITED
    assert tried(trace) == [("fast", "timeout"), ("slow", "rate_limited")]


async def test_a_dropped_connection_is_tried_once_more() -> None:
    model = ScriptedModel([failed(Failure.DROPPED)], answers("fine"))
    trace = Trace()
    assert await run(FakeUpstreams(fast=model), trace, FAST) == [TextDelta("fine"), DONE]
    assert tried(trace) == [("fast", "dropped"), ("fast", "ok")]


async def test_a_connection_dropped_twice_falls_through() -> None:
    trace = Trace()
    await run(scripted(fast=[failed(Failure.DROPPED)], slow=answers("fine")), trace, FAST, SLOW)
    assert tried(trace) == [("fast", "dropped"), ("fast", "dropped"), ("slow", "ok")]


async def test_other_failures_are_not_tried_again() -> None:
    model = ScriptedModel([failed(Failure.SERVER)], answers("fine"))
    with pytest.raises(UpstreamFailed):
        await run(FakeUpstreams(fast=model), Trace(), FAST)
    assert len(model.requests) == 1


async def test_a_second_failure_of_another_kind_ends_the_model() -> None:
    model = ScriptedModel([failed(Failure.DROPPED)], [failed(Failure.CALLER)])
    with pytest.raises(UpstreamFailed) as caught:
        await run(FakeUpstreams(fast=model), Trace(), FAST, SLOW)
    assert caught.value.kind is Failure.CALLER


async def test_a_stream_without_an_end_was_dropped() -> None:
    trace = Trace()
    with pytest.raises(UpstreamFailed):
        await run(scripted(fast=[TextDelta("fi")]), trace, FAST)
    assert tried(trace) == [("fast", "dropped")]


async def test_nothing_is_heard_after_the_end() -> None:
    assert await run(scripted(fast=[DONE, TextDelta("more")]), Trace(), FAST) == [DONE]


async def test_a_provider_without_credentials_falls_through() -> None:
    upstreams = FakeUpstreams(fast=failed(Failure.CREDENTIALS), slow=ScriptedModel(answers("fine")))
    trace = Trace()
    await run(upstreams, trace, FAST, SLOW)
    assert tried(trace) == [("fast", "credentials"), ("slow", "ok")]


async def test_an_attempt_is_noted_before_its_last_event_is_heard() -> None:
    trace = Trace()
    events = calling(scripted(fast=answers("fine")), trace, FAST).events()
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Finished):
                break
    assert tried(trace) == [("fast", "ok")]


async def test_an_attempt_that_is_left_is_noted() -> None:
    trace = Trace()
    upstreams = scripted(fast=[TextDelta("fi"), Gate()])
    events = calling(upstreams, trace, FAST).events()
    async with aclosing(events):
        await anext(events)
    assert tried(trace) == [("fast", "cut_off")]
    assert upstreams.models["fast"].left == 1


async def test_an_attempt_that_breaks_the_rules_is_noted() -> None:
    trace = Trace()
    with pytest.raises(ValueError):
        await run(scripted(fast=[ValueError("oops")]), trace, FAST, SLOW)
    assert tried(trace) == [("fast", "cut_off")]


@pytest.mark.parametrize(
    ("wish", "cap", "sent"),
    [(None, None, None), (50, None, 50), (5000, None, 5000), (50, 30, 30), (None, 30, 30), (5000, 5000, 100)],
)
async def test_the_cap_of_the_hold_is_what_the_provider_is_told(
    wish: int | None, cap: int | None, sent: int | None
) -> None:
    model = ScriptedModel(answers("fine"))
    chat = user_says("hello", stream=True, parameters=Parameters(max_output_tokens=wish))
    await run(FakeUpstreams(fast=model), Trace(), FAST, chat=chat, cap=cap)
    assert model.requests == [UpstreamRequest(model=FAST, chat=chat, output_cap=cap)]
    assert model.requests[0].max_output_tokens == sent


@pytest.mark.parametrize(
    ("kind", "told"),
    [(kind, ProvidersFailed) for kind in TECHNICAL if kind not in (Failure.TIMEOUT, Failure.RESTING)]
    + [(Failure.DROPPED, ProvidersFailed), (Failure.TIMEOUT, ProvidersTimedOut), (Failure.RESTING, ProvidersResting)]
    + [(kind, InvalidRequest) for kind in THE_CALLERS],
)
def test_the_caller_is_told_in_our_words(kind: Failure, told: type[Exception]) -> None:
    error = as_gateway_error(failed(kind), 2)
    assert type(error) is told
    assert error.message == f"It failed: {kind}."
    if told is not InvalidRequest:
        assert error.details == {"attempts": 2, "reason": kind.value}
