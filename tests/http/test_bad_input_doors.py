"""Bodies of clients of Responses, of vectors and of Google that are wrong: a 400 in their dialect that says where."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.http.surface import (
    CONTENTS,
    GEMINI,
    RESPONSE,
    VERBS,
    Scene,
    books_are_right,
    check_answer,
    check_error,
    dialect_of,
    nothing_changes,
    open_holds,
    send,
    set_scene,
)
from tests.support.gateway import RunningGateway
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESPONSES, COUNTING = "/v1/responses", "/v1/responses/input_tokens"
CONVERSATIONS, CONVERSATION = "/v1/conversations", "/v1/conversations/{name}"
GENERATE, STREAM, COUNT, EMBED, EMBED_BATCH = (f"/v1beta/models/gpt-4o:{verb}" for verb in VERBS)
VECTORS = {"model": "text-embedding-3-small", "input": "hello"}
CONTENT = {"content": {"parts": [{"text": "hello"}]}}

NO_COUNT: tuple[Any, ...] = ("x", 1.5, True, [], {}, -1, 10**30, 1e308, 2**64)
NO_NUMBER: tuple[Any, ...] = ("0.5", True, [], {}, -3, 10**30, 1e308, 2**64)
NO_FLAG: tuple[Any, ...] = ("true", 1, 0, [], {})
NO_TEXT: tuple[Any, ...] = (5, 1.5, True, [], ["x"], {})
NO_OBJECT: tuple[Any, ...] = (5, "x", True, [5])
NO_LIST: tuple[Any, ...] = (5, "x", True, {"type": "function"})
NO_MODEL: tuple[Any, ...] = (None, 5, True, [], {}, "", "x" * 201)
NO_ITEMS: tuple[Any, ...] = (
    [5],
    [None],
    [[]],
    ["x"],
    [{"content": 5}],
    [{"type": 5}],
    [{"type": ["message"]}],
    [{"role": "wizard", "content": "x"}],
    [{"role": 5, "content": "x"}],
    [{"role": "user", "content": 5}],
    [{"role": "user", "content": {}}],
    [{"role": "user", "content": [5]}],
    [{"role": "user", "content": [{}]}],
    [{"role": "user", "content": [{"type": 5}]}],
    [{"role": "user", "content": [{"type": "input_text"}]}],
    [{"role": "user", "content": [{"type": "input_text", "text": 5}]}],
    [{"role": "user", "content": "fine"}, {"role": "user", "content": [{"type": "input_text", "text": ["x"]}]}],
    [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": 5}]}],
    [{"type": "message", "role": "assistant", "content": [{"type": "refusal"}]}],
    [{"type": "function_call"}],
    [{"type": "function_call", "call_id": "c", "name": 5, "arguments": "{}"}],
    [{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}],
    [{"type": "function_call_output"}],
    [{"type": "function_call_output", "call_id": 5, "output": "x"}],
    [{"type": "function_call_output", "call_id": "c", "output": 5}],
    [{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": 5}],
    [{"type": "reasoning", "summary": 5}],
)
RESPONSE_FIELDS: dict[str, tuple[Any, ...]] = {
    "model": NO_MODEL,
    "input": (None, 5, True, {}, *NO_ITEMS),
    "instructions": NO_TEXT,
    "previous_response_id": (*NO_TEXT, "x" * 1001),
    "conversation": (5, True, [], {}, {"id": 5}),
    "stream": NO_FLAG,
    "store": NO_FLAG,
    "background": NO_FLAG,
    "metadata": (*NO_OBJECT, {"a": 5}, {str(number): "x" for number in range(17)}),
    "max_output_tokens": (*NO_COUNT, 0),
    "temperature": (*NO_NUMBER, 2.1),
    "top_p": (*NO_NUMBER, 1.1),
    "presence_penalty": NO_NUMBER,
    "frequency_penalty": NO_NUMBER,
    "parallel_tool_calls": NO_FLAG,
    "top_logprobs": (*NO_COUNT, 21),
    "tools": (*NO_LIST, [5], [None], [{}], [{"type": 5}], [{"type": "function"}], [{"type": "function", "name": 5}]),
    "tool_choice": (5, True, [], "sometimes", {"type": 5}),
    "reasoning": (*NO_OBJECT, {"effort": 5}, {"effort": []}),
    "text": (*NO_OBJECT, {"format": 5}, {"format": {}}, {"format": {"type": "json_schema"}}),
    "include": (*NO_LIST, [5], [{}]),
    "prompt": (*NO_OBJECT, {}, {"id": 5}),
    "truncation": (*NO_TEXT, "maybe"),
    "max_tool_calls": (*NO_COUNT, 0),
    "user": NO_TEXT,
    "prompt_cache_key": NO_TEXT,
}
CONVERSATION_FIELDS: dict[str, tuple[Any, ...]] = {
    "metadata": (*NO_OBJECT, {"a": 5}, {"a": "x" * 513}, {"x" * 65: "x"}, {str(number): "x" for number in range(17)}),
    "items": (5, "x", True, {"a": 1}, [{"role": "user", "content": "x"}] * 21, *NO_ITEMS),
}
NO_PARTS: tuple[Any, ...] = (
    5, "x", True, [5], [{"text": 5}], [{"text": ["x"]}], [{"inlineData": 5}], [{"inlineData": {}}],
    [{"inlineData": {"mimeType": 5, "data": "eA=="}}], [{"fileData": {}}], [{"fileData": {"fileUri": 5}}],
    [{"functionCall": 5}], [{"functionCall": {}}], [{"functionCall": {"name": 5}}],
    [{"functionCall": {"name": "f", "args": 5}}], [{"functionResponse": {"name": "f", "response": [5]}}],
    [{"text": "x", "thoughtSignature": 5}],
)  # fmt: skip
NO_CONTENTS: tuple[Any, ...] = (
    None, [], 5, True, [5], [None], [[]], {"role": "wizard", "parts": []}, [{"role": 5, "parts": []}],
    *({"role": "user", "parts": parts} for parts in NO_PARTS),
)  # fmt: skip
CONTENTS_FIELDS: dict[str, tuple[Any, ...]] = {
    "contents": (*NO_CONTENTS, "x"),
    "systemInstruction": (5, True, False, 0, [5], {"parts": 5}, {"parts": [{"text": 5}]}),
    "tools": (*NO_LIST[:3], [5], [{"functionDeclarations": 5}], [{"functionDeclarations": [5]}],
              [{"functionDeclarations": [{}]}], [{"functionDeclarations": [{"name": "f", "parameters": 5}]}]),
    "toolConfig": (*NO_OBJECT, {"functionCallingConfig": 5}, {"functionCallingConfig": {"mode": 5}}),
    "generationConfig": (*NO_OBJECT, [], "", 0, False),
    "generationConfig.maxOutputTokens": (*NO_COUNT, 0),
    "generationConfig.temperature": (*NO_NUMBER, 2.1),
    "generationConfig.topP": (*NO_NUMBER, 1.1),
    "generationConfig.topK": NO_COUNT,
    "generationConfig.candidateCount": (*NO_COUNT, 0, 129),
    "generationConfig.seed": ("x", 1.5, True, [], 10**30, 2**64),
    "generationConfig.stopSequences": (5, True, {}, [5], ["x"] * 65),
    "generationConfig.presencePenalty": NO_NUMBER,
    "generationConfig.responseLogprobs": NO_FLAG,
    "generationConfig.logprobs": (*NO_COUNT, 21),
    "generationConfig.responseMimeType": (5, True, []),
    "generationConfig.thinkingConfig": (
        *NO_OBJECT, {"thinkingBudget": "x"}, {"thinkingBudget": -2}, {"thinkingLevel": 5}, {"includeThoughts": "x"},
    ),
}  # fmt: skip
VECTORS_FIELDS: dict[str, tuple[Any, ...]] = {
    "model": NO_MODEL,
    "input": (
        None, 5, 1.5, True, "", [], {}, [[]], [None], [{}], [""], ["x", ""], ["x", 5], [5, "x"], [-1], [2**31], [True],
        [[5], []], [[5], ["x"]], [[5], [-1]], ["x"] * 2049,
    ),
    "dimensions": (*NO_COUNT, 0),
    "encoding_format": NO_TEXT,
}  # fmt: skip
EMBED_FIELDS: dict[str, tuple[Any, ...]] = {
    "content": (None, 5, True, [], [5], {}, *({"parts": parts} for parts in NO_PARTS)),
    "outputDimensionality": (*NO_COUNT, 0),
    "title": NO_TEXT,
}
BATCH_FIELDS: dict[str, tuple[Any, ...]] = {
    "requests": (None, 5, "x", True, [], [5], [{}], [{"content": 5}], [CONTENT, {}], [CONTENT] * 2049),
}
TABLE: dict[str, tuple[dict[str, Any], dict[str, tuple[Any, ...]]]] = {
    RESPONSES: (RESPONSE, RESPONSE_FIELDS),
    COUNTING: (RESPONSE, RESPONSE_FIELDS),
    CONVERSATIONS: ({}, CONVERSATION_FIELDS),
    CONVERSATION: ({}, {"metadata": CONVERSATION_FIELDS["metadata"]}),
    f"{CONVERSATION}/items": ({}, {"items": (None, [], *CONVERSATION_FIELDS["items"])}),
    GENERATE: (CONTENTS, CONTENTS_FIELDS),
    STREAM: (CONTENTS, CONTENTS_FIELDS),
    COUNT: (CONTENTS, CONTENTS_FIELDS),
    "/v1/embeddings": (VECTORS, VECTORS_FIELDS),
    EMBED: (CONTENT, EMBED_FIELDS),
    EMBED_BATCH: ({"requests": [CONTENT]}, BATCH_FIELDS),
}
CASES = [
    pytest.param(path, valid, field, values, id=f"{path} {field}")
    for path, (valid, fields) in TABLE.items()
    for field, values in fields.items()
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(shared_gateway: RunningGateway) -> Scene:
    return await set_scene(shared_gateway)


@pytest_asyncio.fixture(loop_scope="module")
async def untouched(shared_gateway: RunningGateway, shared_upstream: Upstream) -> AsyncIterator[RunningGateway]:
    async with nothing_changes(shared_gateway, shared_upstream):
        yield shared_gateway


@pytest.mark.parametrize(("path", "valid", "field", "values"), CASES)
async def test_a_wrong_value_of_a_known_field_is_a_400_that_names_it(
    path: str, valid: dict[str, Any], field: str, values: tuple[Any, ...], untouched: RunningGateway, scene: Scene
) -> None:
    outer, _, inner = field.partition(".")
    for value in values:
        body = {**valid, outer: {inner: value} if inner else value}
        response = await send(untouched.http, "POST", scene.path(path), body)
        error = check_error(response, 400)
        assert outer in error["message"], f"{str(value)[:80]}: {error}"
        if dialect_of(path) == GEMINI:
            assert error["status"] == "INVALID_ARGUMENT", value
        else:
            assert error["type"] == "invalid_request_error", value
            assert error["param"].startswith(outer), f"{str(value)[:80]}: {error}"
        assert len(response.content) < 5000


ODD_VALUES: tuple[Any, ...] = (5, "x", True, [], [5], {}, {"a": [None]}, 10**30, None)
UNREAD: dict[str, tuple[str, ...]] = {
    RESPONSES: (
        "stream_options", "service_tier", "safety_identifier", "prompt_cache_retention", "context_management", "tools",
        "tool_choice", "reasoning", "text", "something_new", "", "\u2028",
    ),
    COUNTING: ("truncation", "conversation", "something_new", ""),
    GENERATE: ("safetySettings", "cachedContent", "labels", "tools", "toolConfig", "model", "something_new", ""),
    STREAM: ("safetySettings", "cachedContent", "labels", "tools", "toolConfig", "model", "something_new", ""),
    COUNT: ("generateContentRequest", "safetySettings", "model", "something_new", ""),
    "/v1/embeddings": ("user", "something_new", ""),
    EMBED: ("taskType", "model", "embedContentConfig", "something_new", ""),
    EMBED_BATCH: ("model", "something_new", ""),
    "/v1/messages/count_tokens": ("tools", "tool_choice", "thinking", "max_tokens", "something_new", ""),
}  # fmt: skip
VALID: dict[str, dict[str, Any]] = {
    **{path: valid for path, (valid, _) in TABLE.items()},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hello"}]},
}
MODELS = ("gpt-4o", "claude-3-opus", "gemini-2.5-flash")
VECTOR_MODELS = ("text-embedding-3-small", "gemini-embedding-001")


@pytest.mark.parametrize(("path", "names"), UNREAD.items(), ids=UNREAD.keys())
async def test_fields_that_are_the_providers_business_never_break_the_gateway(
    path: str, names: tuple[str, ...], shared_gateway: RunningGateway
) -> None:
    """To the provider of the dialect they are forwarded; it may refuse them, or the gateway may with a reason."""
    is_streamed = path == RESPONSES
    for model in VECTOR_MODELS if "mbed" in path else MODELS:
        for stream in (False, True) if is_streamed else (False,):
            valid = VALID[path] | ({} if path.startswith("/v1beta/") else {"model": model})
            valid |= {"stream": stream} if is_streamed else {}
            for name in names:
                for value in ODD_VALUES:
                    asked = path.replace("gpt-4o", model)
                    response = await send(shared_gateway.http, "POST", asked, {**valid, name: value})
                    check_answer(response)
                    facts = f"{asked} {name}: {value}: {response.text[:300]}"
                    assert response.status_code in (200, 400, 404), facts
                    if response.status_code != 200:
                        check_error(response, response.status_code)
    assert open_holds(shared_gateway) == 0


@pytest.mark.parametrize("name", ["nobody", "gpt-4o ", "GPT-4O", "x" * 200, "модель"])
async def test_an_unknown_model_is_a_404_as_the_clients_know_it(name: str, untouched: RunningGateway) -> None:
    for path in (RESPONSES, COUNTING, "/v1/embeddings"):
        for stream in (False, True) if path == RESPONSES else (False,):
            error = check_error(
                await send(untouched.http, "POST", path, {**RESPONSE, "model": name, "stream": stream}), 404
            )
            wanted = ("invalid_request_error", "model_not_found", "model")
            assert (error["type"], error["code"], error["param"]) == wanted
    for version in ("v1", "v1beta"):
        for verb in VERBS:
            body: dict[str, Any] = {"requests": [CONTENT]} if verb.startswith("batch") else {**CONTENTS, **CONTENT}
            error = check_error(await send(untouched.http, "POST", f"/{version}/models/{name}:{verb}", body), 404)
            assert (error["status"], error["details"][0]["reason"]) == ("NOT_FOUND", "model_not_found")


UNKNOWN_IDS = ("resp_0123", "x", "", "resp_" + "0" * 32, "conv_01a1fd81a49e7121a80f58f0768bddde", "gpt-4o", "../x")


async def test_what_is_continued_must_exist(untouched: RunningGateway) -> None:
    for path in (RESPONSES, COUNTING):
        for name in UNKNOWN_IDS:
            error = check_error(
                await send(untouched.http, "POST", path, {**RESPONSE, "previous_response_id": name}), 404
            )
            assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")
            for named in (name, {"id": name}):
                error = check_error(await send(untouched.http, "POST", path, {**RESPONSE, "conversation": named}), 404)
                assert error["param"] == "conversation"


ODD_ITEMS: dict[str, Any] = {
    "no items": [],
    "no text": "",
    "empty text": [{"role": "user", "content": ""}],
    "no parts": [{"role": "user", "content": []}],
    "only an assistant": [{"role": "assistant", "content": "x"}],
    "a result without a call": [{"type": "function_call_output", "call_id": "c", "output": "x"}],
    "a call without a result": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "no json"}],
    "an item nobody knows": [{"type": "web_search_call", "id": "ws_1", "status": "completed"}],
    "a reference to nothing": [{"type": "item_reference", "id": "msg_0123"}],
    "emoji and right-to-left": [{"role": "user", "content": "👩‍👩‍👧‍👦 שלום \u202e \ufffe"}],
    "a thousand items": [{"role": "user", "content": "x"}] * 1000,
}


@pytest.mark.parametrize("items", ODD_ITEMS.values(), ids=ODD_ITEMS.keys())
async def test_odd_items_are_answered_or_refused_for_every_model(items: Any, shared_gateway: RunningGateway) -> None:
    for model in MODELS:
        for stream in (False, True):
            body = {"model": model, "input": items, "stream": stream}
            response = await send(shared_gateway.http, "POST", RESPONSES, body)
            check_answer(response)
            assert response.status_code in (200, 400, 404), response.text
    assert open_holds(shared_gateway) == 0


ODD_CONTENTS: dict[str, Any] = {
    "no parts": {"role": "user"},
    "parts that say nothing": {"role": "user", "parts": [{}]},
    "empty text": {"role": "user", "parts": [{"text": ""}]},
    "only the model": {"role": "model", "parts": [{"text": "x"}]},
    "a result without a call": {"parts": [{"functionResponse": {"name": "f", "response": {"a": 1}}}]},
    "a call without a result": {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
    "a part nobody knows": {"parts": [{"hologram": {"a": 1}}]},
    "no base64": {"parts": [{"text": "x"}, {"inlineData": {"mimeType": "image/png", "data": "!"}}]},
    "a thousand turns": [{"role": "user", "parts": [{"text": "x"}]}] * 1000,
}


@pytest.mark.parametrize("contents", ODD_CONTENTS.values(), ids=ODD_CONTENTS.keys())
async def test_odd_contents_are_answered_or_refused_for_every_model(
    contents: Any, shared_gateway: RunningGateway
) -> None:
    for model in MODELS:
        for verb in VERBS[:3]:
            path = f"/v1beta/models/{model}:{verb}"
            response = await send(shared_gateway.http, "POST", path, {"contents": contents})
            check_answer(response)
            assert response.status_code in (200, 400), response.text
    assert open_holds(shared_gateway) == 0


async def test_after_all_of_this_the_books_are_right(shared_gateway: RunningGateway) -> None:
    await books_are_right(shared_gateway)
