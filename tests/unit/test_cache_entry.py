"""Which answers are kept, under which key, in which form."""

from dataclasses import replace
from typing import Any

import pytest

from src.domain.catalog.model import CachePolicy, Route, Usage, WireFormat
from src.domain.completion.cache_entry import MAX_ENTRY_BYTES, Entry, cache_key, entry_of, policy_of, unpacked
from src.domain.completion.deltas import TextDelta
from src.domain.completion.model import (
    CacheUse,
    CacheWish,
    Call,
    ChatMessage,
    ChatRequest,
    ChatRole,
    Delivered,
    FinishReason,
    Outcome,
    Parameters,
    WireBody,
    WireChunk,
)
from src.domain.ledger.model import CallStatus
from src.shared.errors import ProvidersFailed
from src.shared.money import MicroDollars
from tests.makers import NOW, make_tenant, make_user, nobody
from tests.unit.support import make_call, make_model, make_principal, user_says

DEFAULT = CachePolicy(ttl_s=60)
POLICY = CachePolicy(ttl_s=5)
ON = CacheWish(on=True)
ME = make_principal()
BODY = {"model": "fast", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}


def wire(**given: Any) -> ChatRequest:
    """What a client sends in OpenAI's dialect, with fields and headers besides."""
    stream, dialect, headers = (
        given.pop("stream", False),
        given.pop("dialect", WireFormat.CHAT_COMPLETIONS),
        given.pop("h", {}),
    )
    return user_says("hi", stream=stream, wire=WireBody(format=dialect, body={**BODY, **given}, headers=headers))


def asking(chat: ChatRequest, **given: Any) -> Call:
    return make_call(*given.pop("models", ()), **{"principal": ME, "chat": chat, "cache": ON, **given})


class TestPolicy:
    def test_it_is_off_where_nobody_wants_it(self) -> None:
        assert policy_of(asking(user_says("hi"), cache=CacheWish()), DEFAULT) is None
        assert policy_of(asking(user_says("hi"), cache=CacheWish(fresh=True)), DEFAULT) is None

    def test_a_request_switches_it_on_with_the_default(self) -> None:
        assert policy_of(asking(user_says("hi")), DEFAULT) == DEFAULT

    def test_a_model_has_its_own(self) -> None:
        models = [make_model(cache=POLICY)]
        assert policy_of(asking(user_says("hi"), models=models, cache=CacheWish()), DEFAULT) == POLICY
        assert policy_of(asking(user_says("hi"), models=models), DEFAULT) == POLICY
        assert policy_of(asking(user_says("hi"), models=models, cache=CacheWish(on=False)), DEFAULT) is None

    def test_of_a_chain_all_models_must_have_one_and_the_strictest_counts(self) -> None:
        kept, private = make_model(cache=POLICY), make_model(name="b", cache=CachePolicy(ttl_s=9, per_user=True))
        chain = asking(user_says("hi"), models=[kept, private], cache=CacheWish())
        assert policy_of(chain, DEFAULT) == CachePolicy(ttl_s=5, per_user=True)
        mixed = asking(user_says("hi"), models=[private, make_model()], cache=CacheWish())
        assert policy_of(mixed, DEFAULT) is None
        assert policy_of(replace(mixed, cache=ON), DEFAULT) == CachePolicy(ttl_s=9, per_user=True)

    @pytest.mark.parametrize(
        "acting",
        [
            {"tools": [{"type": "function"}]},
            {"functions": [{"name": "f"}]},
            {"mcp_servers": [{"url": "x"}]},
            {"web_search_options": {"search_context_size": "low"}},
            {"store": True},
        ],
    )
    def test_requests_that_act_elsewhere_are_not_cached(self, acting: dict[str, Any]) -> None:
        assert policy_of(asking(wire(**acting)), DEFAULT) is None
        assert policy_of(asking(wire(**dict.fromkeys(acting))), DEFAULT) == DEFAULT

    def test_nor_are_several_choices(self) -> None:
        assert policy_of(asking(user_says("hi", parameters=Parameters(choices=2))), DEFAULT) is None


def words(**given: Any) -> str:
    """The key of a request in our own words."""
    chat = user_says(given.pop("text", "hi"), parameters=given.pop("parameters", Parameters()))
    return cache_key(asking(chat, **given), DEFAULT)


def fields(**given: Any) -> str:
    """The key of a request in a dialect."""
    return cache_key(asking(wire(**given)), DEFAULT)


