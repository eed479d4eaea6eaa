"""Streams that end where the quota does, as the stock clients' own helpers read them."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import orjson
import pytest
from openai import LengthFinishReasonError

from tests.sdk.conftest import Scene
from tests.support.gateway import Person
from tests.support.upstream import Answer, Garbage

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPSTREAMS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-5", "google": "gemini-2.5-flash"}
LONG = "word " * 300
CREDIT = 200
TOOL: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]


async def model_in_steps(scene: Scene, provider: str) -> str:
    """The name of a model that holds its output in steps of forty."""
    name = f"{provider}-{uuid4()}"
    body = {"name": name, "provider": provider, "upstream": UPSTREAMS[provider], "context_window": 10_000}
    body |= {"max_output": 400, "output_reserve": 40, "price": {"input": 1, "output": 2}}
    made = await scene.gateway.http.post("/api/v1/admin/models", json=body)
    assert made.status_code in (200, 201), made.text
    return name


async def length_of(helper: Any) -> Any:
    """What the helper has of an answer that reached its length: it raises then, whoever ended it, and has all of it."""
    async with helper as stream:
        async for _ in stream:
            pass
        with pytest.raises(LengthFinishReasonError):
            await stream.get_final_completion()
        return stream.current_completion_snapshot


async def was_charged(scene: Scene, person: Person, credit: int = CREDIT) -> int:
    spent = await scene.settled(person, credit)
    assert 40 < spent <= credit
    entries = (await person.http.get("/api/v1/users/me/tokens/history")).json()["data"]
    assert [(entry["kind"], entry["amount"]) for entry in entries] == [("charge", -spent), ("top_up", credit)]
    return spent


@pytest.mark.parametrize("provider", UPSTREAMS)
async def test_an_openai_stream_ends_with_finish_reason_length(scene: Scene, provider: str) -> None:
    model = await model_in_steps(scene, provider)
    person = await scene.person(credit=CREDIT)
    client = await scene.openai(person)
    scene.upstream.always(Answer(text=LONG, chunk_delay_s=0.0005))
    usage: Any = {"include_usage": True}
    final = await length_of(client.chat.completions.stream(model=model, messages=HELLO, stream_options=usage))
    assert final.choices[0].finish_reason == "length"
    text = final.choices[0].message.content or ""
    assert LONG.startswith(text)
    assert final.usage is not None
    assert await was_charged(scene, person) == min(CREDIT, final.usage.total_tokens)


async def test_every_choice_of_an_openai_stream_ends(scene: Scene) -> None:
    model = await model_in_steps(scene, "openai")
    client = await scene.openai(await scene.person(credit=CREDIT))
    scene.upstream.always(Answer(text=LONG, chunk_delay_s=0.001))
    final = await length_of(client.chat.completions.stream(model=model, messages=HELLO, n=2))
    assert [choice.finish_reason for choice in final.choices] == ["length", "length"]


@pytest.mark.parametrize("provider", UPSTREAMS)
async def test_an_anthropic_stream_ends_with_stop_reason_max_tokens(scene: Scene, provider: str) -> None:
    model = await model_in_steps(scene, provider)
    person = await scene.person(credit=CREDIT)
    client = await scene.anthropic(person)
    scene.upstream.always(Answer(text=LONG, chunk_delay_s=0.0005))
    async with client.messages.stream(model=model, messages=HELLO, max_tokens=400) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert final.stop_reason == "max_tokens"
    assert LONG.startswith(text)
    spent = await was_charged(scene, person)
    assert spent == min(CREDIT, final.usage.input_tokens + final.usage.output_tokens)


def anthropic_events(*blocks: tuple[dict[str, Any], str, list[str]], open_last: bool = True) -> Iterator[bytes]:
    """A stream that stops in the middle of its last block."""
    usage = {"input_tokens": 5, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    yield told("message_start", message={**message, "stop_reason": None, "stop_sequence": None})
    for index, (block, kind, pieces) in enumerate(blocks):
        yield told("content_block_start", index=index, content_block=block)
        field = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}[kind]
        for piece in pieces:
            yield told("content_block_delta", index=index, delta={"type": kind, field: piece})
        if index < len(blocks) - 1 or not open_last:
            yield told("content_block_stop", index=index)


def told(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **fields}) + b"\n\n"


TEXT = ({"type": "text", "text": ""}, "text_delta", ["word "] * 200)
SHORT = ({"type": "text", "text": ""}, "text_delta", ["Let me see."])
THINKING = ({"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", ["word "] * 200)
TOOL_USE = (
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    "input_json_delta",
    ['{"city": "', *["word "] * 200],
)


@pytest.mark.parametrize(
    ("blocks", "kinds", "open_last"),
    [
        ((TEXT,), ["text"], True),
        ((TEXT,), ["text"], False),
        ((THINKING,), ["thinking"], True),
        ((SHORT, TOOL_USE), ["text", "tool_use"], True),
    ],
    ids=["text", "between blocks", "thinking", "tool"],
)
async def test_whatever_block_is_open_a_relayed_stream_ends_whole(
    scene: Scene, blocks: Any, kinds: list[str], open_last: bool
) -> None:
    model = await model_in_steps(scene, "anthropic")
    person = await scene.person(credit=900)
    client = await scene.anthropic(person)
    body = b"".join(anthropic_events(*blocks, open_last=open_last))
    scene.upstream.always(Garbage(body, content_type="text/event-stream", status=200))
    tools: list[Any] = [{"name": "weather", "input_schema": TOOL}]
    async with client.messages.stream(model=model, messages=HELLO, max_tokens=400, tools=tools) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_message()
    assert final.stop_reason == "max_tokens"
    assert [block.type for block in final.content] == kinds
    assert await was_charged(scene, person, credit=900) > 150


async def test_calls_of_tools_in_a_relayed_openai_stream_end_whole(scene: Scene) -> None:
    model = await model_in_steps(scene, "openai")
    person = await scene.person(credit=900)
    client = await scene.openai(person)
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "'}}
    more = {"index": 0, "function": {"arguments": "word "}}
    deltas = [{"role": "assistant", "tool_calls": [call]}, *[{"tool_calls": [more]}] * 200]
    chunks = ({**head, "choices": [{"index": 0, "delta": each, "finish_reason": None}]} for each in deltas)
    body = b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in chunks)
    scene.upstream.always(Garbage(body, content_type="text/event-stream", status=200))
    tools: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": TOOL}}]
    final = await length_of(client.chat.completions.stream(model=model, messages=HELLO, tools=tools))
    assert final.choices[0].finish_reason == "length"
    assert await was_charged(scene, person, credit=900) > 150
