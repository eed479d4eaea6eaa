"""What a client of Anthropic's says to Anthropic, and what that answers, passes the gateway byte for byte."""

import json
from typing import Any

import pytest

from tests.sdk.conftest import Scene
from tests.support.upstream import Answer, Fail, Mind, Usage, signature_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SONNET = "claude-sonnet-5"
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": signature_of("hm")}
CLAUDE_CODE: dict[str, Any] = {
    "model": SONNET,
    "max_tokens": 32_000,
    "stream": True,
    "system": [
        {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                THOUGHT,
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "/etc/hosts"}, "x_new": 1},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [
                        {"type": "text", "text": "127.0.0.1"},
                        {"type": "tool_reference", "tool_name": "Grep"},
                    ],
                },
                {"type": "x_block_of_the_future", "deep": {"er": [1, 2.5, None, True]}},
            ],
        },
    ],
    "tools": [
        {"name": "Read", "input_schema": {"type": "object", "properties": {}}, "eager_input_streaming": True},
        {"type": "web_search_20260318", "name": "web_search", "max_uses": 5},
        {"type": "x_toolset_of_the_future", "anything": {}},
    ],
    "thinking": {"type": "enabled", "budget_tokens": 31_999},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "metadata": {"user_id": json.dumps({"session_id": "s1"})},
    "output_config": {"effort": "high", "x_mood": "kind"},
    "mcp_servers": [{"type": "url", "url": "https://mcp.test", "name": "m"}],
    "x_future_field": {"a": [1]},
}
HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
    "anthropic-future": "yes",
    "anthropic-dangerous-direct-browser-access": "true",
    "anthropic-workspace-id": "wrkspc_of_somebody_else",
    "x-claude-code-session-id": "s1",
    "x-app": "cli",
}
OWN_EVENTS = (
    {"type": "x_event_of_the_future", "payload": {"a": 1}},
    {"type": "ping"},
)


async def test_what_claude_code_sends_reaches_anthropic_unchanged(scene: Scene) -> None:
    person = await scene.person()
    http = scene.gateway.client(None)
    answered = await http.post(
        "/v1/messages?beta=true", headers={**HEADERS, "x-api-key": person.secret}, json=CLAUDE_CODE
    )
    assert answered.status_code == 200, answered.text
    (sent,) = scene.upstream.requests
    assert sent.json == CLAUDE_CODE
    told = {name: sent.headers[name] for name in HEADERS if name in sent.headers}
    assert told == {name: HEADERS[name] for name in ("anthropic-version", "anthropic-beta", "anthropic-future")}
    assert person.secret not in str(sent.headers)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_what_anthropic_answers_reaches_the_client_unchanged(scene: Scene, stream: bool) -> None:
    own = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    answer = Answer(
        text="so ",
        thinking="hm",
        redacted="secret",
        extra_items=(own, {"type": "x_block_of_the_future", "deep": {"er": [1, None]}}),
        extra_fields={"x_new": {"a": 1}, "context_management": {"applied_edits": []}},
        extra_events=OWN_EVENTS if stream else (),
        usage=Usage(input=9, output=3),
    )
    body = {"model": SONNET, "max_tokens": 99, "messages": HELLO, "stream": stream}
    headers = {"anthropic-version": "2026-10-21"}
    scene.upstream.always(answer)
    through = await scene.gateway.http.post("/v1/messages", json=body, headers=headers)
    async with scene.gateway.client("any") as http:
        direct = await http.post(f"{scene.upstream.anthropic_base_url}/v1/messages", json=body, headers=headers)
    assert through.status_code == direct.status_code == 200
    ids = [_message_id(each.text) for each in (through, direct)]
    assert through.content == direct.content.replace(ids[1].encode(), ids[0].encode())
    assert through.headers["content-type"] == direct.headers["content-type"]


def _message_id(text: str) -> str:
    """Each answer of the scripted provider has its own."""
    return "msg_" + text.partition('"msg_')[2].partition('"')[0]


async def test_a_body_without_version_goes_by_the_one_that_everybody_knows(scene: Scene) -> None:
    body = {"model": SONNET, "max_tokens": 99, "messages": HELLO}
    assert (await scene.gateway.http.post("/v1/messages", json=body)).status_code == 200
    assert scene.upstream.requests[0].headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_probe_of_the_address_is_answered_without_a_key(scene: Scene, method: str) -> None:
    answered = await scene.gateway.client(None).request(method, "/")
    assert answered.status_code == 200
    assert (answered.content == b"") == (method == "HEAD")


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
async def test_the_key_comes_in_either_header(scene: Scene, header: str) -> None:
    person = await scene.person()
    given = {header: person.secret if header == "x-api-key" else f"Bearer {person.secret}"}
    body = {"model": SONNET, "max_tokens": 99, "messages": HELLO}
    answered = await scene.gateway.client(None).post("/v1/messages", headers=given, json=body)
    assert answered.status_code == 200
    refused = await scene.gateway.client(None).post("/v1/messages", headers={header: "nonsense"}, json=body)
    assert refused.status_code == 401
    assert refused.json()["error"]["type"] == "authentication_error"


