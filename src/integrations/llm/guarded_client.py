"""The HTTP client under the SDKs. They read whatever comes, for as long as it comes; this bounds it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any

import httpx2

from src.domain.completion.model import Failure, UpstreamRequest
from src.integrations.llm.bounds import ERROR_TIMEOUT_S, MAX_ERROR_BYTES, BodyWatch, EventWatch, Watch
from src.integrations.llm.failures import failed_with


class GuardedClient(httpx2.AsyncClient):
    """Raises UpstreamFailed where an answer is too large or too slow; its connection is closed by then.

    `connect_timeout_s` and `patience_s`, the longest silence of a provider, together bound the time to the headers.
    """

    def __init__(self, *, connect_timeout_s: float, patience_s: float, **options: Any) -> None:
        super().__init__(timeout=httpx2.Timeout(patience_s, connect=connect_timeout_s), **options)
        self._patience_s = patience_s
        self._connect_s = connect_timeout_s
        self._headers_s = connect_timeout_s + patience_s

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        # google-genai switches timeouts off with each request unless it is given one figure for all of them.
        asked = request.extensions.get("timeout", {}).get("connect")
        ours = self.timeout.as_dict()
        request.extensions["timeout"] = ours | {"connect": min(asked or self._connect_s, self._connect_s)}
        async with asyncio.timeout(self._headers_s):
            response = await super().send(request, stream=True, **options)
        _guard(response, self._patience_s)
        if (noted := _noted.get()) is not None:
            noted.append(response)
        if not stream:
            await response.aread()
        return response


_noted: ContextVar[list[httpx2.Response] | None] = ContextVar("noted responses", default=None)


@contextmanager
def noting_responses(responses: list[httpx2.Response]) -> Iterator[None]:
    """Add every response of this context to the list: for whom an SDK does not give what it must close."""
    token = _noted.set(responses)
    try:
        yield
    finally:
        _noted.reset(token)


def sooner(request: UpstreamRequest) -> dict[str, Any]:
    """The SDKs' argument for a model that must be reached sooner than others. (Google's has none.)"""
    connect_s = request.model.deadlines.connect_s
    return {} if connect_s is None else {"timeout": httpx2.Timeout(None, connect=connect_s)}


def _guard(response: httpx2.Response, patience_s: float) -> None:
    """Decompress below the response's own reader, so that what it reads is what was counted."""
    is_error = not response.is_success
    plain = httpx2.Response(
        response.status_code, headers=response.headers, stream=response.stream, extensions=response.extensions
    )
    watch: Watch
    if is_error:
        watch = BodyWatch(_now_s(), patience_s=min(ERROR_TIMEOUT_S, patience_s), most_bytes=MAX_ERROR_BYTES)
    elif response.headers.get("content-type", "").startswith("text/event-stream"):
        watch = EventWatch(_now_s(), patience_s=patience_s)
    else:
        watch = BodyWatch(_now_s(), patience_s=patience_s)
    response.headers.pop("content-encoding", None)
    response.stream = _Watched(plain, watch, ends_quietly=is_error)


class _Watched(httpx2.AsyncByteStream):
    """Ends quietly where there is enough without the rest: an error is known by its status."""

    def __init__(self, plain: httpx2.Response, watch: Watch, *, ends_quietly: bool) -> None:
        self._plain = plain
        self._watch = watch
        self._ends_quietly = ends_quietly

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async with aclosing(self._plain.aiter_bytes()) as pieces:
                while (piece := await self._next(pieces)) is not None:
                    self._watch.see(piece, _now_s())
                    yield piece
            if not self._watch.ends_well:
                await self._hang_up()
        except Exception:
            await self.aclose()
            if not self._ends_quietly:
                raise

    async def _next(self, pieces: AsyncGenerator[bytes]) -> bytes | None:
        if self._watch.is_calm:
            return await anext(pieces, None)
        try:
            async with asyncio.timeout_at(self._watch.deadline_s):
                return await anext(pieces, None)
        except TimeoutError as error:
            raise failed_with(Failure.TIMEOUT) from error

    async def _hang_up(self) -> None:
        """Nothing is left on the connection for another answer to begin with."""
        connection = self._plain.extensions.get("network_stream")
        if connection is not None:
            await connection.aclose()

    async def aclose(self) -> None:
        await self._plain.aclose()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
