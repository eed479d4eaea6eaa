"""Whatever stands anywhere in a provider's answer: it is read, or it is a failure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest

from src.api.dialects.responses.cut import Relayed
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import part_body
from src.domain.completion.deltas import deltas_of
from src.domain.completion.model import Delivered, Reply, UpstreamFailed, WireBody
from src.integrations.llm.anthropic import relay as relay_anthropic
from src.integrations.llm.google import embeddings as embeddings_google
from src.integrations.llm.google import relay as relay_google
from src.integrations.llm.openai import embeddings as embeddings_openai
from src.integrations.llm.openai import relay_chat, relay_responses
from src.integrations.llm.openai import reply as reply_openai
from src.integrations.llm.relay_failures import of_answer, of_error_object
from src.integrations.llm.sse_bytes import StreamReader
from tests.contracts import whole_answers as whole
from tests.contracts.relaying import sse
from tests.support.any_node import dumped, variants

OURS = WireBody(format=WireFormat.RESPONSES, body={}, answered_for={"id": f"resp_{32 * '0'}", "store": True})


def read_response(data: bytes) -> Reply:
    return relay_responses.answered_by_us(relay_responses.read_reply(data), OURS)


WHOLE: dict[str, tuple[Callable[[bytes], Reply], Any]] = {
    "chat": (relay_chat.read_reply, whole.CHAT),
    "chat, translated": (lambda data: reply_openai.reply_of(orjson.loads(data)), whole.CHAT),
    "a response": (read_response, whole.RESPONSE),
    "a message": (relay_anthropic.read_reply, whole.MESSAGE),
    "a message that is not counted": (relay_anthropic.read_reply, {**whole.MESSAGE, "usage": None}),
    "contents": (relay_google.read_reply, whole.CONTENT),
    "contents that are not counted": (relay_google.read_reply, {**whole.CONTENT, "usageMetadata": None}),
    "vectors": (embeddings_openai.read_reply, whole.VECTORS),
    "vectors of contents": (embeddings_google.read_reply, whole.CONTENT_VECTORS),
}
STREAMS: dict[str, tuple[Callable[[], StreamReader], Callable[[bytes], Delivered], list[Any]]] = {
    "chat": (
        lambda: relay_chat.OpenAIReader(wants_usage=True, choices=1),
        relay_chat.read_delivered,
        whole.CHAT_EVENTS,
    ),
    "a response": (
        lambda: relay_responses.ResponsesReader(OURS),
        relay_responses.read_delivered,
        whole.RESPONSE_EVENTS,
    ),
    "a message": (relay_anthropic.AnthropicReader, relay_anthropic.read_delivered, whole.MESSAGE_EVENTS),
    "contents": (lambda: relay_google.GoogleReader(choices=1), relay_google.read_delivered, [whole.CONTENT]),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_is_read_or_a_failure(name: str) -> None:
    read, answer = WHOLE[name]
    read(orjson.dumps(answer))
    for where, changed in variants(answer):
        try:
            with suppress(UpstreamFailed):
                reply = read(dumped(changed))
                assert isinstance(reply.text, str)
                orjson.dumps([part_body(part) for part in reply.finished.parts])
                list(deltas_of(reply.finished.parts))
        except Exception as error:
            raise AssertionError(where) from error


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_handed_on_up_to_a_failure(name: str) -> None:
    reader_of, read_delivered, events = STREAMS[name]
    before = reader_of()
    before.read(sse(*events))
    assert before.is_complete
    for where, changed in variants(events):
        data = sse(*map(dumped, changed))
        try:
            reader = reader_of()
            with suppress(UpstreamFailed):
                reader.read(data)
                reader.finished()
            delivered = read_delivered(data)
            assert isinstance(delivered.text, str)
            orjson.dumps([part_body(part) for part in delivered.parts])
            list(Relayed(data).end())
        except Exception as error:
            raise AssertionError(where) from error


def test_a_translated_stream_is_read_up_to_a_failure() -> None:
    for where, changed in variants(whole.CHAT_EVENTS):
        reader = reply_openai.AnswerReader()
        try:
            with suppress(UpstreamFailed):
                for chunk in changed:
                    list(reader.chunk(orjson.loads(dumped(chunk))))
                reader.finished()
        except Exception as error:
            raise AssertionError(where) from error


@pytest.mark.parametrize("whose", whole.ERRORS)
def test_an_error_is_a_failure(whose: str) -> None:
    for where, changed in variants(whole.ERRORS[whose]):
        try:
            for made in (
                of_answer(400, orjson.loads(dumped(changed)), {}, ("secret",)),
                of_error_object(orjson.loads(dumped(changed))),
            ):
                assert isinstance(str(made), str)
        except Exception as error:
            raise AssertionError(where) from error
