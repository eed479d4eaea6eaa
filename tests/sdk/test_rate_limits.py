"""Stock clients that meet a rate limit: they raise what they raise for the provider's own, or wait as long as told."""

import asyncio
from typing import Any

import anthropic
import anyio
import openai
import pytest

from tests.sdk.conftest import Scene
from tests.support.gateway import Person
from tests.support.upstream import Answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS = ("openai", "anthropic")
ERRORS = {"openai": openai.RateLimitError, "anthropic": anthropic.RateLimitError}
PREFIX = {"openai": "x-ratelimit-remaining-requests", "anthropic": "anthropic-ratelimit-requests-remaining"}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the clients wait before they try again: not at all, here."""
    found: list[float] = []

    async def sleep(delay_s: float) -> None:
        found.append(delay_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return found


async def limited(scene: Scene, **limits: int) -> Person:
    person = await scene.person()
    put = await scene.gateway.http.patch(f"/api/v1/admin/users/{person.id}/limits", json=limits)
    assert put.status_code == 200, put.text
    return person


async def creator(scene: Scene, person: Person, kind: str, **options: Any) -> Any:
    """The call of the client that makes an answer."""
    if kind == "openai":
        return (await scene.openai(person, **options)).chat.completions
    return (await scene.anthropic(person, **options)).messages


def question(kind: str) -> dict[str, Any]:
    model = "gpt-4o" if kind == "openai" else "claude-sonnet-5"
    return {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_limit_is_a_rate_limit_error(scene: Scene, kind: str, stream: bool) -> None:
    person = await limited(scene, requests_per_minute=1)
    create = await creator(scene, person, kind, max_retries=0)
    first = await create.with_raw_response.create(**question(kind))
    assert first.headers[PREFIX[kind]] == "0"
    with pytest.raises(ERRORS[kind]) as refused:
        await create.create(**question(kind), stream=stream)
    assert refused.value.status_code == 429
    assert int(refused.value.response.headers["retry-after"]) <= 61
    if kind == "openai":
        assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")


@pytest.mark.parametrize("kind", CLIENTS)
async def test_clients_wait_as_long_as_they_are_told(scene: Scene, kind: str, waits: list[float]) -> None:
    person = await limited(scene, requests_per_minute=1)
    create = await creator(scene, person, kind)
    await create.create(**question(kind))
    with pytest.raises(ERRORS[kind]) as refused:
        await create.create(**question(kind))
    assert len(scene.sent) == 4, "one that passed, one that did not, and two retries"
    assert len(waits) == 2
    assert all(50 < wait_s <= 61 for wait_s in waits)
    assert waits[-1] >= int(refused.value.response.headers["retry-after-ms"]) / 1000


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_retry_passes_when_there_is_room_again(scene: Scene, kind: str, waits: list[float]) -> None:
    person, gate = await limited(scene, parallel=1), asyncio.Event()
    create = await creator(scene, person, kind, max_retries=100)
    scene.upstream.script(Answer(text="first", gate=gate))
    under_way = asyncio.create_task(create.create(**question(kind)))
    await scene.upstream.wait_in_flight(1)
    waiting = asyncio.create_task(create.create(**question(kind)))
    async with asyncio.timeout(10):
        while not waits:
            await asyncio.sleep(0.001)
    gate.set()
    await asyncio.gather(under_way, waiting)
    assert set(waits) == {1.0}
