"""The relay lane and whatever a provider or a client may write: nothing but a failure is raised, and caps are kept."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as some

from src.domain.completion.model import UpstreamFailed, WireBody
from src.integrations.llm.anthropic import relay as relay_anthropic
from src.integrations.llm.google import embeddings as embeddings_google
from src.integrations.llm.google import relay as relay_google
from src.integrations.llm.openai import embeddings as embeddings_openai
from src.integrations.llm.openai import relay_chat as relay_openai
from src.integrations.llm.openai import relay_responses
from tests.contracts.relaying import ANTHROPIC, GOOGLE, OPENAI, RESPONSES, asking, sse

WORDS = (
    *("type", "error", "message", "code", "model", "usage", "choices", "index", "delta", "finish_reason", "content"),
    *("tool_calls", "function", "arguments", "function_call", "text", "thinking", "input", "stop_reason", "stop"),
    *("prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "input_tokens", "output_tokens"),
    *("message_start", "message_delta", "message_stop", "ping", "n", "max_tokens", "budget_tokens", "stream_options"),
)
RESPONSES_WORDS = (
    *("type", "error", "message", "code", "model", "usage", "status", "completed", "incomplete", "failed", "response"),
    *("response.completed", "response.incomplete", "response.failed", "response.output_item.added", "item", "output"),
    *("response.output_item.done", "response.output_text.delta", "output_index", "delta", "id", "msg_0123", "content"),
    *("reasoning", "summary", "text", "refusal", "function_call", "custom_tool_call", "call_id", "name", "arguments"),
    *("input", "namespace", "encrypted_content", "input_tokens", "output_tokens", "input_tokens_details"),
    *("output_tokens_details", "cached_tokens", "reasoning_tokens", "incomplete_details", "reason", "include", "store"),
    *("max_output_tokens", "max_tool_calls", "item_id", "error_code", "rate_limit_exceeded", "conversation"),
)
GOOGLE_WORDS = (
    *("candidates", "content", "parts", "text", "thought", "functionCall", "args", "executableCode", "code", "index"),
    *("finishReason", "STOP", "MAX_TOKENS", "FINISH_REASON_UNSPECIFIED", "usageMetadata", "promptTokenCount", "error"),
    *("candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount", "cachedContentTokenCount", "details"),
    *("modelVersion", "promptFeedback", "blockReason", "generationConfig", "generation_config", "maxOutputTokens"),
    *("max_output_tokens", "thinkingConfig", "thinkingBudget", "retryDelay", "reason", "message", "status", "model"),
)
VECTOR_WORDS = (
    *("data", "embedding", "embeddings", "values", "index", "model", "usage", "prompt_tokens", "total_tokens", "error"),
    *("usageMetadata", "promptTokenCount", "requests", "content", "object", "list"),
)


def values(words: tuple[str, ...]) -> some.SearchStrategy[Any]:
    """Any JSON, made of those words."""
    scalars = some.none() | some.booleans() | some.integers(-5, 2**63) | some.floats() | some.sampled_from(words)
    names = some.sampled_from(words)
    return some.recursive(
        scalars,
        lambda inner: some.lists(inner, max_size=3) | some.dictionaries(names, inner, max_size=6),
        max_leaves=25,
    )


def objects(words: tuple[str, ...]) -> some.SearchStrategy[dict[str, Any]]:
    return some.dictionaries(some.sampled_from(words), values(words), max_size=8)


VALUES = values(WORDS)
OURS = WireBody(format=RESPONSES, body={}, answered_for={"id": f"resp_{32 * '0'}", "store": True})


@given(VALUES, values(RESPONSES_WORDS), values(GOOGLE_WORDS), values(VECTOR_WORDS))
def test_whatever_a_provider_answers_nothing_but_a_failure_is_raised(
    value: Any, response: Any, candidates: Any, vectors: Any
) -> None:
    for read, answered in (
        (relay_openai.read_reply, value),
        (relay_anthropic.read_reply, value),
        (relay_responses.read_reply, response),
        (lambda data: relay_responses.answered_by_us(relay_responses.read_reply(data), OURS), response),
        (relay_google.read_reply, candidates),
        (embeddings_openai.read_reply, vectors),
        (embeddings_google.read_reply, vectors),
    ):
        with suppress(UpstreamFailed):
            assert read(orjson.dumps(answered)).finished.wire


@given(values(VECTOR_WORDS))
def test_whatever_vectors_are_answered_nothing_but_a_failure_is_raised(value: Any) -> None:
    data = orjson.dumps(value)
    for made in (embeddings_openai, embeddings_google):
        with suppress(UpstreamFailed):
            made.read_reply(data)
            assert all(isinstance(vector, bytes) for vector in made.vectors_in(data))


@given(some.lists(objects(WORDS), min_size=1, max_size=6), some.lists(objects(GOOGLE_WORDS), min_size=1, max_size=6))
def test_whatever_a_stream_holds_is_handed_on_up_to_an_error(
    events: list[dict[str, Any]], chunks: list[dict[str, Any]]
) -> None:
    for data, reader in (
        (sse(*events), relay_openai.OpenAIReader(wants_usage=True, choices=1)),
        (sse(*events), relay_anthropic.AnthropicReader()),
        (sse(*chunks), relay_google.GoogleReader(choices=1)),
        (sse(*chunks), relay_google.GoogleReader(choices=2)),
    ):
        passed = reader.read(data) + reader.held
        assert data.startswith(passed)
        assert passed == data or reader.failure is not None or reader.is_over
        assert reader.finished().wire == reader.held
    for read in (relay_openai.read_delivered, relay_anthropic.read_delivered):
        assert isinstance(read(sse(*events)).text, str)
    assert isinstance(relay_google.read_delivered(sse(*chunks)).text, str)


@given(some.lists(objects(RESPONSES_WORDS), min_size=1, max_size=6))
def test_whatever_the_events_of_a_response_hold_they_are_handed_on_up_to_an_error(events: list[dict[str, Any]]) -> None:
    """With the gateway's own values in them."""
    reader = relay_responses.ResponsesReader(OURS)
    try:
        passed = reader.read(sse(*events)) + reader.held
    except UpstreamFailed:
        return
    assert passed.count(b"data: ") == len(events) or reader.failure is not None or reader.is_over
    assert reader.finished().wire == reader.held
    assert isinstance(relay_responses.read_delivered(sse(*events)).text, str)