class TestKey:
    def test_it_belongs_to_its_tenant(self) -> None:
        assert words() == words()
        assert words().startswith(f"{ME.tenant_id}:")

    @pytest.mark.parametrize(
        "other",
        [
            {"principal": make_principal()},
            {"text": "hi "},
            {"text": "hé"},
            {"name": "smart"},
            {"models": [make_model(name="another")]},
            {"models": [make_model(upstream="another")]},
            {"models": [make_model(provider="another")]},
            {"models": [make_model(), make_model(name="slow")]},
            *(
                {"parameters": Parameters(**{name: 1})}
                for name in ("max_output_tokens", "temperature", "seed", "top_k")
            ),
            {"parameters": Parameters(stop=("x",))},
            {"parameters": Parameters(choices=2)},
        ],
    )
    def test_any_difference_is_another_key(self, other: dict[str, Any]) -> None:
        assert words(**other) != words()

    def test_roles_and_the_bounds_of_messages_are_part_of_it(self) -> None:
        def key_of(*said: tuple[ChatRole, str]) -> str:
            messages = tuple(ChatMessage(role=role, text=text) for role, text in said)
            return cache_key(asking(ChatRequest(messages=messages)), DEFAULT)

        keys = {
            key_of((ChatRole.USER, "a"), (ChatRole.USER, "b")),
            key_of((ChatRole.SYSTEM, "a"), (ChatRole.USER, "b")),
            key_of((ChatRole.USER, "ab")),
            key_of((ChatRole.USER, 'a"],["user","b')),
        }
        assert len(keys) == 4

    def test_users_of_a_tenant_share_answers_unless_the_policy_keeps_them_apart(self) -> None:
        tenant = make_tenant()
        one, other = (asking(user_says("hi"), principal=make_principal(tenant=tenant)) for _ in range(2))
        assert cache_key(one, DEFAULT) == cache_key(other, DEFAULT)
        private = CachePolicy(ttl_s=60, per_user=True)
        assert len({cache_key(one, private), cache_key(other, private), cache_key(one, DEFAULT)}) == 3

    def test_streams_and_whole_answers_in_our_own_words_are_one(self) -> None:
        whole, stream = (asking(user_says("hi", stream=stream)) for stream in (False, True))
        assert cache_key(whole, DEFAULT) == cache_key(stream, DEFAULT)

    @pytest.mark.parametrize(
        "other",
        [
            {"stream": True},
            {"dialect": WireFormat.MESSAGES},
            {"h": {"anthropic-beta": "x"}},
            {"temperature": 0.6},
            {"a_field_of_next_year": 1},
            {"messages": [{"role": "user", "content": "hi", "name": "x"}]},
        ],
    )
    def test_in_a_dialect_every_field_and_header_is_part_of_it(self, other: dict[str, Any]) -> None:
        assert fields(**other) != fields()
        assert fields() != words()

    @pytest.mark.parametrize("name", ["user", "metadata", "safety_identifier", "prompt_cache_key"])
    def test_who_asks_is_not(self, name: str) -> None:
        assert fields(**{name: "x"}) == fields()

    def test_the_order_of_fields_is_not(self) -> None:
        turned = user_says(
            "hi", wire=WireBody(format=WireFormat.CHAT_COMPLETIONS, body=dict(reversed(BODY.items())), headers={})
        )
        assert cache_key(asking(turned), DEFAULT) == fields()

    def test_a_text_that_is_no_unicode_has_a_key_too(self) -> None:
        assert words(text="\ud800") != words(text="\ud801")


CALL = asking(user_says("hi"), models=[make_model()])
LIMITED = asking(user_says("hi", parameters=Parameters(max_output_tokens=5)))


def ended(**given: Any) -> Outcome:
    base = {"id": nobody(), "status": CallStatus.COMPLETED, "text": "fine", "finish_reason": FinishReason.STOP}
    base |= {"usage": Usage(input_tokens=5, output_tokens=2), "cost_micro_usd": MicroDollars(9), "model": make_model()}
    base |= {"upstream_model": "fast-2026", "attempts": (), "ended_at": NOW, "deltas": (TextDelta("fine"),)}
    return Outcome(**{**base, **given})


def read(_: bytes) -> Delivered:
    return Delivered("")


