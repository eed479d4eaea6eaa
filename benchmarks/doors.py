"""What the doors cost in this process's CPU: reading a body of each dialect, and writing a translated answer in it.

    python -m benchmarks.doors [--seconds 10]

A small body is one question; a large one is what a coding agent sends: a long system prompt, 24 tools, 40 turns with
calls and results. An answer is 68 pieces of text and a call. Reading and the bound of the prompt are for every request,
relayed ones too; writing only where the model speaks another dialect. The cases take turns in short rounds, so that
whatever else the machine does falls on all of them alike.
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from src.api.dialects.anthropic.reply import AnthropicWriter
from src.api.dialects.anthropic.request import parse_messages
from src.api.dialects.gemini.reply import GeminiWriter
from src.api.dialects.gemini.request import parse_generate_content
from src.api.dialects.openai.request import parse_chat_completion
from src.api.dialects.openai.stream import OpenAIWriter
from src.api.dialects.request import ParsedRequest
from src.api.dialects.responses.request import chat_of, parse_response
from src.api.dialects.responses.stream import ResponsesWriter
from src.domain.catalog.model import Model, Usage, WireFormat
from src.domain.completion.deltas import PartDelta, TextDelta, ToolCallDelta
from src.domain.completion.model import ChatRequest, FinishReason, Outcome, WireBody
from src.domain.ledger.model import CallStatus
from src.integrations.llm.token_meter import SplintrMeter
from src.shared.clock import utc_now
from src.shared.ids import new_id
from src.shared.money import MicroDollars

METER = SplintrMeter()
LOOP = asyncio.new_event_loop()
ROUND_S = 0.05
TURNS = 20
TOOLS = 24
PIECES: Sequence[PartDelta] = (
    *(TextDelta("word ") for _ in range(68)),
    ToolCallDelta(0, "call_1", "look"),
    ToolCallDelta(0, arguments='{"q":'),
    ToolCallDelta(0, arguments='"x"}'),
)
SYSTEM = "You are a careful assistant. " * 900
SAID = "Have a look at this file, please. " * 10
RESULT = "line of a file\n" * 60
SCHEMA = {"type": "object", "properties": {name: {"type": "string", "description": "A text."} for name in "abcdef"}}
NAMES = [f"tool_{number}" for number in range(TOOLS)]


def chat_body() -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": "tool_1", "arguments": '{"a":"x"}'}}
    turn = [
        {"role": "user", "content": SAID},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": RESULT},
        {"role": "assistant", "content": SAID},
    ]
    tools = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES]
    messages = [{"role": "system", "content": SYSTEM}, *turn * TURNS, {"role": "user", "content": SAID}]
    return {"model": "m", "messages": messages, "tools": tools}


def responses_body() -> dict[str, Any]:
    turn = [
        {"role": "user", "content": [{"type": "input_text", "text": SAID}]},
        {"type": "function_call", "call_id": "call_1", "name": "tool_1", "arguments": '{"a":"x"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": RESULT},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": SAID}]},
    ]
    tools = [{"type": "function", "name": name, "parameters": SCHEMA} for name in NAMES]
    return {"model": "m", "instructions": SYSTEM, "input": turn * TURNS, "tools": tools, "store": False}


def messages_body() -> dict[str, Any]:
    turn = [
        {"role": "user", "content": [{"type": "text", "text": SAID}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "tool_1", "input": {"a": "x"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": RESULT}]},
        {"role": "assistant", "content": [{"type": "text", "text": SAID}]},
    ]
    tools = [{"name": name, "input_schema": SCHEMA} for name in NAMES]
    system = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    return {"model": "m", "max_tokens": 1000, "system": system, "messages": turn * TURNS, "tools": tools}


def gemini_body() -> dict[str, Any]:
    turn = [
        {"role": "user", "parts": [{"text": SAID}]},
        {"role": "model", "parts": [{"functionCall": {"name": "tool_1", "args": {"a": "x"}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "tool_1", "response": {"result": RESULT}}}]},
        {"role": "model", "parts": [{"text": SAID}]},
    ]
    tools = [{"functionDeclarations": [{"name": name, "parametersJsonSchema": SCHEMA} for name in NAMES]}]
    return {"contents": turn * TURNS, "tools": tools, "systemInstruction": {"parts": [{"text": SYSTEM}]}}


def responses_parsed(body: dict[str, Any]) -> ParsedRequest:
    return chat_of(parse_response(body, {}), (), "resp_x")


def gemini_parsed(body: dict[str, Any]) -> ParsedRequest:
    return parse_generate_content("m", body, {})


def outcome() -> Outcome:
    return Outcome(
        id=new_id(),
        status=CallStatus.COMPLETED,
        text="",
        finish_reason=FinishReason.TOOL_CALLS,
        usage=Usage(input_tokens=10, output_tokens=80),
        cost_micro_usd=MicroDollars(0),
        model=None,
        upstream_model=None,
        attempts=(),
        ended_at=utc_now(),
        deltas=PIECES,
    )


def stream(make: Callable[[], Any]) -> Callable[[], None]:
    """Write a whole stream."""
    end = outcome()

    def once() -> None:
        writer = make()
        writer.first("m", 10)
        for piece in PIECES:
            writer.delta(piece)
        writer.last(end)

    return once


def bound(body: dict[str, Any], upstream: str) -> Callable[[], object]:
    """Find the bound of a prompt for a model."""
    model = Model(name="m", provider="p", upstream=upstream, context_window=128_000, max_output=16_000)
    chat = ChatRequest(messages=(), wire=WireBody(format=WireFormat.CHAT_COMPLETIONS, body=body))
    return lambda: LOOP.run_until_complete(METER.prompt_bound(chat, model))


def cases() -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    parsed = ParsedRequest(model="m", chat=ChatRequest(messages=(), stream=True))
    echo = parse_response({"model": "m", "input": "hello"}, {}).echo
    small: dict[str, tuple[Callable[[Any], object], dict[str, Any], dict[str, Any]]] = {
        "chat completions": (
            lambda body: parse_chat_completion(body, {}),
            {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
            chat_body(),
        ),
        "responses": (responses_parsed, {"model": "m", "input": "hello", "store": False}, responses_body()),
        "messages": (
            lambda body: parse_messages(body, {}),
            {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]},
            messages_body(),
        ),
        "generateContent": (gemini_parsed, {"contents": [{"parts": [{"text": "hello"}]}]}, gemini_body()),
    }
    writers: dict[str, Callable[[], Any]] = {
        "chat completions": lambda: OpenAIWriter(parsed, new_id()),
        "responses": lambda: ResponsesWriter(parsed, new_id(), echo=echo, response_id="r", created_at=utc_now()),
        "messages": lambda: AnthropicWriter(parsed, new_id()),
        "generateContent": lambda: GeminiWriter(parsed, new_id()),
    }
    found: dict[str, Callable[[], object]] = {}
    for name, (parse, little, large) in small.items():
        data = orjson.dumps(large)
        found[f"{name}: read a small body"] = lambda parse=parse, body=little: parse(body)  # type: ignore[misc]
        found[f"{name}: read {len(data) // 1000} kB"] = lambda parse=parse, body=large: parse(body)  # type: ignore[misc]
        found[f"{name}: (only its JSON)"] = lambda data=data: orjson.loads(data)  # type: ignore[misc]
        for upstream in ("gpt-4o", "claude-opus-4-8"):
            found[f"{name}: bound, {upstream}"] = bound(large, upstream)
        found[f"{name}: write a stream"] = stream(writers[name])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    seconds = parser.parse_args().seconds
    costs_us: dict[str, list[float]] = {}
    until_s = time.monotonic() + seconds
    for name, once in itertools.cycle(cases().items()):
        if time.monotonic() > until_s:
            break
        calls, began_s, end_s = 0, time.process_time(), time.monotonic() + ROUND_S
        while time.monotonic() < end_s:
            once()
            calls += 1
        costs_us.setdefault(name, []).append((time.process_time() - began_s) * 1e6 / calls)
    for name, costs in costs_us.items():
        print(f"{name:40} {statistics.median(costs):8.1f} us")


if __name__ == "__main__":
    main()
