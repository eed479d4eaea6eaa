"""The scripted provider's worst behaviours look on the wire as they should."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from tests.support.upstream import Answer, Behaviour, Drip, Garbage, Interject, LyingLength, Upstream, gzip_bomb

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello there"}]}


@pytest_asyncio.fixture
async def http(upstream: Upstream) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        base_url=upstream.url, headers={"authorization": "Bearer sk", "accept-encoding": "identity"}, timeout=5
    ) as client:
        yield client


async def ask(http: httpx2.AsyncClient, *, stream: bool = False) -> bytes:
    async with http.stream("POST", "/v1/chat/completions", json={**ASKED, "stream": stream}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream" if stream else "application/json")
        return b"".join([piece async for piece in response.aiter_raw()])


async def test_what_is_interjected_stands_between_events(upstream: Upstream, http: httpx2.AsyncClient) -> None:
    upstream.always(Interject(opening=b"<", piece=b"o", times=3, after=2))
    before, _, after = (await ask(http, stream=True)).partition(b"<ooo")
    assert (before.count(b"data:"), before[-2:]) == (3, b"\n\n")
    assert after.endswith(b"data: [DONE]\n\n")
    assert (await ask(http)).startswith(b'<ooo{"id"')


async def test_an_interjection_without_number_ends_with_its_listener(
    upstream: Upstream, http: httpx2.AsyncClient
) -> None:
    upstream.always(Interject(piece=b": nothing\n\n", every_s=0.001))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await ask(http, stream=True)
    await upstream.requests[0].wait_disconnected()


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_drips_arrives(upstream: Upstream, http: httpx2.AsyncClient, head: bool, stream: bool) -> None:
    upstream.always(Drip(size=50, every_s=0.001, head=head, answer=Answer(text="drop by drop")))
    assert b"drop" in await ask(http, stream=stream)
    await upstream.requests[0].wait_finished()


@pytest.mark.parametrize("more", [-20, 20])
async def test_a_length_lies(upstream: Upstream, http: httpx2.AsyncClient, more: int) -> None:
    upstream.always(LyingLength(more))
    if more < 0:
        assert not (await ask(http)).endswith(b"}}}")
        return
    with pytest.raises(httpx2.ReadTimeout):
        await http.post("/v1/chat/completions", json=ASKED, timeout=0.2)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bomb_is_small_until_it_is_opened(upstream: Upstream, http: httpx2.AsyncClient, stream: bool) -> None:
    upstream.always(gzip_bomb(1))
    bomb = await ask(http, stream=stream)
    assert len(bomb) < 10_000
    assert len(gzip.decompress(bomb)) > 1024 * 1024


@pytest.mark.parametrize(
    ("behaviour", "last", "says_why"),
    [
        (Answer(finish="none"), b"data: [DONE]\n\n", False),
        (Answer(last_word=False), b"}\n\n", True),
        (Answer(finish="none", last_word=False), b"}\n\n", False),
    ],
)
async def test_an_end_may_lack_its_words(
    upstream: Upstream, http: httpx2.AsyncClient, behaviour: Behaviour, last: bytes, says_why: bool
) -> None:
    upstream.always(behaviour)
    data = await ask(http, stream=True)
    assert data.endswith(last)
    assert (b'"finish_reason":"stop"' in data) is says_why
    assert (b'"finish_reason":"stop"' in await ask(http)) is says_why


async def test_garbage_has_any_headers(upstream: Upstream, http: httpx2.AsyncClient) -> None:
    upstream.always(Garbage(b"x", status=204, headers={"x-odd": "1"}))
    response = await http.post("/v1/chat/completions", json=ASKED)
    assert (response.status_code, response.headers["x-odd"]) == (204, "1")