class TestEntry:
    @pytest.mark.parametrize(
        "bad",
        [
            {"status": CallStatus.CANCELLED},
            {"status": CallStatus.INTERRUPTED, "error": ProvidersFailed("x")},
            {"status": CallStatus.FAILED, "error": ProvidersFailed("x")},
            {"finish_reason": FinishReason.CONTENT_FILTER},
            {"finish_reason": FinishReason.TOOL_CALLS},
            {"finish_reason": FinishReason.ERROR},
            {"finish_reason": FinishReason.LENGTH},
            {"output_cap": 7},
            {"text": "x" * MAX_ENTRY_BYTES},
            {"wire": b"x" * MAX_ENTRY_BYTES},
            {"deltas": [WireChunk(b"x" * 1024, read)] * 1024},
        ],
        ids=lambda bad: "-".join(bad),
    )
    def test_what_is_not_whole_for_everybody_is_not_kept(self, bad: dict[str, Any]) -> None:
        assert entry_of(CALL, ended()) is not None
        assert entry_of(CALL, ended(**bad)) is None

    def test_an_answer_as_long_as_was_asked_for_is_whole_unless_a_quota_made_it_shorter(self) -> None:
        assert entry_of(LIMITED, ended(finish_reason=FinishReason.LENGTH)) is not None
        assert entry_of(LIMITED, ended(finish_reason=FinishReason.LENGTH, output_cap=4)) is None

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"text": "", "deltas": ()},
            {"text": "häl\u0000lo\n\ud800", "deltas": (TextDelta("häl\u0000lo\n\ud800"),)},
            {"upstream_model": None},
        ],
    )
    def test_words_are_given_again_at_no_cost(self, given: dict[str, Any]) -> None:
        entry = entry_of(CALL, outcome := ended(**given))
        assert entry is not None
        found = unpacked(entry.packed())
        assert found == entry
        again = found.outcome(CALL, CacheUse.HIT, NOW)
        same = ("status", "text", "finish_reason", "model", "upstream_model", "wire")
        assert [getattr(again, name) for name in same] == [getattr(outcome, name) for name in same]
        assert (again.usage, again.cost_micro_usd, again.attempts) == (Usage(), 0, ())
        assert (again.cache, again.error, again.output_cap) == (CacheUse.HIT, None, None)
        assert [delta.text for delta in again.deltas] == ([outcome.text] if outcome.text else [])
        assert again.id != outcome.id

    @pytest.mark.parametrize("wire_bytes", [b"data: [DONE]\n\n", b""])
    def test_relayed_bytes_are_given_again_as_they_were(self, wire_bytes: bytes) -> None:
        chunks = (WireChunk(b'data: {"a"}\n\n', read), WireChunk(b"\xff\n\n", read))
        entry = entry_of(CALL, ended(text="", deltas=chunks, wire=wire_bytes))
        assert entry is not None
        again = unpacked(entry.packed()).outcome(CALL, CacheUse.JOINED, NOW)
        assert b"".join(delta.data for delta in again.deltas) == b'data: {"a"}\n\n\xff\n\n'
        assert again.wire == wire_bytes
        assert {delta.read(b"anything") for delta in again.deltas} == {Delivered("")}

    def test_of_a_relayed_body_nothing_else_is_kept(self) -> None:
        entry = entry_of(CALL, ended(wire=b'{"choices":[]}'))
        assert entry == Entry(
            model="fast", upstream_model="fast-2026", finish_reason=FinishReason.STOP, wire=b'{"choices":[]}'
        )

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\xff{",
            b"[1]\n",
            b"{}\n",
            b'{"form":1,"model":"m","upstream_model":null,"finish_reason":"stop","sizes":[1,0]}\nx',
            b'{"form":1,"model":"m","upstream_model":null,"finish_reason":"stop","sizes":[2,0,null]}\nx',
            b'{"form":0,"model":"m","upstream_model":null,"finish_reason":"stop","sizes":[1,0,null]}\nx',
            b'{"form":1,"model":"m","upstream_model":null,"finish_reason":"odd","sizes":[1,0,null]}\nx',
        ],
    )
    def test_bytes_that_are_no_entry_are_none(self, data: bytes) -> None:
        assert unpacked(data) is None

    def test_another_users_answer_is_the_answer_of_the_model_behind_the_name(self) -> None:
        entry = entry_of(CALL, ended())
        assert entry is not None
        chain = Route(name="smart", models=(make_model(name="slow"), make_model(max_output=7)))
        other = replace(CALL, principal=make_principal(user=make_user(ME.tenant)), route=chain)
        assert entry.outcome(other, CacheUse.HIT, NOW).model == make_model(max_output=7)
