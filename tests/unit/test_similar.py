"""What may differ between questions that get the same answer, and what they get."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from src.domain.catalog.model import CachePolicy, WireFormat
from src.domain.completion.answer import Answer
from src.domain.completion.cache_entry import policy_of
from src.domain.completion.caching import SharedAnswers
from src.domain.completion.model import CacheUse, CacheWish, Call, ChatMessage, ChatRole, Parameters, WireBody
from src.domain.completion.similar import Question, SimilarQuestions, question_of, signs_of
from src.domain.completion.use_cases import begin
from src.integrations.semantic.index import MemoryIndex
from tests.makers import NOW, make_tenant
from tests.unit.support import (
    FakeCache,
    FakeLedger,
    FakeUpstreams,
    ScriptedModel,
    answers,
    completion_ports,
    make_call,
    make_catalog,
    make_model,
    make_principal,
    user_says,
)

POLICY = CachePolicy(ttl_s=60, similarity=0.9)
TENANT = make_tenant()
ME = make_principal(tenant=TENANT)
FAR, NEAR = "what is the weather", "how do you do"
MEANINGS = {"how are you": (1.0, 0.0), NEAR: (0.95, 0.31), "hi there, how is it": (0.8, 0.6), FAR: (0.0, 1.0)}


def asked(*texts: str, policy: CachePolicy = POLICY, **given: Any) -> Question:
    chat = user_says(*texts, **given.pop("chat", {}))
    found = question_of(make_call(*given.pop("models", ()), **{"principal": ME, "chat": chat, **given}), policy)
    assert found is not None
    return found


class TestScope:
    def test_the_last_words_may_differ(self) -> None:
        one, other = asked("before", "how are you"), asked("before", NEAR)
        assert (one.text, other.text, one.similarity) == ("how are you", NEAR, 0.9)
        assert one.scope == other.scope

    @pytest.mark.parametrize(
        "other",
        [
            {"principal": make_principal()},
            {"name": "smart"},
            {"models": [make_model(upstream="another")]},
            {"chat": {"parameters": Parameters(temperature=0.5)}},
            {"policy": replace(POLICY, per_user=True)},
        ],
    )
    def test_nothing_else_may(self, other: dict[str, Any]) -> None:
        assert asked("how are you", **other).scope != asked("how are you").scope

    def test_nor_what_was_said_before(self) -> None:
        assert len({asked(*before, "hi").scope for before in ((), ("a",), ("b",), ("a", "b"))}) == 4

    def test_users_of_a_tenant_share_it_unless_the_policy_keeps_them_apart(self) -> None:
        others = make_principal(tenant=TENANT)
        assert asked("hi", principal=others).scope == asked("hi").scope
        private = replace(POLICY, per_user=True)
        assert asked("hi", principal=others, policy=private).scope != asked("hi", policy=private).scope

    @pytest.mark.parametrize(
        ("text", "other"),
        [
            ("What is 17 times 23?", "What is 17 times 24?"),
            ("From 3 to 5", "From 5 to 3"),
            ("Is it safe?", "Is it not safe?"),
            ("Can I go?", "Can't I go?"),
            ("Can I go?", "Can’t I go?"),  # noqa: RUF001
            ("With sugar", "Without sugar"),
            ("Is a < b?", "Is a > b?"),
            ("What is C++?", "What is C#?"),
            ("I feel \N{GRINNING FACE}", "I feel \N{CRYING FACE}"),
        ],
    )
    def test_numbers_negations_and_symbols_must_be_the_same(self, text: str, other: str) -> None:
        assert asked(text).scope != asked(other).scope

    def test_how_a_negation_is_said_makes_no_difference(self) -> None:
        ways = ("Why can I not log in?", "why can't I log in", "Why cannot I log in...")
        assert [signs_of(each) for each in ways] == [["not"]] * 3
        assert signs_of("Nothing, (no) snow-knot: it's Anna's “note”!") == ["not", "not"]

    def test_an_exact_policy_compares_nothing(self) -> None:
        call = make_call(chat=user_says("hi"))
        assert question_of(call, CachePolicy(ttl_s=60)) is None

    def test_where_the_user_has_not_the_last_word_nothing_is_compared(self) -> None:
        chat = user_says("hi")
        said = (*chat.messages, ChatMessage(role=ChatRole.ASSISTANT, text="My name is"))
        assert question_of(make_call(chat=replace(chat, messages=said)), POLICY) is None


def wire(content: Any, *, role: str = "user", **fields: Any) -> Call:
    """A request in OpenAI's dialect."""
    body = {"model": "fast", "messages": [{"role": "system", "content": "x"}, {"role": role, "content": content}]}
    chat = user_says("?", wire=WireBody(format=WireFormat.CHAT_COMPLETIONS, body={**body, **fields}))
    return make_call(principal=ME, chat=chat)


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


