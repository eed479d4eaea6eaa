"""Nothing is left out in silence, whoever answers: a header names what a relay or a translation did not tell."""

from typing import Any

import pytest
from google.genai import types

from tests.sdk.conftest import Scene
from tests.support.upstream import Answer, Mind, ToolCall

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLAUDE, GPT, GEMINI = "claude-haiku-4-5", "gpt-5", "gemini-2.5-flash"
WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}


async def told(scene: Scene, path: str, body: dict[str, Any]) -> str | None:
    """The header of an answer, which must be one."""
    answered = await scene.gateway.http.post(path, json=body)
    assert answered.status_code == 200, answered.text
    assert '"error":{' not in answered.text
    return answered.headers.get("x-gateway-dropped-params")


@WAYS
async def test_what_anthropic_itself_is_not_told_is_named(scene: Scene, stream: bool) -> None:
    scene.upstream.always(Mind())
    hello = {"role": "user", "content": "call it"}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    asked: dict[str, Any] = {"max_tokens": 4000, "thinking": thinking, "tools": [WEATHER]}
    first = await scene.gateway.http.post("/v1/messages", json={"model": GEMINI, "messages": [hello], **asked})
    thought, call = first.json()["content"]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "cold"}
    said = [hello, {"role": "assistant", "content": [thought, call]}, {"role": "user", "content": [result]}]
    body = {"model": CLAUDE, "max_tokens": 4000, "messages": said, "tools": [WEATHER], "stream": stream}
    assert await told(scene, "/v1/messages", body) == "thinking", "a thought of another model"
    assert await told(scene, "/v1/messages", {**body, "messages": [hello]}) is None
    signed = {**call, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    said[1] = {"role": "assistant", "content": [signed]}
    assert await told(scene, "/v1/messages", body) is None, "only Google would miss it"
    assert await told(scene, "/v1/messages", {**body, "thinking": thinking}) == "thinking", "it is switched off"
    assert "thinking" not in scene.upstream.requests[-1].json
    fallbacks = {**body, "messages": [hello], "fallbacks": [{"model": "claude-opus-4-8"}]}
    assert await told(scene, "/v1/messages", fallbacks) == "fallbacks"
    assert "fallbacks" not in scene.upstream.requests[-1].json


@WAYS
async def test_thinking_that_a_small_quota_leaves_no_room_for_is_named(scene: Scene, stream: bool) -> None:
    person = await scene.person(credit=900)
    body = {"model": CLAUDE, "max_tokens": 4000, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    body["thinking"] = {"type": "enabled", "budget_tokens": 2000}
    answered = await scene.gateway.client(person.secret).post("/v1/messages", json=body)
    assert answered.status_code == 200, answered.text
    assert int(answered.headers["x-gateway-output-cap"]) < 900
    assert "thinking" not in scene.upstream.requests[-1].json
    assert answered.headers["x-gateway-dropped-params"] == "thinking"


@WAYS
async def test_what_google_itself_is_not_told_is_named(scene: Scene, stream: bool) -> None:
    client = await scene.google()
    scene.upstream.always(Answer(text="so", thinking="hm"))
    thinking = types.ThinkingConfig(thinking_budget=1024, include_thoughts=True)
    chat = client.chats.create(model=CLAUDE, config=types.GenerateContentConfig(thinking_config=thinking))
    await chat.send_message("hello")
    history = [content.model_dump(mode="json", exclude_none=True) for content in chat.get_history()]
    again = [*history, {"role": "user", "parts": [{"text": "and now?"}]}]
    way = "streamGenerateContent?alt=sse" if stream else "generateContent"
    assert await told(scene, f"/v1beta/models/{GEMINI}:{way}", {"contents": again}) == "thought"
    assert [len(content["parts"]) for content in scene.upstream.requests[-1].json["contents"]] == [1, 1, 1]


@WAYS
async def test_what_openai_itself_is_not_told_of_a_conversation_is_named(scene: Scene, stream: bool) -> None:
    scene.upstream.always(Answer(text="so", thinking="hm"))
    asked: dict[str, Any] = {"input": "hello", "reasoning": {"effort": "low", "summary": "auto"}}
    first = (await scene.gateway.http.post("/v1/responses", json={"model": CLAUDE, **asked})).json()
    assert [item["type"] for item in first["output"]] == ["reasoning", "message"]
    after = {"model": GPT, "input": "and now?", "previous_response_id": first["id"], "stream": stream}
    assert await told(scene, "/v1/responses", after) == "reasoning"
    kept = {"model": GPT, "input": [*first["output"], {"role": "user", "content": "and now?"}], "stream": stream}
    assert await told(scene, "/v1/responses", kept) == "reasoning"


@WAYS
@pytest.mark.parametrize("model", [CLAUDE, GEMINI, "gpt-4o@chat"])
async def test_what_only_openai_can_say_of_a_conversation_is_left_out_and_named(
    scene: Scene, model: str, stream: bool
) -> None:
    search: dict[str, Any] = {"type": "web_search_call", "id": "ws_0123456789", "status": "completed"}
    search |= {"action": {"type": "search", "query": "q"}}
    scene.upstream.always(Answer(text="so", extra_items=(search,)))
    first = (await scene.gateway.http.post("/v1/responses", json={"model": GPT, "input": "hello"})).json()
    assert [item["type"] for item in first["output"]] == ["message", "web_search_call"]
    scene.upstream.always(Answer(text="so", tool_calls=(ToolCall(name="look"),)))
    background = model == "gpt-4o@chat"  # which is always translated
    after: dict[str, Any] = {"model": model.partition("@")[0], "input": "and now?", "previous_response_id": first["id"]}
    after |= {"stream": stream, "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}]}
    if background:
        answered = await scene.gateway.http.post("/v1/responses", json={**after, "background": True, "stream": True})
        assert "response.completed" in answered.text
    else:
        assert await told(scene, "/v1/responses", after) == "items[web_search_call]"
    assert "web_search" not in scene.upstream.requests[-1].body.decode()
    again = {"model": after["model"], "input": [search, {"role": "user", "content": "hi"}], "background": background}
    refused = await scene.gateway.http.post("/v1/responses", json=again)
    assert refused.status_code == 400
    assert "web_search_call" in refused.json()["error"]["message"]


@WAYS
@pytest.mark.parametrize("model", [GEMINI, "gpt-4o", CLAUDE])
async def test_what_anthropics_own_tools_did_is_left_out_and_named(scene: Scene, model: str, stream: bool) -> None:
    ran = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    ]
    said = {"role": "assistant", "content": [*ran, {"type": "text", "text": "so"}]}
    talk = [{"role": "user", "content": "hello"}, said, {"role": "user", "content": "and now?"}]
    body = {"model": model, "max_tokens": 50, "messages": talk, "stream": stream}
    named = await told(scene, "/v1/messages", body)
    assert named == (None if model == CLAUDE else "items[server_tool_use],items[web_search_tool_result]")
    assert (b"web_search" in scene.upstream.requests[-1].body) == (model == CLAUDE)


@pytest.mark.parametrize(("model", "most"), [(GEMINI, 5), ("gpt-4o", 4)])
async def test_more_stop_sequences_than_the_provider_takes_are_refused_before_the_call(
    scene: Scene, model: str, most: int
) -> None:
    body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    stops = list("abcdefg")
    assert await told(scene, "/v1/messages", {**body, "stop_sequences": stops[:most]}) is None
    calls = len(scene.upstream.requests)
    refused = await scene.gateway.http.post("/v1/messages", json={**body, "stop_sequences": stops[: most + 1]})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    assert f"at most {most} stop sequences" in refused.json()["error"]["message"]
    assert len(scene.upstream.requests) == calls


async def test_a_picture_that_the_clients_dialect_has_no_place_for_is_named(scene: Scene) -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0K"}}
    scene.upstream.always(Answer(text="Here it is.", extra_items=(picture,)))
    messages = [{"role": "user", "content": "Draw."}]
    for path in ("/v1/chat/completions", "/v1/messages"):
        body = {"model": GEMINI, "messages": messages, "max_tokens": 100}
        assert await told(scene, path, body) == "answer[inlineData]"
    own = {"contents": [{"parts": [{"text": "Draw."}]}]}
    assert await told(scene, f"/v1beta/models/{GEMINI}:generateContent", own) is None
