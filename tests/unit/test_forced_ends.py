"""Relayed streams that we end ourselves: what follows the upstream's own events makes them whole."""

from typing import Any

import orjson
import pytest

from src.api.dialects.anthropic.reply import AnthropicWriter
from src.api.dialects.anthropic.request import parse_messages
from src.api.dialects.openai.request import parse_chat_completion
from src.api.dialects.openai.stream import DONE, OpenAIWriter
from src.api.dialects.relayed import objects_in, payloads_of
from src.api.sse import event
from src.domain.catalog.model import Usage
from src.domain.completion.model import FinishReason, Outcome
from src.domain.ledger.model import CallStatus
from src.shared.money import MicroDollars
from tests.makers import NOW, nobody

BODY: dict[str, Any] = {"model": "fast", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
CUT = Outcome(
    id=nobody(),
    status=CallStatus.COMPLETED,
    text="one",
    finish_reason=FinishReason.LENGTH,
    usage=Usage(input_tokens=3, output_tokens=9, estimated=True),
    cost_micro_usd=MicroDollars(1),
    model=None,
    upstream_model=None,
    attempts=(),
    ended_at=NOW,
)


def chunk(*choices: Any, **more: Any) -> bytes:
    head = {"id": "up-1", "object": "chat.completion.chunk", "created": 5, "model": "up"}
    return event({**head, "choices": choices, **more})


def choice(index: int, finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": {"content": "x"}, "finish_reason": finish_reason}


def openai_end(relayed: bytes, *, with_usage: bool = False) -> list[Any]:
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    writer = OpenAIWriter(parse_chat_completion({**BODY, "stream": True, **options}, {}), nobody())
    end = writer.cut(CUT, relayed)
    assert end.endswith(DONE)
    return list(payloads_of(end))


def anthropic_end(*relayed: dict[str, Any]) -> list[Any]:
    data = b"".join(event(each, name=each["type"]) for each in relayed)
    return list(payloads_of(AnthropicWriter(parse_messages(BODY, {}), nobody()).cut(CUT, data)))


def block(what: str, index: int) -> dict[str, Any]:
    return {"type": f"content_block_{what}", "index": index}


def test_every_open_choice_ends_in_a_chunk_like_those_before() -> None:
    relayed = chunk(choice(0), choice(1)) + chunk(choice(1, "stop")) + chunk(choice(2))
    ends = openai_end(relayed)
    assert [each["choices"] for each in ends] == [
        [{"index": index, "delta": {}, "finish_reason": "length"}] for index in (0, 2)
    ]
    assert {(each["id"], each["created"], each["model"]) for each in ends} == {("up-1", 5, "up")}


def test_usage_comes_last_where_it_was_asked_for() -> None:
    *_, last = openai_end(chunk(choice(0)), with_usage=True)
    assert (last["choices"], last["usage"]["completion_tokens"], last["id"]) == ([], 9, "up-1")


def test_what_is_no_chunk_is_passed_over() -> None:
    odd = (
        b': comment\n\ndata: {"id"\n\ndata: [1]\n\n' + chunk(None, "x", choice(0)) + b'data: {"choices": {"a": 1}}\n\n'
    )
    assert [each["choices"][0]["index"] for each in openai_end(odd)] == [0]
    assert list(objects_in(None)) == []


@pytest.mark.parametrize(
    ("relayed", "stopped"),
    [
        ([], []),
        ([block("start", 0)], [0]),
        ([block("start", 0), block("stop", 0)], []),
        ([block("start", 0), block("stop", 0), block("start", 1), block("start", 2)], [1, 2]),
    ],
)
def test_open_blocks_end_and_then_the_message(relayed: list[Any], stopped: list[int]) -> None:
    ends = anthropic_end({"type": "message_start", "message": {}}, *relayed)
    assert [each["index"] for each in ends if each["type"] == "content_block_stop"] == stopped
    assert [each["type"] for each in ends[len(stopped) :]] == ["message_delta", "message_stop"]
    assert ends[-2]["delta"]["stop_reason"] == "max_tokens"
    assert ends[-2]["usage"]["output_tokens"] == 9


def test_a_reason_that_was_given_is_not_given_again() -> None:
    told = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
    ends = anthropic_end(block("start", 0), block("stop", 0), told)
    assert [orjson.dumps(each) for each in ends] == [b'{"type":"message_stop"}']