PICTURE, OTHER_PICTURE = ({"type": "image_url", "image_url": {"url": url}} for url in ("data:,a", "data:,b"))


class TestDialects:
    def test_a_string_and_one_part_are_compared(self) -> None:
        found = [question_of(wire(content), POLICY) for content in ("hi", "hello", [text("hi")], [text("hey")])]
        assert [each and each.text for each in found] == ["hi", "hello", "hi", "hey"]
        assert len({each and each.scope for each in found}) == 1

    def test_what_is_shown_with_it_must_be_the_same(self) -> None:
        contents = ([text("hi"), PICTURE], [text("hey"), PICTURE], [text("hi"), OTHER_PICTURE], [PICTURE, text("hi")])
        scopes = [found.scope for content in contents if (found := question_of(wire(content), POLICY))]
        assert scopes[0] == scopes[1]
        assert len(set(scopes)) == 3

    @pytest.mark.parametrize("other", [{"temperature": 1}, {"stream": True}, {"a_field_of_next_year": 1}])
    def test_other_fields_must_be_the_same(self, other: dict[str, Any]) -> None:
        found = [question_of(call, POLICY) for call in (wire("hi"), wire("hi", **other))]
        assert len({each and each.scope for each in found}) == 2

    def test_fields_of_the_part_must_be_the_same(self) -> None:
        found = [question_of(wire([part]), POLICY) for part in (text("hi"), text("hi", cache_control={"type": "x"}))]
        assert len({each and each.scope for each in found}) == 2

    @pytest.mark.parametrize(
        "call",
        [wire([text("a"), text("b")]), wire([PICTURE]), wire("hi", role="assistant"), wire("hi", messages=[])],
        ids=["two texts", "no text", "not the user", "no messages"],
    )
    def test_anything_else_is_not_compared(self, call: Call) -> None:
        assert question_of(call, POLICY) is None

    def test_the_call_itself_stays_as_it_was(self) -> None:
        call = wire([text("hi"), PICTURE])
        before = repr(call)
        question_of(call, POLICY)
        assert repr(call) == before


def test_of_a_chain_all_models_must_wish_it_and_the_strictest_counts() -> None:
    loose, strict = (make_model(cache=replace(POLICY, similarity=least)) for least in (0.9, 0.95))
    plain = make_model(cache=CachePolicy(ttl_s=60))
    found = [policy_of(make_call(*chain), POLICY) for chain in ((loose, strict), (loose, plain), (loose,))]
    assert [each and each.similarity for each in found] == [0.95, None, 0.9]


