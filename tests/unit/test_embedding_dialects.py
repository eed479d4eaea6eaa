"""Embeddings of OpenAI's and Google's clients, as pure functions: in, and out again."""

import base64
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from src.api.dialects.gemini.embeddings import (
    GeminiEmbeddingsWriter,
    parse_batch_embed_contents,
    parse_embed_content,
)
from src.api.dialects.openai.embeddings import EmbeddingsWriter, parse_embeddings
from src.api.dialects.request import ParsedRequest
from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import Media, MediaKind, Text
from src.domain.completion.model import EmbeddingWish, FinishReason, Outcome, WireBody
from src.domain.ledger.model import CallStatus
from src.shared.clock import utc_now
from src.shared.errors import InvalidRequest
from src.shared.money import MicroDollars
from src.shared.vectors import packed, unpacked

VECTORS = ([0.5, -2.0, 0.0], [1.25, 3.0, -0.125])


def openai(**fields: Any) -> ParsedRequest:
    return parse_embeddings({"model": "m", **fields}, {"openai-beta": "b", "openai-project": "p", "cookie": "c"})


def wish_of(parsed: ParsedRequest) -> EmbeddingWish:
    assert parsed.chat.embedding is not None
    return parsed.chat.embedding


def wire_of(parsed: ParsedRequest) -> WireBody:
    assert parsed.chat.wire is not None
    return parsed.chat.wire


def texts_of(parsed: ParsedRequest) -> list[str]:
    return [message.text for message in parsed.chat.messages]


def outcome(*vectors: list[float]) -> Outcome:
    return Outcome(
        id=uuid4(),
        status=CallStatus.COMPLETED,
        text="",
        finish_reason=FinishReason.STOP,
        usage=Usage(input_tokens=7),
        cost_micro_usd=MicroDollars(1),
        model=None,
        upstream_model=None,
        attempts=(),
        ended_at=utc_now(),
        vectors=tuple(packed(vector) for vector in vectors),
    )


def test_vectors_are_packed_as_float32_in_little_endian() -> None:
    assert packed([1.0, -2.0]) == bytes.fromhex("0000803f000000c0")
    assert unpacked(packed(VECTORS[0])) == tuple(VECTORS[0])


@pytest.mark.parametrize(
    ("value", "texts", "tokens"),
    [
        ("one two", ["one two"], 0),
        (["one", "two"], ["one", "two"], 0),
        ([1, 2, 3], [""], 3),
        ([[1, 2, 3], [4]], ["", ""], 4),
        (["x"] * 2048, ["x"] * 2048, 0),
        ([5] * 8192, [""], 8192),
    ],
)
def test_openai_inputs_are_one_message_each(value: Any, texts: list[str], tokens: int) -> None:
    parsed = openai(input=value)
    assert texts_of(parsed) == texts
    assert wish_of(parsed).tokens == tokens
    assert parsed.chat.prompts == len(texts)
    assert not parsed.chat.stream


def test_openai_body_goes_on_as_it_is() -> None:
    body = {
        "model": "m",
        "input": "x",
        "dimensions": 256,
        "user": "u",
        "input_type": "query",
        "encoding_format": "float",
    }
    parsed = parse_embeddings(body, {"openai-beta": "b", "openai-project": "p", "cookie": "c"})
    wire = wire_of(parsed)
    assert (wire.format, wire.body, wire.headers) == (WireFormat.EMBEDDINGS, body, {"openai-beta": "b"})
    assert wire.untranslatable == ()
    assert wish_of(parsed).dimensions == 256
    assert parsed.untranslated == ("input_type",)


