"""Calls for vectors: who can make them, what they hold, what a report of them may say, and how they are kept."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from src.domain.catalog.model import CachePolicy, Capabilities, Model, Price, Usage, WireFormat
from src.domain.completion.abilities import beyond, refuse_other_jobs
from src.domain.completion.cache_entry import Entry, cache_key, entry_of, unpacked
from src.domain.completion.estimating import estimate
from src.domain.completion.holding import HoldingPolicy, plan_hold
from src.domain.completion.model import (
    CacheUse,
    Call,
    ChatMessage,
    ChatRequest,
    ChatRole,
    EmbeddingWish,
    Finished,
    FinishReason,
    Outcome,
    WireBody,
)
from src.domain.completion.settlement import USAGE_ABSURD, USAGE_MISSING
from src.domain.completion.similar import question_of
from src.domain.completion.use_cases import begin
from src.domain.ledger.model import CallStatus
from src.integrations.llm.token_meter import SplintrMeter
from src.shared.errors import InvalidRequest, QuotaExceeded
from src.shared.money import Rate
from src.shared.vectors import packed
from tests.makers import NOW
from tests.unit.support import (
    PROMPT_OVERHEAD,
    FakeLedger,
    FakeUpstreams,
    ScriptedModel,
    WordMeter,
    completion_ports,
    make_call,
    make_catalog,
    make_model,
    make_principal,
    user_says,
)

VECTORS = (packed([0.5, 1.0]), packed([2.0, -1.0]))
MAKES_VECTORS = Capabilities(embeddings=True)
POLICY = CachePolicy(ttl_s=5)


def model(**given: Any) -> Model:
    return make_model(**{"capabilities": MAKES_VECTORS, "max_output": 0, "upstream": "text-embedding-3-small", **given})


def wanted(*texts: str, wish: EmbeddingWish | None = None, **body: Any) -> ChatRequest:
    wire = WireBody(format=WireFormat.EMBEDDINGS, body={"model": "fast", "input": list(texts), **body})
    messages = tuple(ChatMessage(role=ChatRole.USER, text=text) for text in texts)
    return ChatRequest(messages=messages, embedding=wish or EmbeddingWish(), wire=wire)


def asked(*models: Model, chat: ChatRequest | None = None, **given: Any) -> Call:
    return make_call(*(models or (model(),)), chat=chat or wanted("how are", "you"), **given)


class TestJobs:
    def test_a_model_does_its_own_job(self) -> None:
        refuse_other_jobs(asked().route, asked().chat)
        refuse_other_jobs(make_call(make_model()).route, user_says("hi"))

    def test_a_chain_does_what_one_of_its_models_does(self) -> None:
        mixed = asked(make_model(name="a"), model(name="b")).route
        refuse_other_jobs(mixed, wanted("x"))
        refuse_other_jobs(mixed, user_says("hi"))

    @pytest.mark.parametrize(
        ("chosen", "chat", "way_out"),
        [(model(), user_says("hi"), "call /v1/embeddings"), (make_model(), wanted("x"), "use a model of embeddings")],
    )
    def test_another_job_is_refused_by_name(self, chosen: Model, chat: ChatRequest, way_out: str) -> None:
        with pytest.raises(InvalidRequest, match=way_out) as caught:
            refuse_other_jobs(make_call(chosen).route, chat)
        assert caught.value.param == "model"
        assert "'fast'" in caught.value.message

    def test_the_other_models_of_a_chain_are_not_asked(self) -> None:
        assert beyond(Capabilities(), wanted("x")) == ("embeddings",)
        assert beyond(MAKES_VECTORS, user_says("hi")) == ("answers",)
        assert beyond(MAKES_VECTORS, wanted("x")) == ()

    @pytest.mark.parametrize(("chosen", "chat"), [(model(), user_says("hi")), (make_model(), wanted("x"))])
    async def test_nothing_is_held_or_called_for_another_job(self, chosen: Model, chat: ChatRequest) -> None:
        call, ledger, upstream = make_call(chosen, chat=chat), FakeLedger(), ScriptedModel([])
        ports = completion_ports(ledger, FakeUpstreams(fast=upstream), make_catalog())
        with pytest.raises(InvalidRequest):
            await begin(call, ports)
        with pytest.raises(InvalidRequest):
            await estimate(call, ports, None)  # type: ignore[arg-type]
        assert not ledger.requests
        assert not upstream.requests


class TestHolds:
    async def test_no_output_is_held_whatever_the_model_says(self) -> None:
        plan = await plan_hold(asked(model(max_output=1)), WordMeter(), lambda: NOW, HoldingPolicy())
        demand = plan.request.demand
        assert (demand.output_tokens, demand.least_output, plan.output_tokens, plan.step) == (0, 0, 0, None)

    @pytest.mark.parametrize(
        ("chat", "tokens"),
        [
            (wanted("one two three"), 3),
            (wanted("one two", "three"), 3),
            (wanted("", "", wish=EmbeddingWish(tokens=9000)), 9000),
            (wanted("one two", wish=EmbeddingWish(titles=("three",))), 3),
        ],
    )
    async def test_openais_inputs_are_counted_exactly(self, chat: ChatRequest, tokens: int) -> None:
        assert await SplintrMeter().prompt_bound(chat, model()) == tokens
        assert await SplintrMeter().prompt_estimate(chat, model()) == tokens

    async def test_other_models_may_frame_each_input(self) -> None:
        other = model(upstream="BAAI/bge-m3")
        one, three = [await SplintrMeter().prompt_bound(wanted(*["x"] * count), other) for count in (1, 3)]
        assert three == 3 * one > 3
        assert await SplintrMeter().prompt_estimate(wanted("x"), other) <= one

    async def test_nothing_of_the_body_but_its_inputs_counts(self) -> None:
        chat = wanted("one two", user="somebody", metadata={"a": "long story " * 100})
        assert await SplintrMeter().prompt_bound(chat, model()) == 2

    async def test_text_is_bounded_by_its_own_vocabulary(self) -> None:
        text = "Vektorräume sind schön, 日本語も。 1234567890" * 20
        assert SplintrMeter().count(text, model()) == SplintrMeter().count(text, make_model(upstream="gpt-4"))


class Scene:
    """One call of somebody with credit, whose model finishes as it is told."""

    def __init__(self, finished: Finished, *, credit: int = 1000, call: Call | None = None) -> None:
        self.call = call or asked(model(prices=(Price(input=Rate(1_000_000), output=Rate(0)),), context_window=10))
        self.ledger = FakeLedger()
        self.ledger.top_up(self.call.principal, credit)
        self.upstream = ScriptedModel([finished])
        self.ports = completion_ports(self.ledger, FakeUpstreams(fast=self.upstream), make_catalog())

    async def outcome(self) -> Outcome:
        answering = await begin(self.call, self.ports)
        async with asyncio.timeout(5):
            return await answering.outcome()


def finished(tokens: int | None, **given: Any) -> Finished:
    usage = None if tokens is None else Usage(input_tokens=tokens)
    return Finished(reason=FinishReason.STOP, usage=usage, vectors=VECTORS, **given)


class TestSettlement:
    async def test_what_the_provider_says_is_charged_and_the_vectors_are_there(self) -> None:
        scene = Scene(finished(3))
        outcome = await scene.outcome()
        assert (outcome.status, outcome.usage, outcome.vectors) == (
            CallStatus.COMPLETED,
            Usage(input_tokens=3),
            VECTORS,
        )
        assert outcome.cost_micro_usd == 3
        (row,) = scene.ledger.usage_rows
        assert (row.usage.total_tokens, row.flags) == (3, ())

    async def test_a_call_is_refused_that_its_credit_cannot_pay(self) -> None:
        with pytest.raises(QuotaExceeded):
            await Scene(finished(3), credit=2 + PROMPT_OVERHEAD).outcome()
        assert (await Scene(finished(3), credit=3 + PROMPT_OVERHEAD).outcome()).status is CallStatus.COMPLETED

    @pytest.mark.parametrize(
        ("tokens", "charged", "flags"), [(20, 20, ()), (21, 3, (USAGE_ABSURD,)), (None, 3, (USAGE_MISSING,))]
    )
    async def test_each_input_has_the_window_to_itself(self, tokens: int, charged: int, flags: tuple[str, ...]) -> None:
        outcome = await Scene(finished(tokens)).outcome()
        assert outcome.usage.input_tokens == charged
        assert outcome.flags == flags

    async def test_of_a_chain_the_models_that_make_vectors_are_called(self) -> None:
        call = make_call(make_model(name="fast"), model(name="vectors"), chat=wanted("how are", "you"))
        scene = Scene(finished(3), call=call)
        made = ScriptedModel([finished(3)])
        ports = completion_ports(scene.ledger, FakeUpstreams(fast=scene.upstream, vectors=made), make_catalog())
        outcome = await (await begin(call, ports)).outcome()
        assert outcome.model is not None
        assert outcome.model.name == "vectors"
        assert not scene.upstream.requests


class TestKeeping:
    def entry(self, **given: Any) -> Entry:
        return Entry(model="fast", upstream_model="told", finish_reason=FinishReason.STOP, vectors=VECTORS, **given)

    def test_vectors_are_kept_and_given_again(self) -> None:
        found = unpacked(self.entry().packed())
        assert found == self.entry()
        outcome = self.entry().outcome(asked(), CacheUse.HIT, NOW)
        assert (outcome.vectors, outcome.usage) == (VECTORS, Usage())

    @pytest.mark.parametrize("cut", [0, 1, 5])
    def test_half_an_entry_is_none(self, cut: int) -> None:
        packed_entry = self.entry(wire=b"{}").packed()
        assert unpacked(packed_entry[: len(packed_entry) - cut]) == (None if cut else self.entry(wire=b"{}"))

    async def test_what_is_kept_of_a_call_has_its_vectors(self) -> None:
        scene = Scene(finished(3))
        outcome = replace(await scene.outcome(), output_cap=None)
        kept = entry_of(scene.call, outcome)
        assert kept is not None
        assert kept.vectors == VECTORS

    def test_other_sizes_are_other_keys(self) -> None:
        principal = make_principal()
        keys = {
            cache_key(asked(chat=wanted("x", **body), principal=principal), POLICY)
            for body in ({}, {"dimensions": 2}, {"user": "u"}, {"input": "y"})
        }
        assert len(keys) == 3

    def test_no_text_is_similar_to_another(self) -> None:
        policy = CachePolicy(ttl_s=5, similarity=0.9)
        assert question_of(asked(chat=wanted("x", messages=[{"role": "user", "content": "x"}])), policy) is None
