"""Answers as Google's clients read them: whole, in chunks, and as an array that grows."""

import asyncio
import json
from typing import Any

import pytest
from google.genai.types import FinishReason as GooglesReason
from google.genai.types import GenerateContentResponse
from starlette.responses import Response
from starlette.types import Message

from src.api.dialects.gemini.array import ArrayOfEvents
from src.api.dialects.gemini.reply import GeminiWriter
from src.api.dialects.gemini.request import parse_generate_content
from src.api.dialects.gemini.signatures import STAND_IN, call_signature, thought_from
from src.api.json import dumps
from src.api.sse import BLANK, event
from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import Opaque, Thinking
from src.domain.completion.deltas import (
    OpaqueDelta,
    PartDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from src.domain.completion.model import FinishReason, Outcome
from src.domain.ledger.model import CallStatus
from src.shared.money import MicroDollars
from tests.makers import NOW, nobody

ANSWER = nobody()
HELLO = [{"parts": [{"text": "hello"}]}]
USAGE = Usage(input_tokens=5, output_tokens=3, cache_read_tokens=3, reasoning_tokens=1)
CODE = {"executableCode": {"language": "PYTHON", "code": "1"}}
PIECES: tuple[PartDelta, ...] = (
    ThinkingDelta("I ", origin=WireFormat.MESSAGES),
    ThinkingDelta("see", "sig", origin=WireFormat.MESSAGES),
    TextDelta("Good "),
    TextDelta("day"),
    RefusalDelta("."),
    ToolCallDelta(0, "c1", "f", '{"a"', signature="c2ln"),
    ToolCallDelta(0, arguments=":1}"),
    ToolCallDelta(1, "c2", "g"),
    OpaqueDelta(Opaque(format=WireFormat.GENERATE_CONTENT, body=CODE)),
    OpaqueDelta(Opaque(format=WireFormat.MESSAGES, body={"type": "other"})),
    ToolCallDelta(2, "c3", "free", "ls", is_custom=True),
)


def writer() -> GeminiWriter:
    return GeminiWriter(parse_generate_content("fast", {"contents": HELLO}, {}), ANSWER)


def outcome_of(*deltas: PartDelta, **given: Any) -> Outcome:
    base: dict[str, Any] = {
        "status": CallStatus.COMPLETED,
        "text": "fine",
        "finish_reason": FinishReason.STOP,
        "model": None,
    }
    base |= {"usage": USAGE, "cost_micro_usd": MicroDollars(9), "deltas": deltas}
    return Outcome(**{"id": ANSWER, **base, "upstream_model": None, "attempts": (), "ended_at": NOW, **given})


def read(body: Any) -> GenerateContentResponse:
    return GenerateContentResponse.model_validate_json(dumps(body))


def chunks_in(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(each.removeprefix("data: ")) for each in data.decode().split("\n\n") if each]


def parts_in(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]


def streamed(*deltas: PartDelta, **given: Any) -> list[dict[str, Any]]:
    written = writer()
    data = written.first("fast-2026", 7) + b"".join(written.delta(delta) for delta in deltas)
    return chunks_in(data + written.last(outcome_of(*deltas, **given)))


@pytest.mark.parametrize("reason", FinishReason)
def test_a_response_is_what_the_sdk_expects(reason: FinishReason) -> None:
    response = read(writer().whole(outcome_of(TextDelta("fine"), finish_reason=reason), "fast-2026"))
    assert (response.text, response.model_version, response.response_id) == ("fine", "fast-2026", ANSWER.hex)
    assert response.candidates
    assert response.candidates[0].finish_reason in set(GooglesReason)
    usage = response.usage_metadata
    assert usage
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count) == (5, 2, 1)
    assert (usage.total_token_count, usage.cached_content_token_count) == (8, 3)


def test_every_kind_of_piece_has_its_part() -> None:
    whole = parts_in([dict(writer().whole(outcome_of(*PIECES), "fast-2026"))])
    thought, *said = whole
    assert thought_from(thought["text"], thought["thoughtSignature"]) == Thinking(
        text="I see", signature="sig", origin=WireFormat.MESSAGES
    )
    assert said == [
        {"text": "Good day"},
        {"text": "."},
        {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"id": "c2", "name": "g", "args": {}}},
        CODE,
        {"functionCall": {"id": "c3", "name": "free", "args": {"input": "ls"}}},
    ]


def test_a_stream_tells_the_same_and_every_call_whole() -> None:
    chunks = streamed(*PIECES)
    for chunk in chunks:
        read(chunk)
    first, second, *said = parts_in(chunks)
    assert thought_from(first["text"], first["thoughtSignature"]) == Thinking(text="I ", origin=WireFormat.MESSAGES)
    assert thought_from(second["text"], second["thoughtSignature"]).signature == "sig"
    assert [next(iter(part)) for part in said] == ["text"] * 3 + ["functionCall"] * 2 + [
        "executableCode",
        "functionCall",
    ]
    assert [chunk["candidates"][0].get("finishReason") for chunk in chunks] == [None] * (len(chunks) - 1) + ["STOP"]
    assert "usageMetadata" in chunks[-1]
    assert {chunk["responseId"] for chunk in chunks} == {ANSWER.hex}


