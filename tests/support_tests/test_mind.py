"""`Mind` answers by what is asked, and every dialect's stock SDK hears the same."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio
from google import genai

from tests.support.upstream import Answer, Mind, Upstream
from tests.support.upstream_mind import fit
from tests.support_tests.asking import PDF, PNG, Question, Said, ask_anthropic, ask_chat, ask_google, ask_responses

DIALECTS = ("chat", "responses", "anthropic", "google")
WITHOUT_STOPS = ("responses",)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "size": {"type": "number"},
        "count": {"type": "integer"},
        "good": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "inner": {"type": "object", "properties": {"kind": {"enum": ["b", "a"]}}},
    },
}
FITTING = {"name": "x", "size": 1, "count": 1, "good": True, "tags": [], "inner": {"kind": "b"}}

Ask = Callable[[Question], Awaitable[Said]]


@pytest_asyncio.fixture(params=DIALECTS)
async def ask(
    request: pytest.FixtureRequest,
    upstream: Upstream,
    openai_client: openai.AsyncOpenAI,
    anthropic_client: anthropic.AsyncAnthropic,
    google_client: genai.Client,
) -> Ask:
    upstream.always(Mind(answer=Answer(shows_reasoning=True)))
    asks: dict[str, Ask] = {
        "chat": lambda question: ask_chat(openai_client, question),
        "responses": lambda question: ask_responses(openai_client, question),
        "anthropic": lambda question: ask_anthropic(anthropic_client, question),
        "google": lambda question: ask_google(google_client, question),
    }
    return asks[str(request.param)]


def said(text: str = "", *, output: int, calls: Any = (), **fields: Any) -> Said:
    usage = (fields.pop("input", 0), output, fields.pop("cached", 0), fields.pop("reasoning", 0))
    ended = fields.pop("ended", "calls" if calls else "end")
    return Said(text=text, calls=calls, thinking=fields.pop("thinking", ""), ended=ended, usage=usage)


TWELVE = "word " * 11 + "word"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (Question(text="hello there"), said("echo: hello there", input=2, output=3)),
        (
            Question(text="hello there", thinks=True),
            said("echo: hello there", thinking="thinking about hello there", input=2, output=7, reasoning=4),
        ),
        (
            Question(text="four cached words here"),
            said("echo: four cached words here", input=4, output=5, cached=2),
        ),
        (
            Question(text="call it", tools=True),
            said(calls=(("first", {"q": "call it"}),), input=2, output=3),
        ),
        (
            Question(text="call twice", tools=True),
            said(calls=(("first", {"q": "call twice"}),) * 2, input=2, output=6),
        ),
        (
            Question(text="call it", tools=True, thinks=True),
            said(
                calls=(("first", {"q": "call it"}),), thinking="thinking about call it", input=2, output=7, reasoning=4
            ),
        ),
        (Question(text="hello", tools=True), said("echo: hello", input=1, output=2)),
        (Question(text="call it", tools=True, choice="none"), said("echo: call it", input=2, output=3)),
        (
            Question(text="hello", tools=True, choice="required"),
            said(calls=(("first", {"q": "hello"}),), input=1, output=2),
        ),
        (
            Question(text="hello", tools=True, choice="second"),
            said(calls=(("second", {"q": "hello"}),), input=1, output=2),
        ),
        (
            Question(text="call it", tools=True, results=("sunny day",)),
            said("result: sunny day", input=4, output=3),
        ),
        (
            Question(text="call it", tools=True, choice="required", results=("sunny", "rainy")),
            said("result: sunny rainy", input=4, output=3),
        ),
        (Question(text="look", png=True), said(f"image: image/png {len(PNG)} bytes", input=1, output=4)),
        (Question(text="read", pdf=True), said(f"document: application/pdf {len(PDF)} bytes", input=1, output=4)),
        (
            Question(text="word " * 19 + "word", cap=16),
            said("echo: " + "word " * 15, input=20, output=16, ended="cap"),
        ),
        (
            Question(text=TWELVE, cap=16, thinks=True),
            said("echo: word ", thinking=f"thinking about {TWELVE}", input=12, output=16, reasoning=14, ended="cap"),
        ),
    ],
    ids=lambda value: repr(value)[:70] if isinstance(value, Question) else "",
)
async def test_every_dialect_hears_the_same(ask: Ask, question: Question, expected: Said) -> None:
    assert await ask(question) == expected


async def test_parallel_calls_can_be_switched_off(ask: Ask, request: pytest.FixtureRequest) -> None:
    answer = await ask(Question(text="call twice", tools=True, parallel=False))
    assert len(answer.calls) == (2 if "google" in request.node.name else 1)


async def test_json_fits_the_schema_that_was_asked_for(ask: Ask) -> None:
    answer = await ask(Question(text="hello", schema=SCHEMA))
    assert json.loads(answer.text) == FITTING


async def test_the_text_ends_before_the_first_stop_sequence(ask: Ask, request: pytest.FixtureRequest) -> None:
    answer = await ask(Question(text="one STOP two", stop="STOP"))
    has_none = any(name in request.node.name for name in WITHOUT_STOPS)
    assert answer.text == ("echo: one STOP two" if has_none else "echo: one ")
    assert answer.ended == "end"


async def test_anthropic_names_the_stop_sequence(
    upstream: Upstream, anthropic_client: anthropic.AsyncAnthropic
) -> None:
    upstream.always(Mind())
    options: Any = {"model": "c", "max_tokens": 50, "stop_sequences": ["no", "STOP"]}
    reply = await anthropic_client.messages.create(messages=[{"role": "user", "content": "a STOP b"}], **options)
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "STOP")


def test_what_fits_a_schema_follows_references_and_choices() -> None:
    schema = {
        "$defs": {"point": {"type": "OBJECT", "properties": {"x": {"type": "INTEGER"}}}},
        "type": "object",
        "properties": {
            "at": {"$ref": "#/$defs/point"},
            "either": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "fixed": {"const": 7},
            "maybe": {"type": ["boolean", "null"]},
        },
    }
    assert fit(schema) == {"at": {"x": 1}, "either": None, "fixed": 7, "maybe": True}