@given(some.dictionaries(some.sampled_from(WORDS), VALUES, max_size=8), some.integers(0, 5000))
def test_whatever_a_client_sends_the_cap_is_kept(fields: dict[str, Any], cap: int) -> None:
    for kind, body_for in ((OPENAI, relay_openai.body_for), (ANTHROPIC, relay_anthropic.body_for)):
        request = asking(kind, stream=True, cap=cap)
        body = body_for(request, fields, "max_completion_tokens")
        caps = [body[name] for name in relay_openai.CAP_FIELDS if name in body]
        assert caps
        choices = relay_openai.choices_of(fields) if kind is OPENAI else 1
        assert all(limit * choices <= cap or limit <= 1 for limit in caps)
        thinking = body.get("thinking")
        if kind is ANTHROPIC and isinstance(thinking, dict) and "max_tokens" not in fields:
            assert not isinstance(thinking.get("budget_tokens"), int) or thinking["budget_tokens"] < cap


@given(objects(RESPONSES_WORDS), objects(GOOGLE_WORDS), some.integers(0, 5000))
def test_whatever_newer_clients_send_the_cap_is_kept(
    response: dict[str, Any], contents: dict[str, Any], cap: int
) -> None:
    asked = relay_responses.body_for(asking(RESPONSES, cap=cap), response, relay_responses.CAP_FIELD)
    assert asked["max_output_tokens"] <= max(1, cap)
    body = relay_google.body_for(asking(GOOGLE, cap=cap), contents, relay_google.CAP_FIELD)
    config = body["generation_config" if "generation_config" in body else "generationConfig"]
    assert config.get("max_output_tokens", config.get("maxOutputTokens")) <= max(1, cap)