@pytest.mark.parametrize(
    ("said", "told"), [('"red"', "red"), ('"r\\u00e9"', "ré"), ("red", "red"), ("5", "5"), ('"re', '"re')]
)
def test_one_of_some_words_has_no_quotes(said: str, told: str) -> None:
    config = {"response_mime_type": "text/x.enum", "response_schema": {"type": "STRING", "enum": ["red"]}}
    body = {"contents": HELLO, "generation_config": config}
    parsed = parse_generate_content("fast", body, {})
    pieces = [TextDelta(each) for each in said]
    outcome = outcome_of(*pieces, text=said)
    for whole in (outcome, outcome_of(text=said)):
        assert parts_in([GeminiWriter(parsed, ANSWER).whole(whole, "fast-2026")]) == [{"text": told}]
    written = GeminiWriter(parsed, ANSWER)
    chunks = chunks_in(b"".join(map(written.delta, pieces)) + written.last(outcome))
    assert parts_in(chunks) == [{"text": told}]


def test_the_first_call_is_signed_whoever_made_it() -> None:
    calls = [ToolCallDelta(index, f"c{index}", "f", "{}") for index in range(2)]
    for parts in (parts_in([dict(writer().whole(outcome_of(*calls), "m"))]), parts_in(streamed(*calls))):
        assert [part.get("thoughtSignature") for part in parts] == [STAND_IN, None]


@pytest.mark.parametrize("written", [STAND_IN, STAND_IN.rstrip("="), "skip_thought_signature_validator", "", None])
def test_what_stands_in_for_a_signature_is_none(written: str | None) -> None:
    assert call_signature(written) is None
    assert call_signature("c2ln") == "c2ln"


def test_googles_own_thoughts_keep_their_signatures() -> None:
    (part, *_) = parts_in(streamed(ThinkingDelta("hm", "c2ln", origin=WireFormat.GENERATE_CONTENT)))
    assert part == {"text": "hm", "thought": True, "thoughtSignature": "c2ln"}


def test_thoughts_that_only_their_model_can_read_come_back_as_such() -> None:
    (part, *_) = parts_in(streamed(ThinkingDelta("", "data", redacted=True, origin=WireFormat.MESSAGES)))
    thought = thought_from(part["text"], part["thoughtSignature"])
    assert thought == Thinking(signature="data", redacted=True, origin=WireFormat.MESSAGES)


@pytest.mark.parametrize(
    ("reason", "told"),
    [(FinishReason.TOOL_CALLS, "MALFORMED_FUNCTION_CALL"), (FinishReason.LENGTH, "MAX_TOKENS")],
)
def test_a_call_that_was_cut_is_not_told(reason: FinishReason, told: str) -> None:
    cut = ToolCallDelta(0, "c1", "f", '{"a": [')
    for chunks in (
        streamed(cut, finish_reason=reason),
        [dict(writer().whole(outcome_of(cut, finish_reason=reason), "m"))],
    ):
        assert not any("functionCall" in part for part in parts_in(chunks))
        assert chunks[-1]["candidates"][0]["finishReason"] == told


def test_a_relayed_stream_that_is_cut_ends_every_candidate_that_has_not() -> None:
    relayed = b"".join(
        event({"candidates": [{"index": index, **more}], "modelVersion": "m", "responseId": "r"})
        for index, more in ((0, {"finishReason": "STOP"}), (1, {}), (2, {}))
    )
    (chunk,) = chunks_in(writer().cut(outcome_of(finish_reason=FinishReason.LENGTH), relayed))
    ends = [(each["index"], each["finishReason"]) for each in chunk["candidates"]]
    assert ends == [(1, "MAX_TOKENS"), (2, "MAX_TOKENS")]
    assert (chunk["modelVersion"], chunk["responseId"]) == ("m", "r")
    assert read(chunk).usage_metadata


class TestArray:
    """What is sent of a stream to who did not ask for events."""

    @staticmethod
    async def sent(*pieces: bytes, media_type: str = "text/event-stream") -> tuple[dict[str, str], list[bytes]]:
        class Inner(Response):
            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                headers = [(b"content-type", media_type.encode()), (b"content-length", b"9")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                for piece in pieces[:-1]:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": pieces[-1]})

        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

        await ArrayOfEvents(Inner())({}, None, send)  # type: ignore[arg-type]
        start, *bodies = messages
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return headers, [body["body"] for body in bodies]

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_events_are_elements_however_they_are_cut(self, size: int) -> None:
        data = (
            event({"a": "data: x"}) + BLANK + b': comment\r\n\r\ndata: {"b": 2}\r\n\r\n' + event({"error": {}}).strip()
        )
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        headers, bodies = asyncio.run(self.sent(*pieces))
        assert json.loads(b"".join(bodies)) == [{"a": "data: x"}, {"b": 2}, {"error": {}}]
        assert headers == {"content-type": "application/json; charset=UTF-8"}

    def test_an_event_is_sent_before_the_next_one_comes_and_blanks_keep_alive(self) -> None:
        _, bodies = asyncio.run(self.sent(event({"a": 1}), BLANK, event({"b": 2}), b""))
        assert bodies == [b'[{"a":1}', b"\n", b',\r\n{"b":2}', b"]"]

    def test_no_event_is_an_empty_array(self) -> None:
        assert json.loads(b"".join(asyncio.run(self.sent(b""))[1])) == []

    def test_what_is_no_stream_goes_as_it_is(self) -> None:
        headers, bodies = asyncio.run(self.sent(b'{"error":1}', media_type="application/json"))
        assert (headers["content-length"], bodies) == ("9", [b'{"error":1}'])
