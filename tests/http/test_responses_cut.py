"""A response that does not come to its end: what is kept and charged of it is what its client saw."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import orjson
import pytest
import pytest_asyncio

from tests.http.surface import books_are_right
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, CutAfter, ToolCall, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = 1_000_000
URL = "/v1/responses"
WORDS = ("one ", "two ", "three ", "four ", "five")
EVERY_MODEL = pytest.mark.parametrize("model", ["gpt-5.2", "claude-sonnet-5"], ids=["relayed", "translated"])
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}
THINKING = {"effort": "low", "summary": "auto"}


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(any_shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[RunningGateway]:
    yield any_shared_gateway
    await books_are_right(any_shared_gateway)


async def person_with(gateway: RunningGateway, credit: int) -> Person:
    person = await gateway.new_user(f"user-{uuid4()}")
    await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": credit})
    return person


async def heard(person: Person, until: str | None = None, **asked: Any) -> list[dict[str, Any]]:
    """The events of a stream, to its end or until the client hears these words and hangs up."""
    found: list[dict[str, Any]] = []
    async with person.http.stream("POST", URL, json={"input": "Count.", "stream": True, **asked}) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                found.append(orjson.loads(line.removeprefix("data: ")))
            if until is not None and words_in(found).endswith(until):
                break
    return found


def words_in(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def items_in(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What a client has of each item: its type, and its words."""
    kinds = {e["output_index"]: e["item"]["type"] for e in events if e["type"] == "response.output_item.added"}
    deltas = [event for event in events if "delta" in event]
    return [
        (kind, "".join(each["delta"] for each in deltas if each["output_index"] == index))
        for index, kind in sorted(kinds.items())
    ]


def items_of(response: dict[str, Any]) -> list[tuple[str, str]]:
    """The same of a response that is told again."""
    texts: dict[str, Callable[[dict[str, Any]], str]] = {
        "message": lambda item: "".join(part["text"] for part in item["content"]),
        "reasoning": lambda item: "".join(part["text"] for part in item["summary"]),
        "function_call": lambda item: item["arguments"],
    }
    return [(item["type"], texts[item["type"]](item)) for item in response["output"]]


async def told(person: Person, events: list[dict[str, Any]]) -> dict[str, Any]:
    """The response once it is settled."""
    async with asyncio.timeout(10):
        while (await person.http.get("/api/v1/users/me/tokens")).json()["held"]:
            await asyncio.sleep(0.01)
    found: dict[str, Any] = (await person.http.get(f"{URL}/{events[0]['response']['id']}")).json()
    return found


async def spent(person: Person, credit: int = CREDIT) -> int:
    return credit - int((await person.http.get("/api/v1/users/me/tokens")).json()["balance"])


@EVERY_MODEL
async def test_where_its_client_hangs_up_it_is_cancelled(
    model: str, gateway: RunningGateway, upstream: Upstream
) -> None:
    person = await person_with(gateway, CREDIT)
    gate = asyncio.Event()
    upstream.always(Answer(chunks=WORDS, thinking="hm hm", gate=gate, gate_after=3))
    events = await heard(person, "three ", model=model, reasoning=THINKING)
    await upstream.requests[-1].wait_disconnected()
    response = await told(person, events)
    assert (response["status"], items_of(response)) == ("cancelled", items_in(events))
    assert items_of(response) == [("reasoning", "hm hm"), ("message", "one two three ")]
    assert await spent(person) == response["usage"]["total_tokens"] > 0


@EVERY_MODEL
async def test_where_its_provider_breaks_off_it_has_failed(
    model: str, gateway: RunningGateway, upstream: Upstream
) -> None:
    person = await person_with(gateway, CREDIT)
    upstream.always(CutAfter(3, Answer(chunks=WORDS, thinking="hm hm")))
    events = await heard(person, model=model, reasoning=THINKING)
    assert events[-1]["type"] == "response.failed"
    response = await told(person, events)
    assert (response["status"], items_of(response)) == ("failed", items_in(events))
    assert items_of(response)[-1] == ("message", "one two three ")
    assert await spent(person) == response["usage"]["total_tokens"] > 0
    upstream.always(Answer(text="Fine."))
    before = {"previous_response_id": response["id"]}
    for other in ("gpt-5.2", "claude-sonnet-5", "gemini-2.5-flash"):
        on = await person.http.post(URL, json={"model": other, "input": "On.", **before})
        assert on.status_code == 200, on.text
        assert "one two three" in str(upstream.requests[-1].json)


