"""The scripted provider refuses what the real ones refuse, in their shapes, and takes what they take."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.support.upstream import Answer, ToolCall, Upstream, signature_of

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
COUNT, GOOGLE, EMBEDDINGS = "/v1/messages/count_tokens", "/v1beta/models/g:generateContent", "/v1/embeddings"
Json = dict[str, Any]
USER: Json = {"role": "user", "content": "hello"}
OBJECT: Json = {"type": "object", "properties": {}}
UNSAID: Json = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {}}}
ANY_TOOLS: list[Json] = [{"name": "f", "input_schema": OBJECT}]
PNG: Json = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def chat(*messages: Json, **fields: Any) -> Json:
    return {"model": "m", "messages": list(messages or (USER,)), **fields}


def calling(*ids: str, name: str = "f") -> Json:
    function = {"name": name, "arguments": "{}"}
    return {"role": "assistant", "tool_calls": [{"id": i, "type": "function", "function": function} for i in ids]}


def answering(identity: str) -> Json:
    return {"role": "tool", "tool_call_id": identity, "content": "sun"}


def chat_tool(name: str = "f", parameters: Any = OBJECT) -> list[Json]:
    return [{"type": "function", "function": {"name": name, "parameters": parameters}}]


def image(url: str) -> Json:
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


def responses(*items: Json, **fields: Any) -> Json:
    return {"model": "m", "input": list(items) or "hello", **fields}


def call_item(identity: str) -> Json:
    return {"type": "function_call", "call_id": identity, "name": "f", "arguments": "{}"}


def output_item(identity: str) -> Json:
    return {"type": "function_call_output", "call_id": identity, "output": "sun"}


def messages(*turns: Json, **fields: Any) -> Json:
    return {"model": "m", "max_tokens": 4000, "messages": list(turns or (USER,)), **fields}


def user(*blocks: Json) -> Json:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Json) -> Json:
    return {"role": "assistant", "content": list(blocks)}


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def use(identity: str, name: str = "f") -> Json:
    return {"type": "tool_use", "id": identity, "name": name, "input": {}}


def result(identity: str) -> Json:
    return {"type": "tool_result", "tool_use_id": identity, "content": "sun"}


def thought(signature: str) -> Json:
    return {"type": "thinking", "thinking": "hm", "signature": signature}


def google(*contents: Json, **fields: Any) -> Json:
    return {"contents": list(contents or (said("hello"),)), **fields}


def said(words: str, role: str = "user") -> Json:
    return {"role": role, "parts": [{"text": words}]}


def called(*names: str) -> Json:
    return {"role": "model", "parts": [{"functionCall": {"name": name, "args": {}}} for name in names]}


def answered(*names: str) -> Json:
    return {"role": "user", "parts": [{"functionResponse": {"name": n, "response": {"a": 1}}} for n in names]}


REFUSED: list[tuple[str, Json, str]] = [
    (CHAT, chat(bogus=1), "Unknown parameter: 'bogus'"),
    (CHAT, chat(tools=[{"name": "f", "input_schema": OBJECT, "type": "function"}]), "tools[0].function"),
    (CHAT, chat(tools=chat_tool("a b")), "tools[0].function.name"),
    (CHAT, chat(tools=chat_tool("f" * 65)), "tools[0].function.name"),
    (CHAT, chat(tools=chat_tool(parameters={"type": "string"})), "Invalid schema for function 'f'"),
    (CHAT, chat(tool_choice="required"), "'tool_choice' is only allowed when 'tools'"),
    (CHAT, chat(response_format={"type": "json_schema", "json_schema": {"schema": OBJECT}}), "json_schema.name"),
    (CHAT, chat(response_format={"type": "json_schema", "json_schema": {"name": "n"}}), "json_schema.schema"),
    (CHAT, chat(stop=["a", "b", "c", "d", "e"]), "Invalid 'stop'"),
    (CHAT, chat({"role": "model", "content": "x"}), "Invalid value: 'model'"),
    (CHAT, chat({"role": "user", "content": None}), "Invalid value for 'content'"),
    (CHAT, chat({"role": "user", "content": [{"type": "input_text", "text": "x"}]}), "Invalid value: 'input_text'"),
    (CHAT, chat(image("ftp://example.org/a.png")), "Invalid 'image_url.url'"),
    (CHAT, chat(image("data:image/png;base64,%%%")), "Invalid base64"),
    (CHAT, chat(USER, answering("c1")), "must be a response to a preceeding message"),
    (CHAT, chat(USER, calling("c1"), answering("c2")), "must be a response to a preceeding message"),
    (CHAT, chat(USER, calling("c1", "c2"), answering("c1"), USER), "did not have response messages: c2"),
    (CHAT, chat(USER, calling("c1")), "did not have response messages: c1"),
    (CHAT, chat(USER, calling("c1", name="a.b"), answering("c1")), "tool_calls.function.name"),
    (RESPONSES, responses(messages=[]), "Unknown parameter: 'messages'"),
    (RESPONSES, {"model": "m"}, "Missing required parameter: 'input'"),
    (RESPONSES, responses(max_output_tokens=15), "Expected a value >= 16"),
    (RESPONSES, responses(tools=chat_tool()), "Missing required parameter: 'tools[0].name'"),
    (RESPONSES, responses(tool_choice={"type": "function", "function": {"name": "f"}}), "'tool_choice.name'"),
    (RESPONSES, responses(text={"format": {"type": "json_schema", "schema": OBJECT}}), "text.format.name"),
    (RESPONSES, responses({"type": "tool_result"}), "Invalid value: 'tool_result'"),
    (RESPONSES, responses({"role": "tool", "content": "x"}), "Invalid value: 'tool'"),
    (RESPONSES, responses({"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}), "'output_text'"),
    (RESPONSES, responses({"role": "user", "content": [{"type": "output_text", "text": "x"}]}), "'input_text'"),
    (RESPONSES, responses(USER, output_item("c1")), "No tool call found for function call output"),
    (RESPONSES, responses(USER, call_item("c1")), "No tool output found for function call c1"),
    (RESPONSES, responses(USER, {"type": "reasoning", "summary": [], "encrypted_content": "z"}), "not be verified"),
    (MESSAGES, messages(bogus=1), "bogus: Extra inputs are not permitted"),
    (MESSAGES, {"model": "m", "messages": [USER]}, "max_tokens: Field required"),
    (MESSAGES, messages(max_tokens=-1), "max_tokens: Input should be"),
    (MESSAGES, messages({"role": "tool", "content": "x"}), "messages.0.role"),
    (MESSAGES, messages({"role": "assistant", "content": "x"}, USER), "first message must use"),
    (MESSAGES, {"model": "m", "max_tokens": 1, "messages": []}, "at least one message"),
    (MESSAGES, messages(user(text(""))), "text content blocks must be non-empty"),
    (MESSAGES, messages(system=[text(" ")]), "text content blocks must be non-empty"),
    (MESSAGES, messages({"role": "user", "content": ""}), "non-empty content"),
    (MESSAGES, messages(tools=[{"name": "a b", "input_schema": OBJECT}]), "tools.0.custom.name"),
    (MESSAGES, messages(tools=[{"name": "f", "input_schema": {"type": "string"}}]), "input_schema.type"),
    (MESSAGES, messages(tools=[{"name": "f", "parameters": OBJECT}]), "input_schema: Field required"),
    (MESSAGES, messages(tool_choice={"type": "any"}), "only be specified while providing tools"),
    (
        MESSAGES,
        messages(tools=[{"name": "f", "input_schema": OBJECT}], tool_choice={"type": "tool", "name": "g"}),
        "Tool 'g' not found",
    ),
    (MESSAGES, messages(tool_choice="auto", tools=[{"name": "f", "input_schema": OBJECT}]), "cannot be read"),
    (MESSAGES, messages(thinking={"type": "enabled", "budget_tokens": 1000}), "greater than or equal to 1024"),
    (MESSAGES, messages(thinking={"type": "enabled", "budget_tokens": 4000}), "must be greater than"),
    (MESSAGES, messages(thinking={"type": "adaptive"}, temperature=0.5), "may only be set to 1"),
    (MESSAGES, messages(USER, assistant(thought("sig-forged"), text("x")), USER), "Invalid `signature`"),
    (MESSAGES, messages(USER, assistant({"type": "redacted_thinking", "data": "z"}), USER), "Invalid `data`"),
    (MESSAGES, messages(user({"type": "image", "source": PNG | {"media_type": "image/bmp"}})), "media_type"),
    (MESSAGES, messages(user({"type": "image", "source": {"type": "url", "url": "data:x"}})), "HTTPS"),
    (MESSAGES, messages(user({"type": "image", "source": {"type": "data"}})), "Input tag 'data'"),
    (MESSAGES, messages(USER, assistant(use("t1"))), "without `tool_result` blocks immediately after: t1"),
    (MESSAGES, messages(USER, assistant(use("t1"), use("t2")), user(result("t1"))), "immediately after: t2"),
    (MESSAGES, messages(USER, assistant(use("t1")), USER, assistant(text("x")), user(result("t1"))), "immediately"),
    (MESSAGES, messages(user(result("t1"))), "unexpected `tool_use_id`"),
    (MESSAGES, messages(USER, assistant(use("t1")), user(text("x"), result("t1"))), "must come first"),
    (MESSAGES, messages(USER, assistant(use("t1", "a.b")), user(result("t1"))), "tool_use.name"),
    (COUNT, {"model": "m", "max_tokens": 5, "messages": [USER]}, "max_tokens: Extra inputs are not permitted"),
    (GOOGLE, {"contents": []}, "contents is not specified"),
    (GOOGLE, google(messages=[]), 'Unknown name "messages"'),
    (GOOGLE, google(generationConfig={"max_tokens": 5}), "Unknown name \"max_tokens\" at 'generation_config'"),
    (GOOGLE, google({"role": "user", "parts": [{"type": "text", "text": "x"}]}), 'Unknown name "type"'),
    (GOOGLE, google(generationConfig={"responseSchema": {"$ref": "#/x"}}), 'Unknown name "$ref"'),
    (GOOGLE, google(generationConfig={"stopSequences": list("abcdef")}), "stop_sequences"),
    (GOOGLE, google({"role": "assistant", "parts": [{"text": "x"}]}), "Please use a valid role"),
    (GOOGLE, google({"role": "user", "parts": []}), "parts must not be empty"),
    (GOOGLE, google({"role": "user", "parts": [{"thought": True}]}), "required oneof field 'data'"),
    (GOOGLE, google(said("x"), called("f"), answered("g")), "same names"),
    (GOOGLE, google(said("x"), called("f", "f"), answered("f")), "the number of function response parts"),
    (GOOGLE, google(said("x"), called("f"), said("y")), "the number of function response parts"),
    (GOOGLE, google(said("x"), answered("f")), "the number of function response parts"),
    (GOOGLE, google(said("x"), called("f")), "Please ensure"),
    (GOOGLE, google(tools=[{"functionDeclarations": [{"name": "a b"}]}]), "Invalid function name"),
    (CHAT, {"model": "m"}, "you must provide a messages parameter"),
    (CHAT, chat(response_format={"type": "xml"}), "Invalid value: 'xml'"),
    (CHAT, chat(image("https://example.org/a.png") | {"role": "system"}), "only allowed for messages with role 'user'"),
    (CHAT, chat(USER, {"role": "assistant", "tool_calls": [UNSAID]}, answering("c1")), "expected a string"),
    (RESPONSES, {"input": "x"}, "Missing required parameter: 'model'"),
    (RESPONSES, responses(previous_response_id="resp_1"), "Previous response with id 'resp_1' not found"),
    (RESPONSES, responses(tool_choice="required"), "Tool choice is only allowed"),
    (RESPONSES, responses(text={"format": {"type": "xml"}}), "Invalid value: 'xml'"),
    (RESPONSES, responses(call_item("c1") | {"arguments": {}}, output_item("c1")), "expected a string"),
    (RESPONSES, responses(call_item("c1"), {"type": "function_call_output", "call_id": "c1"}), "'input[1].output'"),
    (RESPONSES, responses({"role": "user"}), "Missing required parameter: 'input[0].content'"),
    (MESSAGES, messages(tools=ANY_TOOLS, tool_choice={"type": "required"}), "expected tags: 'auto', 'any'"),
    (MESSAGES, messages(thinking={"type": "on"}), "Input tag 'on'"),
    (MESSAGES, messages(thinking={"type": "adaptive", "budget_tokens": 2000}), "adaptive.budget_tokens: Extra inputs"),
    (MESSAGES, messages(user({"type": "text", "text": None})), "text: Input should be a valid string"),
    (MESSAGES, messages(USER, assistant(use("t1") | {"input": "{}"}), user(result("t1"))), "a valid dictionary"),
    (MESSAGES, messages(user({"text": "x"})), "Unable to extract tag"),
    (MESSAGES, messages(USER, assistant(use("t1")), user(result("t1"), result("t1"))), "a single result"),
    (GOOGLE, google({"role": "user", "parts": [{"inlineData": {"data": "AAAA"}}]}), "mime_type must be set"),
    (GOOGLE, google(called("f"), answered("f")), "immediately after a user turn"),
    (EMBEDDINGS, {"model": "m"}, "you must provide a model and an input"),
    (EMBEDDINGS, {"model": "m", "input": "x", "n": 2}, "Unknown parameter: 'n'"),
    (EMBEDDINGS, {"model": "m", "input": []}, "'$.input' is invalid"),
    (EMBEDDINGS, {"model": "m", "input": "x", "dimensions": 0}, "Invalid 'dimensions'"),
]

TAKEN: list[tuple[str, Json]] = [
    (CHAT, chat(x_new={"a": 1})),
    (CHAT, chat(USER, calling("c1", "c2"), answering("c2"), answering("c1"), USER, tools=chat_tool())),
    (CHAT, chat(image("https://example.org/a.png"))),
    (CHAT, chat({"role": "developer", "content": "x"}, USER, {"role": "assistant", "content": "y"}, USER)),
    (RESPONSES, responses(x_new=1)),
    (RESPONSES, responses({"type": "x_item", "of": 1}, USER)),
    (RESPONSES, responses(USER, call_item("c1"), call_item("c2"), output_item("c2"), output_item("c1"))),
    (RESPONSES, responses(client_metadata={}, tools=[{"type": "namespace", "name": "n", "tools": []}])),
    (MESSAGES, messages(x_new=1)),
    (MESSAGES, messages(context_management={}, container="c", mcp_servers=[], output_format=None, betas=[])),
    (MESSAGES, messages(max_tokens=0, temperature=0.5)),
    (MESSAGES, messages(USER, USER, {"role": "system", "content": "now"}, assistant(text("x")), USER)),
    (MESSAGES, messages(USER, assistant(use("t1"), use("t2")), user(result("t2")), user(result("t1"), text("x")))),
    (MESSAGES, messages(USER, assistant(thought(signature_of("hm")), text("x")), USER)),
    (MESSAGES, messages(tools=[{"type": "web_search_20250305", "name": "web_search"}])),
    (MESSAGES, messages(user({"type": "image", "source": PNG}, text("x")))),
    (GOOGLE, google(xUnknownField=1, x_new=2)),
    (GOOGLE, google(said("x"), said("y"), called("f", "g"), answered("g", "f"))),
    (GOOGLE, {"contents": [said("x")], "generation_config": {"max_output_tokens": 5}, "system_instruction": said("y")}),
]


def check_shape(path: str, reply: httpx2.Response) -> str:
    """The error is in the shape of the provider; its message."""
    body = reply.json()
    if path in (MESSAGES, COUNT):
        assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    elif path == GOOGLE:
        assert (body["error"]["code"], body["error"]["status"]) == (400, "INVALID_ARGUMENT")
    else:
        assert body["error"]["type"] == "invalid_request_error"
    return str(body["error"]["message"])


@pytest.mark.parametrize(("path", "body", "message"), REFUSED, ids=[f"{case[0]} {case[2]}" for case in REFUSED])
async def test_what_breaks_a_rule_is_refused(
    upstream: Upstream, http: httpx2.AsyncClient, path: str, body: Json, message: str
) -> None:
    reply = await http.post(path, json=body)
    assert reply.status_code == 400, reply.text
    assert message in check_shape(path, reply)
    assert upstream.requests[0].json == body


@pytest.mark.parametrize(("path", "body"), TAKEN)
async def test_what_keeps_the_rules_is_taken(http: httpx2.AsyncClient, path: str, body: Json) -> None:
    reply = await http.post(path, json=body)
    assert reply.status_code == 200, reply.text


async def test_thinking_and_a_forced_call_exclude_each_other_at_anthropic(http: httpx2.AsyncClient) -> None:
    forced = messages(tools=[{"name": "f", "input_schema": OBJECT}], tool_choice={"type": "any"})
    assert (await http.post(MESSAGES, json=forced)).status_code == 200
    reply = await http.post(MESSAGES, json=forced | {"thinking": {"type": "adaptive"}})
    assert (reply.status_code, "forces tool use" in reply.text) == (400, True)


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
async def test_the_newest_anthropic_version_knows_no_sampling(http: httpx2.AsyncClient, name: str) -> None:
    body = messages(**{name: 1})
    newest = {"anthropic-version": "2026-10-21"}
    assert (await http.post(MESSAGES, json=body, headers=newest)).status_code == 400
    assert (await http.post(MESSAGES, json=body)).status_code == 200


async def test_a_lenient_provider_takes_every_unknown_field() -> None:
    headers = {"authorization": "Bearer sk", "anthropic-version": "2026-10-21"}
    async with Upstream(lenient=True) as up, httpx2.AsyncClient(base_url=up.url, headers=headers) as http:
        for path, body in ((CHAT, chat(bogus=1)), (RESPONSES, responses(bogus=1)), (GOOGLE, google(bogus=1))):
            assert (await http.post(path, json=body)).status_code == 200
        assert (await http.post(MESSAGES, json=messages(bogus=1))).status_code == 200
        assert (await http.post(MESSAGES, json=messages(temperature=1))).status_code == 400
        assert (await http.post(CHAT, json=chat(USER, answering("c1")))).status_code == 400


async def test_a_version_must_be_named_to_anthropic(upstream: Upstream) -> None:
    async with httpx2.AsyncClient(base_url=upstream.url, headers={"x-api-key": "sk"}) as http:
        reply = await http.post(MESSAGES, json=messages())
    assert (reply.status_code, "anthropic-version" in reply.text) == (400, True)


@pytest.mark.parametrize("item", [{"type": "item_reference", "id": "rs_1"}, {"type": "reasoning", "summary": []}])
async def test_an_item_that_was_not_stored_is_not_found(http: httpx2.AsyncClient, item: Json) -> None:
    assert (await http.post(RESPONSES, json=responses(USER, item))).status_code == 404


async def test_what_is_embedded_at_google_is_there(http: httpx2.AsyncClient) -> None:
    assert (await http.post("/v1/models/e:embedContent", json={"taskType": "x"})).status_code == 400


async def test_an_unknown_parameter_and_an_unknown_response_have_openais_codes(http: httpx2.AsyncClient) -> None:
    unknown = (await http.post(CHAT, json=chat(bogus=1))).json()["error"]
    assert (unknown["code"], unknown["param"]) == ("unknown_parameter", "bogus")
    lost = (await http.post(RESPONSES, json=responses(previous_response_id="resp_1"))).json()["error"]
    assert (lost["code"], lost["param"]) == ("previous_response_not_found", "previous_response_id")


async def test_a_response_that_was_not_stored_cannot_be_continued(http: httpx2.AsyncClient) -> None:
    for store, status in ((True, 200), (False, 400)):
        first = (await http.post(RESPONSES, json=responses(store=store))).json()
        again = await http.post(RESPONSES, json=responses(previous_response_id=first["id"]))
        assert again.status_code == status


async def test_a_thought_comes_back_as_it_was_signed(upstream: Upstream, http: httpx2.AsyncClient) -> None:
    upstream.always(Answer(text="x", thinking="hm", signature="sig-own", redacted="zz"))
    given = (await http.post(MESSAGES, json=messages())).json()["content"]
    back = await http.post(MESSAGES, json=messages(USER, assistant(*given), USER))
    assert back.status_code == 200
    other = [{**given[0], "thinking": "something else"}, *given[1:]]
    assert (await http.post(MESSAGES, json=messages(USER, assistant(*other), USER))).status_code == 400


async def test_a_signed_function_call_comes_back_with_its_signature(
    upstream: Upstream, http: httpx2.AsyncClient
) -> None:
    upstream.always(Answer(thinking="hm", tool_calls=(ToolCall(name="f"),)))
    given = (await http.post(GOOGLE, json=google())).json()["candidates"][0]["content"]
    assert (await http.post(GOOGLE, json=google(said("x"), given, answered("f")))).status_code == 200
    bare = {**given, "parts": [{"functionCall": given["parts"][0]["functionCall"]}]}
    reply = await http.post(GOOGLE, json=google(said("x"), bare, answered("f")))
    assert (reply.status_code, "missing a thought_signature" in reply.text) == (400, True)
    forged = {**bare, "parts": [{**bare["parts"][0], "thoughtSignature": "Zm9yZ2Vk"}]}
    assert (await http.post(GOOGLE, json=google(said("x"), forged, answered("f")))).status_code == 400
    placeholder = {**bare, "parts": [{**bare["parts"][0], "thoughtSignature": "skip_thought_signature_validator"}]}
    assert (await http.post(GOOGLE, json=google(said("x"), placeholder, answered("f")))).status_code == 200


async def test_a_call_that_google_did_not_make_needs_no_signature_of_google(
    upstream: Upstream, http: httpx2.AsyncClient
) -> None:
    upstream.always(Answer(thinking="hm", tool_calls=(ToolCall(name="f"),)))
    body = {
        "model": "c",
        "max_tokens": 4000,
        "messages": [USER],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    await http.post(MESSAGES, json=body)  # the same call, of another provider
    called = {"name": "f", "args": {}}
    turn = {"role": "model", "parts": [{"functionCall": called}]}
    assert (await http.post(GOOGLE, json=google(said("x"), turn, answered("f")))).status_code == 200
    other = {"role": "model", "parts": [{"functionCall": {**called, "id": "toolu_1"}}]}
    assert (await http.post(GOOGLE, json=google(said("x"), other, answered("f")))).status_code == 200
    refused = await http.post(GOOGLE, json=google(said("x"), turn, answered("f")))
    assert refused.status_code == 400, "one like it has been signed by now, and this one has no id"
