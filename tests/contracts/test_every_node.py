"""Whatever stands anywhere in a client's body: it is refused in words, or every adapter can say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest
from google.genai import types

from src.api.dialects.anthropic.request import parse_messages
from src.api.dialects.gemini.embeddings import parse_batch_embed_contents
from src.api.dialects.gemini.request import parse_count_tokens, parse_generate_content
from src.api.dialects.openai.embeddings import parse_embeddings
from src.api.dialects.openai.request import parse_chat_completion
from src.api.dialects.request import ParsedRequest
from src.api.dialects.responses.request import chat_of, namespaces_in, parse_response
from src.domain.catalog.model import Capabilities, Model, ReasoningStyle, WireFormat
from src.domain.completion.content import part_body, part_from
from src.domain.completion.model import ChatRequest, UpstreamFailed, UpstreamRequest
from src.integrations.llm.anthropic import relay as relay_anthropic
from src.integrations.llm.anthropic.request import asked_of
from src.integrations.llm.custom_tools import with_functions
from src.integrations.llm.google import relay as relay_google
from src.integrations.llm.google import request as request_google
from src.integrations.llm.openai import relay_chat, relay_responses
from src.integrations.llm.openai import request as request_openai
from src.integrations.llm.prompt_walk import PromptWalk, body_of
from src.shared.errors import GatewayError
from tests.contracts import whole_requests as whole
from tests.support.any_node import variants


def model(upstream: str, style: ReasoningStyle) -> Model:
    able = Capabilities(audio=True, reasoning=style)
    return Model(name="m", provider="p", upstream=upstream, context_window=100_000, max_output=4000, capabilities=able)


CLAUDE = model("claude-sonnet-4-5", ReasoningStyle.BUDGET)
GEMINI = model("gemini-3-pro", ReasoningStyle.BUDGET)
GPT = model("gpt-5", ReasoningStyle.EFFORT)


def read_response(body: Mapping[str, Any]) -> ParsedRequest:
    """With the same history before it."""
    asked = parse_response(body, {})
    namespaces_in(asked)
    return chat_of(asked, asked.inputs, f"resp_{32 * '0'}")


def read_contents(body: Mapping[str, Any]) -> ParsedRequest:
    return parse_generate_content("m", body, {})


def read_chat(body: Mapping[str, Any]) -> ParsedRequest:
    return parse_chat_completion(body, {})


Read = Callable[[Mapping[str, Any]], ParsedRequest]
DOORS: dict[str, tuple[Read, Mapping[str, Any]]] = {
    "chat": (read_chat, whole.CHAT),
    "chat with media": (read_chat, whole.CHAT_WITH_MEDIA),
    "responses": (read_response, whole.RESPONSES),
    "messages": (lambda body: parse_messages(body, {}), whole.MESSAGES),
    "contents": (read_contents, whole.CONTENTS),
    "contents with media": (read_contents, whole.CONTENTS_WITH_MEDIA),
    "contents, otherwise": (read_contents, whole.CONTENTS_BY_JSON_SCHEMA),
    "countTokens": (lambda body: parse_count_tokens("m", body, {}), whole.COUNT),
    "vectors": (lambda body: parse_embeddings(body, {}), whole.VECTORS),
    "vectors of tokens": (lambda body: parse_embeddings(body, {}), whole.VECTORS_OF_TOKENS),
    "batchEmbedContents": (lambda body: parse_batch_embed_contents("m", body), whole.EMBED_BATCH),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_body_is_refused_in_words_or_every_adapter_can_say_it(door: str) -> None:
    read, body = DOORS[door]
    read(body)
    for where, changed in variants(body):
        try:
            with suppress(GatewayError):
                chat = read(changed).chat
                measured(chat)
                if chat.embedding is None:
                    stored(chat)
                    relayed(chat)
                    translated(chat)
        except Exception as error:
            raise AssertionError(where) from error


def measured(chat: ChatRequest) -> None:
    walk = PromptWalk(body_of(chat), GPT)
    walk.go_on()
    assert walk.prompt().chars >= 0


def stored(chat: ChatRequest) -> None:
    for message in chat.messages:
        for part in message.parts:
            body = orjson.dumps(part_body(part))
            assert orjson.dumps(part_body(part_from(orjson.loads(body)))) == body


def relayed(chat: ChatRequest) -> None:
    assert chat.wire is not None
    body_for, cap_field = {
        WireFormat.CHAT_COMPLETIONS: (relay_chat.body_for, "max_completion_tokens"),
        WireFormat.RESPONSES: (relay_responses.body_for, relay_responses.CAP_FIELD),
        WireFormat.MESSAGES: (relay_anthropic.body_for, "max_tokens"),
        WireFormat.GENERATE_CONTENT: (relay_google.body_for, relay_google.CAP_FIELD),
    }[chat.wire.format]
    orjson.dumps(body_for(UpstreamRequest(model=GPT, chat=chat, output_cap=50), chat.wire.body, cap_field))


def translated(chat: ChatRequest) -> None:
    """What is made for an SDK is what it takes: Google's checks it itself, the others write it as it is.

    Google's own items are never translated for Google.
    """
    own = chat.wire is not None and chat.wire.format is WireFormat.GENERATE_CONTENT
    asked = UpstreamRequest(model=GPT, chat=replace(chat, wire=None), output_cap=50)
    with suppress(UpstreamFailed):
        orjson.dumps(request_openai.request_arguments(asked, "max_tokens")[0])
    asked = with_functions(asked)
    with suppress(UpstreamFailed):
        orjson.dumps(asked_of(replace(asked, model=CLAUDE)).arguments)
    if own:
        return
    with suppress(UpstreamFailed):
        arguments, _ = request_google.request_arguments(replace(asked, model=GEMINI))
        types.GenerateContentConfig(**arguments["config"])
        for content in arguments["contents"]:
            types.Content.model_validate(content)