@EVERY_MODEL
async def test_where_its_quota_is_used_up_it_is_incomplete(
    model: str, gateway: RunningGateway, upstream: Upstream
) -> None:
    name, credit = f"{model}-{uuid4()}", 200
    provider = "openai" if model.startswith("gpt") else "anthropic"
    body = {"name": name, "provider": provider, "upstream": model, "context_window": 10_000, "max_output": 400}
    made = await gateway.http.post(
        "/api/v1/admin/models", json={**body, "output_reserve": 40, "price": {"input": 1, "output": 2}}
    )
    assert made.status_code in (200, 201), made.text
    person = await person_with(gateway, credit)
    upstream.always(Answer(text="word " * 300, thinking="hm hm", chunk_delay_s=0.0005))
    events = await heard(person, model=name)
    assert events[-1]["type"] == "response.incomplete"
    response = await told(person, events)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert items_of(response) == items_in(events) == items_of(events[-1]["response"])
    assert [item["id"] for item in response["output"]] == [item["id"] for item in events[-1]["response"]["output"]]
    assert 40 < await spent(person, credit) <= credit


async def test_messages_that_came_before_its_provider_broke_off_stay_as_many(
    gateway: RunningGateway, upstream: Upstream
) -> None:
    person = await person_with(gateway, CREDIT)
    said = {"type": "output_text", "text": "two", "annotations": [{"type": "file_path", "file_id": "f", "index": 0}]}
    second: dict[str, Any] = {"type": "message", "id": "msg_000000001", "role": "assistant", "status": "completed"}
    second |= {
        "phase": "final_answer",
        "content": [{**said, "logprobs": []}, {**said, "text": "three", "logprobs": []}],
    }
    upstream.always(Answer(text="one", extra_items=(second,), last_word=False))
    events = await heard(person, model="gpt-5.2")
    assert events[-1]["type"] == "response.failed"
    response = await told(person, events)
    assert items_of(response) == items_in(events) == [("message", "one"), ("message", "twothree")]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [{**item, "status": None} for item in response["output"]] == [{**item, "status": None} for item in done]


async def test_calls_of_tools_that_came_are_kept_and_do_not_stand_in_the_way(
    gateway: RunningGateway, upstream: Upstream
) -> None:
    person = await person_with(gateway, CREDIT)
    calls = (ToolCall(name="look", arguments={"q": "x" * 20}), ToolCall(name="look", arguments={"q": "y" * 20}))
    upstream.always(Answer(chunks=("Let ", "me "), tool_calls=calls, last_word=False))
    events = await heard(person, model="gpt-5.2", tools=[TOOL])
    response = await told(person, events)
    assert (response["status"], items_of(response)) == ("failed", items_in(events))
    assert [item["type"] for item in response["output"]] == ["message", "function_call", "function_call"]
    upstream.always(Answer(text="Fine."))
    before = {"previous_response_id": response["id"]}
    for other in ("gpt-5.2", "claude-sonnet-5", "gemini-2.5-flash"):
        on = await person.http.post(URL, json={"model": other, "input": "On.", "tools": [TOOL], **before})
        assert on.status_code == 200, on.text
        said = str(upstream.requests[-1].json)
        assert ("Let me" in said, "xxxx" in said) == (True, False)
    result = {"type": "function_call_output", "call_id": response["output"][1]["call_id"], "output": "42"}
    asked = {"model": "claude-sonnet-5", "input": [result], "tools": [TOOL], **before}
    answered = await person.http.post(URL, json=asked)
    assert answered.status_code == 200, answered.text
    said = str(upstream.requests[-1].json)
    assert ("xxxx" in said, "yyyy" in said, "42" in said) == (True, False, True)
