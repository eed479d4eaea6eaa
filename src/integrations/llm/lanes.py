"""Which way a request goes: relayed, where the provider takes the client's format, else translated."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from time import monotonic

from src.domain.catalog.model import WireFormat
from src.domain.completion.model import Finished, Reply, UpstreamEvent, UpstreamFailed, UpstreamRequest
from src.domain.completion.ports import ChatModel

ASKED_AGAIN_S = 300.0
_NO_SUCH_ENDPOINT = (404, 405, 501)


class Missing:
    """Endpoints that servers turned out not to have, for a while: a server may get newer. Bounded by the catalog."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._until_s: dict[str, float] = {}

    def add(self, url: str) -> None:
        """It is not asked again for ASKED_AGAIN_S seconds."""
        self._until_s[url] = self._clock() + ASKED_AGAIN_S

    def __contains__(self, url: str) -> bool:
        return self._until_s.get(url, 0.0) > self._clock()


class SameFormatRelayed(ChatModel):
    """Bodies in a format that the provider takes are relayed as they are; everything else is translated.

    `is_beyond` tells what a server does not take of its own format.
    """

    def __init__(
        self,
        translated: ChatModel,
        relays: Mapping[WireFormat, Callable[[], ChatModel]],
        is_beyond: Callable[[UpstreamRequest], bool] | None = None,
    ) -> None:
        self._translated = translated
        self._relays = relays
        self._is_beyond = is_beyond

    async def complete(self, request: UpstreamRequest) -> Reply:
        return await self._model_for(request).complete(request)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        async with aclosing(self._model_for(request).stream(request)) as events:
            async for event in events:
                yield event

    def _model_for(self, request: UpstreamRequest) -> ChatModel:
        wire = request.chat.wire
        relay = None if wire is None else self._relays.get(wire.format)
        is_beyond = self._is_beyond is not None and self._is_beyond(request)
        return self._translated if relay is None or is_beyond else relay()


class RelayedWhereThere(ChatModel):
    """A relay to an endpoint, at `url`, that a server may lack: then `translated` answers, and `missing` remembers it.

    A server that does not know the model says the same; the translation is told so too.
    """

    def __init__(self, relay: ChatModel, translated: ChatModel, url: str, missing: Missing) -> None:
        self._relay = relay
        self._translated = translated
        self._url = url
        self._missing = missing

    async def complete(self, request: UpstreamRequest) -> Reply:
        if self._url in self._missing:
            return await self._translated.complete(request)
        try:
            return await self._relay.complete(request)
        except UpstreamFailed as failed:
            if failed.status not in _NO_SUCH_ENDPOINT:
                raise
        reply = await self._translated.complete(request)
        self._missing.add(self._url)
        return reply

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        is_known, has_begun = self._url in self._missing, False
        if not is_known:
            try:
                async with aclosing(self._relay.stream(request)) as events:
                    async for event in events:
                        has_begun = True
                        yield event
                return
            except UpstreamFailed as failed:
                if has_begun or failed.status not in _NO_SUCH_ENDPOINT:
                    raise
        async with aclosing(self._translated.stream(request)) as events:
            async for event in events:
                if isinstance(event, Finished) and not is_known:
                    self._missing.add(self._url)
                yield event