class FakeEmbedder:
    """Knows a few meanings."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_closed = False

    async def vector(self, text: str) -> Sequence[float] | None:
        self.asked.append(text)
        await asyncio.sleep(0)
        return MEANINGS.get(text)

    def close(self) -> None:
        self.is_closed = True


class Scene:
    """A gateway whose model is asked similar questions."""

    def __init__(self, policy: CachePolicy = POLICY) -> None:
        self.store = FakeCache()
        self.ledger = FakeLedger()
        self.model = ScriptedModel(answers("fi", "ne"))
        self.target = make_model(cache=policy)
        self.index = MemoryIndex()
        self.embedder = FakeEmbedder()
        ports = completion_ports(self.ledger, FakeUpstreams(fast=self.model), make_catalog(), self.store)
        self.cache = SharedAnswers(
            self.store,
            ledger=self.ledger,
            clock=lambda: NOW,
            default=CachePolicy(ttl_s=60),
            patience_s=5,
            admit=ports.keeper.admit,
            similar=SimilarQuestions(self.embedder, self.index),
        )
        self.ports = replace(ports, cache=self.cache)

    async def begin(self, text: str, **given: Any) -> Answer:
        chat = user_says(text, stream=True)
        return await begin(make_call(self.target, **{"principal": ME, "chat": chat, **given}), self.ports)

    async def use(self, text: str, **given: Any) -> CacheUse | None:
        """What the cache had for it, once all is stored."""
        answer = await self.begin(text, **given)
        assert (await answer.outcome()).text == "fine"
        await asyncio.gather(*self.cache._tasks)
        assert not self.cache._under_way
        assert not self.store.turns
        return answer.cache


class TestAnswers:
    async def test_a_similar_question_gets_the_same_answer_and_costs_nothing(self) -> None:
        scene = Scene()
        assert [await scene.use(each) for each in ("how are you", NEAR)] == [CacheUse.MISS, CacheUse.SEMANTIC]
        outcome = await (await scene.begin(NEAR)).outcome()
        assert (outcome.cost_micro_usd, outcome.usage.total_tokens, outcome.model) == (0, 0, scene.target)
        assert (len(scene.model.requests), len(scene.ledger.requests), len(scene.ledger.usage_rows)) == (1, 1, 1)

    async def test_an_equal_one_comes_first(self) -> None:
        scene = Scene()
        assert [await scene.use(each) for each in ("how are you", NEAR, "how are you")][2] is CacheUse.HIT

    async def test_who_only_resembles_a_similar_one_is_asked_for(self) -> None:
        """What was found by likeness is not learnt: likeness of likeness would drift."""
        scene = Scene()
        uses = [await scene.use(each) for each in ("how are you", NEAR, "hi there, how is it", FAR)]
        assert uses == [CacheUse.MISS, CacheUse.SEMANTIC, CacheUse.MISS, CacheUse.MISS]

    async def test_a_request_may_do_without_it_or_have_it_made_anew(self) -> None:
        scene = Scene()
        await scene.use("how are you")
        assert await scene.use(NEAR, cache=CacheWish(on=False)) is None
        assert await scene.use(NEAR, cache=CacheWish(on=True, fresh=True)) is CacheUse.MISS
        assert await scene.use(NEAR) is CacheUse.HIT

    async def test_an_answer_made_anew_is_learnt(self) -> None:
        scene = Scene()
        await scene.use("how are you", cache=CacheWish(on=True, fresh=True))
        assert await scene.use(NEAR) is CacheUse.SEMANTIC

    async def test_what_cannot_be_compared_is_asked_for_and_found_when_equal(self) -> None:
        scene = Scene()
        assert [await scene.use("gibberish") for _ in range(2)] == [CacheUse.MISS, CacheUse.HIT]
        assert len(scene.index) == 0

    async def test_an_exact_policy_learns_nothing(self) -> None:
        scene = Scene(CachePolicy(ttl_s=60))
        assert [await scene.use(each) for each in ("how are you", NEAR)] == [CacheUse.MISS] * 2
        assert len(scene.index) == 0

    async def test_an_answer_that_the_store_has_lost_is_made_again(self) -> None:
        scene = Scene()
        await scene.use("how are you")
        scene.store.kept.clear()
        assert await scene.use(NEAR) is CacheUse.MISS
        assert (len(scene.index), len(scene.store.kept)) == (1, 1)

    async def test_who_waits_for_an_equal_one_is_told_that_it_is_similar(self) -> None:
        scene = Scene()
        await scene.use("how are you")
        given = await asyncio.gather(*(scene.begin(NEAR) for _ in range(3)))
        assert [each.cache for each in given] == [CacheUse.SEMANTIC] * 3
        assert scene.embedder.asked.count(NEAR) == 1

    async def test_it_is_closed_with_the_cache(self) -> None:
        scene = Scene()
        await scene.cache.close()
        assert scene.embedder.is_closed
