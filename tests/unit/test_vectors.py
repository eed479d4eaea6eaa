"""Vectors in providers' answers: cut out, read, and refused where they are none."""

import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from src.domain.completion.model import Failure, Reply, UpstreamFailed
from src.integrations.llm.google import embeddings as embeddings_google
from src.integrations.llm.openai import embeddings as embeddings_openai
from src.integrations.llm.vectors import outline_of
from src.shared.vectors import packed

VECTORS = ([0.5, -2.0], [1.25, 3.0])
OPENAI: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(VECTORS)],
    "model": "told",
    "usage": {"prompt_tokens": 5, "total_tokens": 5},
}
GOOGLE: dict[str, Any] = {
    "embeddings": [{"values": vector} for vector in VECTORS],
    "usageMetadata": {"promptTokenCount": 5},
}
Read = Callable[[bytes], Reply]


@pytest.mark.parametrize("option", [0, orjson.OPT_INDENT_2])
@pytest.mark.parametrize("encoded", [False, True])
def test_an_outline_has_everything_but_the_vectors(option: int, encoded: bool) -> None:
    rows = [
        {**row, "embedding": in_base64(row["embedding"]) if encoded else row["embedding"]} for row in OPENAI["data"]
    ]
    data = orjson.dumps({**OPENAI, "data": rows}, option=option)
    empty: Any = "" if encoded else []
    assert outline_of(data, b"embedding") == {**OPENAI, "data": [{**row, "embedding": empty} for row in rows]}


@pytest.mark.parametrize(
    "data",
    [
        b'{"embedding": 5, "a": [1]}',
        b'{"embedding": null}',
        b'{"a": "embedding", "embedding": {"b": "embedding"}}',
        b'{"embedding":[], "embedding" : ""}',
        b'{"a": ["embedding", "embedding"]}',
    ],
)
def test_what_is_no_vector_stays(data: bytes) -> None:
    assert outline_of(data, b"embedding") == orjson.loads(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"5", b"<html>", b'{"embedding"', b'{"embedding":', b'{"embedding":[1', b'{"embedding":"x', b"{"],
)
def test_what_is_no_object_is_no_answer(data: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        outline_of(data, b"embedding")
    assert caught.value.kind is Failure.MALFORMED


def in_base64(vector: list[float]) -> str:
    return base64.b64encode(packed(vector)).decode()


@pytest.mark.parametrize(
    ("read", "body", "model"),
    [(embeddings_openai.read_reply, OPENAI, "told"), (embeddings_google.read_reply, GOOGLE, None)],
)
def test_an_answer_is_handed_on_as_it_is(read: Read, body: dict[str, Any], model: str | None) -> None:
    data = orjson.dumps(body)
    finished = read(data).finished
    assert (finished.wire, finished.upstream_model) == (data, model)
    assert finished.usage is not None
    assert finished.usage.input_tokens == finished.usage.total_tokens == 5


def test_vectors_are_read_in_the_order_of_their_inputs() -> None:
    rows = [{**OPENAI["data"][1]}, {**OPENAI["data"][0], "embedding": in_base64(VECTORS[0])}]
    found = embeddings_openai.vectors_in(orjson.dumps({**OPENAI, "data": rows}))
    assert found == tuple(map(packed, VECTORS))
    assert embeddings_google.vectors_in(orjson.dumps(GOOGLE)) == tuple(map(packed, VECTORS))
    assert embeddings_google.vectors_in(b'{"embedding": {"values": [0.5, -2]}}') == (packed(VECTORS[0]),)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [(None, None), ({}, None), ({"total_tokens": 4}, 4), ({"prompt_tokens": "5"}, None), ([], None)],
)
def test_usage_may_be_missing_or_only_a_total(usage: Any, tokens: int | None) -> None:
    found = embeddings_openai.read_reply(orjson.dumps({**OPENAI, "usage": usage})).finished.usage
    assert (found and found.input_tokens) == tokens


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (embeddings_openai.read_reply, {}),
        (embeddings_openai.read_reply, {"data": []}),
        (embeddings_openai.read_reply, {"data": [{}]}),
        (embeddings_openai.read_reply, {"data": [5]}),
        (embeddings_openai.read_reply, {"data": {}}),
        (embeddings_openai.read_reply, {**OPENAI, "model": 5}),
        (embeddings_google.read_reply, {}),
        (embeddings_google.read_reply, {"embeddings": []}),
        (embeddings_google.read_reply, {"embeddings": [{}]}),
        (embeddings_google.read_reply, {"embeddings": 5}),
        (embeddings_google.read_reply, {"embedding": None}),
    ],
)
def test_an_answer_without_vectors_is_none(read: Read, body: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        read(orjson.dumps(body))
    assert caught.value.kind is Failure.MALFORMED


@pytest.mark.parametrize(
    "vector", ["!", "AAA", "AAAAAAA=", "", [], ["x"], [None], [[1.0]], [1e300], 5, None, {}], ids=str
)
def test_a_vector_of_something_else_is_none(vector: Any) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        embeddings_openai.vectors_in(orjson.dumps({"data": [{"embedding": vector}]}))
    assert caught.value.kind is Failure.MALFORMED


def test_numbers_that_are_none_are_seen_where_they_are_read() -> None:
    data = b'{"data": [{"embedding": [1, x]}]}'
    assert embeddings_openai.read_reply(data).finished.wire == data
    with pytest.raises(UpstreamFailed):
        embeddings_openai.vectors_in(data)


def test_an_error_in_a_body_is_the_providers_word() -> None:
    with pytest.raises(UpstreamFailed) as caught:
        embeddings_openai.read_reply(b'{"error": {"message": "too long", "type": "invalid_request_error"}}')
    assert (caught.value.kind, caught.value.message) == (Failure.CALLER, "too long")
