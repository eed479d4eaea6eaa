"""The main job, end to end, on both databases: talk, come back, see what it cost."""

import asyncio
import json

from tests.support.gateway import RunningGateway
from tests.support.upstream import Answer, CutAfter, Fail, Upstream, Usage


def events_of(text: str) -> list[tuple[str, dict]]:
    """(event, data) of a server-sent stream."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in lines:
            found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


async def test_a_dialog_is_kept_and_every_token_is_accounted(any_gateway: RunningGateway, upstream: Upstream) -> None:
    alice = await any_gateway.new_user("alice")
    top_up = await any_gateway.http.post(f"/api/v1/admin/users/{alice.id}/tokens", json={"amount": 10_000})
    assert top_up.status_code == 200
    assert top_up.json()["balance"] == 10_000

    upstream.always(Answer(text="Four.", usage=Usage(input=20, output=5)))
    dialog = await alice.http.post(
        "/api/v1/dialogs", json={"title": "Sums", "model": "gpt-4o", "system_prompt": "Be brief."}
    )
    assert dialog.status_code == 201
    dialog_id = dialog.json()["id"]
    sent = await alice.http.post(f"/api/v1/dialogs/{dialog_id}/messages", json={"content": "Two and two?"})
    assert sent.status_code == 201, sent.text
    message = sent.json()["message"]
    assert message["content"] == "Four."
    assert message["status"] == "completed"
    assert message["usage"] == {
        "input_tokens": 20,
        "output_tokens": 5,
        "total_tokens": 25,
        "cached_tokens": 0,
        "estimated": False,
    }
    assert message["cost_micro_usd"] == 100  # 20 x 2.5 + 5 x 10
    assert message["parent_id"] == sent.json()["user_message"]["id"]

    second = await alice.http.post(f"/api/v1/dialogs/{dialog_id}/messages", json={"content": "Sure?"})
    assert second.status_code == 201
    asked = [message["content"] for message in upstream.requests[-1].json["messages"]]
    assert asked == ["Be brief.", "Two and two?", "Four.", "Sure?"]

    kept = (await alice.http.get(f"/api/v1/dialogs/{dialog_id}/messages")).json()
    assert [each["content"] for each in kept["data"]] == ["Two and two?", "Four.", "Sure?", "Four."]
    standing = (await alice.http.get("/api/v1/users/me/tokens")).json()
    assert (standing["balance"], standing["total_used"], standing["held"]) == (9_950, 50, 0)
    entries = (await alice.http.get("/api/v1/users/me/tokens/history")).json()["data"]
    assert [(entry["kind"], entry["amount"]) for entry in entries] == [
        ("charge", -25),
        ("charge", -25),
        ("top_up", 10_000),
    ]
    assert entries[0]["message_id"] == second.json()["message"]["id"]


async def test_a_streamed_answer_is_settled_before_its_last_event(
    any_gateway: RunningGateway, upstream: Upstream
) -> None:
    bob = await any_gateway.new_user("bob")
    await any_gateway.http.post(f"/api/v1/admin/users/{bob.id}/tokens", json={"amount": 1000})
    upstream.always(Answer(chunks=["Hel", "lo"], usage=Usage(input=7, output=2)))
    dialog_id = (await bob.http.post("/api/v1/dialogs", json={"model": "claude-3-opus"})).json()["id"]
    body = {"content": "Hi", "stream": True}
    async with bob.http.stream("POST", f"/api/v1/dialogs/{dialog_id}/messages", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = events_of((await response.aread()).decode())
    assert [name for name, _ in events] == ["message.created", "message.delta", "message.delta", "message.completed"]
    assert events[-1][1]["message"]["content"] == "Hello"
    assert (await bob.http.get("/api/v1/users/me/tokens")).json()["balance"] == 991


async def test_parallel_calls_cannot_spend_more_than_there_is(any_gateway: RunningGateway, upstream: Upstream) -> None:
    carol = await any_gateway.new_user("carol")
    await any_gateway.http.post(f"/api/v1/admin/users/{carol.id}/tokens", json={"amount": 400})
    upstream.always(Answer(text="ok", usage=Usage(input=10, output=20), delay_s=0.2))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "max_tokens": 60}
    answers = await asyncio.gather(*(carol.http.post("/v1/chat/completions", json=body) for _ in range(12)))
    statuses = sorted(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429}
    spent = sum(answer.json()["usage"]["total_tokens"] for answer in answers if answer.status_code == 200)
    standing = (await carol.http.get("/api/v1/users/me/tokens")).json()
    assert (standing["balance"], standing["held"]) == (400 - spent, 0)
    assert spent <= 400
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"


async def test_a_chain_falls_back_and_a_failed_call_costs_nothing(
    any_gateway: RunningGateway, upstream: Upstream
) -> None:
    chain = await any_gateway.http.post(
        "/api/v1/admin/chains", json={"name": "smart", "models": ["gpt-4o", "claude-3-opus"]}
    )
    assert chain.status_code in (200, 201), chain.text
    upstream.always(Fail(status=503), model="gpt-4o")
    body = {"model": "smart", "messages": [{"role": "user", "content": "x"}]}
    answer = await any_gateway.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gateway-model"] == "claude-3-opus"
    assert answer.headers["x-gateway-attempts"] == "2"

    alone = await any_gateway.http.post("/v1/chat/completions", json={**body, "model": "gpt-4o"})
    assert alone.status_code == 502
    assert alone.json()["error"]["type"] == "api_error"


async def test_a_stream_that_breaks_says_so_and_charges_what_was_delivered(
    gateway: RunningGateway, upstream: Upstream
) -> None:
    dave = await gateway.new_user("dave")
    await gateway.http.post(f"/api/v1/admin/users/{dave.id}/tokens", json={"amount": 1000})
    upstream.always(CutAfter(chunks=3))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "one two three four five six"}], "stream": True}
    async with dave.http.stream("POST", "/v1/chat/completions", json=body) as response:
        events = events_of((await response.aread()).decode())
    assert "error" in events[-1][1]
    spent = 1000 - (await dave.http.get("/api/v1/users/me/tokens")).json()["balance"]
    assert 0 < spent < 100