class TestCounting:
    async def test_anthropic_counts_for_its_own_models(self, scene: Scene) -> None:
        client = await scene.anthropic(_strict_response_validation=True)
        tools: list[Any] = [{"name": "weather", "input_schema": {"type": "object"}}]
        answered = await client.messages.with_raw_response.count_tokens(
            model=SONNET, messages=HELLO, system="Be brief.", tools=tools, thinking={"type": "disabled"}
        )
        assert (await answered.parse()).input_tokens == 4
        assert "x-gateway-estimated" not in answered.headers
        (sent,) = scene.upstream.requests
        assert sent.path == "/v1/messages/count_tokens"
        assert sent.json["tools"] == tools
        assert sent.headers["anthropic-version"] == scene.sent[-1].headers["anthropic-version"]

    @pytest.mark.parametrize("model", ["gpt-4o", "gemini-2.5-flash"])
    async def test_for_others_the_gateway_estimates_and_says_so(self, scene: Scene, model: str) -> None:
        client = await scene.anthropic(_strict_response_validation=True)
        answered = await client.messages.with_raw_response.count_tokens(model=model, messages=HELLO)
        assert 2 <= (await answered.parse()).input_tokens <= 20
        assert answered.headers["x-gateway-estimated"] == "true"
        assert answered.headers["x-gateway-model"] == model
        assert scene.upstream.requests == []

    async def test_where_anthropic_does_not_count_the_gateway_estimates(self, scene: Scene) -> None:
        answered = await scene.gateway.http.post(
            "/v1/messages/count_tokens?beta=true", json={"model": SONNET, "messages": HELLO, "nonsense": 1}
        )
        assert answered.status_code == 200
        assert answered.headers["x-gateway-estimated"] == "true"
        assert len(scene.upstream.requests) == 1

    async def test_the_beta_client_counts_too(self, scene: Scene) -> None:
        client = await scene.anthropic(_strict_response_validation=True)
        counted = await client.beta.messages.count_tokens(model=SONNET, messages=HELLO, betas=["mine"])
        assert counted.input_tokens == 2
        assert scene.upstream.requests[0].headers["anthropic-beta"].startswith("mine,")

    async def test_it_is_free_and_needs_no_credit(self, scene: Scene) -> None:
        person = await scene.person(credit=1)
        client = await scene.anthropic(person)
        for model in (SONNET, "gpt-4o"):
            await client.messages.count_tokens(model=model, messages=HELLO)
        assert await scene.standing(person) == (1, 0)

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"model": SONNET}, 400),
            ({"messages": HELLO}, 400),
            ({"model": "gpt-99", "messages": HELLO}, 404),
            ({"model": SONNET, "messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400),
        ],
    )
    async def test_what_is_wrong_is_refused_in_the_dialect(self, scene: Scene, body: Any, status: int) -> None:
        answered = await scene.gateway.http.post("/v1/messages/count_tokens", json=body)
        assert answered.status_code == status
        assert answered.json()["type"] == "error"
        assert scene.upstream.requests == []

    async def test_nobody_counts_without_a_key_or_beyond_its_models(self, scene: Scene) -> None:
        body = {"model": SONNET, "messages": HELLO}
        answered = await scene.gateway.client(None).post("/v1/messages/count_tokens", json=body)
        assert answered.status_code == 401
        scoped = await scene.person(models=["gpt-4o"])
        answered = await scoped.http.post("/v1/messages/count_tokens", json=body)
        assert answered.status_code == 403
        assert scene.upstream.requests == []


async def test_an_error_of_anthropics_is_told_in_its_words(scene: Scene) -> None:
    scene.upstream.always(Fail(status=400, message="messages.0: that is not how it goes"))
    body = {"model": SONNET, "max_tokens": 99, "messages": HELLO}
    answered = await scene.gateway.http.post("/v1/messages", json=body)
    assert (answered.status_code, answered.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "that is not how it goes" in answered.json()["error"]["message"]


async def test_relayed_thoughts_come_back_to_anthropic(scene: Scene) -> None:
    scene.upstream.always(Mind())
    client = await scene.anthropic(_strict_response_validation=True)
    given: dict[str, Any] = {"model": SONNET, "max_tokens": 99, "thinking": {"type": "adaptive"}}
    message = await client.messages.create(messages=HELLO, **given)
    assert message.content[0].type == "thinking"
    again = await client.messages.create(messages=[*HELLO, message.to_param(), *HELLO], **given)
    assert again.content[-1].type == "text"
    assert scene.upstream.requests[-1].json["messages"][1]["content"][0]["type"] == "thinking"