def test_openai_tokens_and_odd_encodings_are_for_servers_that_speak_its_format() -> None:
    assert wire_of(openai(input=[[1]])).untranslatable == ("tokens as input",)
    assert wire_of(openai(input="x", encoding_format="int8")).untranslatable == ("encoding_format",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": {}}, "input"),
        ({"input": 5}, "input"),
        ({"input": True}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": ["x", 5]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"input": [None]}, "input"),
        ({"input": ""}, "input[0]"),
        ({"input": ["x", ""]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [[1], ["x"]]}, "input[1]"),
        ({"input": [[True]]}, "input[0]"),
        ({"input": [-1]}, "input[0]"),
        ({"input": [2**31]}, "input[0]"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "dimensions": "8"}, "dimensions"),
        ({"input": "x", "dimensions": True}, "dimensions"),
        ({"input": "x", "encoding_format": 5}, "encoding_format"),
        ({"input": "x", "model": None}, "model"),
        ({"input": "x", "model": 5}, "model"),
    ],
)
def test_openai_faults_name_their_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        openai(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_openai_vectors_are_numbers_or_base64(encoding: str | None) -> None:
    writer = EmbeddingsWriter(openai(input=["a", "b"], encoding_format=encoding), uuid4())
    body = writer.whole(outcome(*VECTORS), "told")
    assert body["object"] == "list"
    assert body["model"] == "told"
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [(row["object"], row["index"]) for row in body["data"]] == [("embedding", 0), ("embedding", 1)]
    found = [row["embedding"] for row in body["data"]]
    if encoding == "base64":
        found = [unpacked(base64.b64decode(each)) for each in found]
    assert [list(each) for each in found] == list(VECTORS)


def content(*texts: str) -> dict[str, Any]:
    return {"parts": [{"text": text} for text in texts]}


def test_gemini_single_content_is_one_input() -> None:
    body = {"content": content("one", "two"), "taskType": "RETRIEVAL_DOCUMENT", "title": "t", "outputDimensionality": 4}
    parsed = parse_embed_content("m", body)
    assert parsed.model == "m"
    assert texts_of(parsed) == ["one\ntwo"]
    assert parsed.chat.is_plain
    assert wish_of(parsed) == EmbeddingWish(dimensions=4, titles=("t",))
    assert (wire_of(parsed).format, wire_of(parsed).body) == (WireFormat.EMBED_CONTENT, body)
    assert wire_of(parsed).untranslatable == ()
    assert parsed.untranslated == ("taskType", "title")


@pytest.mark.parametrize("name", ["outputDimensionality", "output_dimensionality"])
def test_gemini_batch_is_an_input_for_each_request(name: str) -> None:
    requests = [{"model": "models/m", "content": content(text), name: "3"} for text in ("one", "two")]
    parsed = parse_batch_embed_contents("m", {"requests": requests})
    assert texts_of(parsed) == ["one", "two"]
    assert wish_of(parsed).dimensions == 3
    assert wire_of(parsed).format is WireFormat.BATCH_EMBED_CONTENTS
    assert parsed.untranslated == ()


def test_gemini_settings_may_stand_in_a_config() -> None:
    parsed = parse_embed_content("m", {"content": content("x"), "embedContentConfig": {"outputDimensionality": 5}})
    assert wish_of(parsed).dimensions == 5


def test_gemini_sizes_that_differ_cannot_be_told_to_others() -> None:
    requests = [{"content": content("x"), "outputDimensionality": size} for size in (3, 4)]
    assert wire_of(parse_batch_embed_contents("m", {"requests": requests})).untranslatable == ("outputDimensionality",)


def test_gemini_media_are_for_googles_models() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    parsed = parse_embed_content("m", {"content": {"parts": [{"text": "look"}, picture]}})
    (message,) = parsed.chat.messages
    assert message.text == "look"
    assert message.parts == (Text(text="look"), Media(kind=MediaKind.IMAGE, media_type="image/png", data="AAAA"))
    assert wire_of(parsed).untranslatable == ("image",)


@pytest.mark.parametrize(
    ("parse", "body", "param"),
    [
        (parse_embed_content, {}, "content"),
        (parse_embed_content, {"content": []}, "content"),
        (parse_embed_content, {"content": 5}, "content"),
        (parse_embed_content, {"content": {}}, "content"),
        (parse_embed_content, {"content": {"parts": []}}, "content"),
        (parse_embed_content, {"content": {"parts": [{"text": 5}]}}, "content.parts[0].text"),
        (parse_embed_content, {"content": content("x"), "outputDimensionality": 0}, "outputDimensionality"),
        (parse_embed_content, {"content": content("x"), "title": 5}, "title"),
        (parse_embed_content, {"content": content("x"), "embedContentConfig": 5}, "embedContentConfig"),
        (parse_batch_embed_contents, {}, "requests"),
        (parse_batch_embed_contents, {"requests": []}, "requests"),
        (parse_batch_embed_contents, {"requests": [{"content": content("x")}] * 2049}, "requests"),
        (parse_batch_embed_contents, {"requests": [5]}, "requests[0]"),
        (parse_batch_embed_contents, {"requests": [{"content": content("x")}, {}]}, "requests[1].content"),
    ],
)
def test_gemini_faults_name_their_field(
    parse: Callable[[str, dict[str, Any]], ParsedRequest], body: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse("m", body)
    assert caught.value.param == param


def test_gemini_answers_are_one_vector_or_those_of_a_batch() -> None:
    single = parse_embed_content("m", {"content": content("x")})
    told = GeminiEmbeddingsWriter(single, uuid4()).whole(outcome(VECTORS[0]), "m")
    assert told == {"embedding": {"values": tuple(VECTORS[0])}, "usageMetadata": {"promptTokenCount": 7}}
    batch = parse_batch_embed_contents("m", {"requests": [{"content": content("x")}] * 2})
    body = GeminiEmbeddingsWriter(batch, uuid4()).whole(outcome(*VECTORS), "m")
    assert [list(each["values"]) for each in body["embeddings"]] == list(VECTORS)
