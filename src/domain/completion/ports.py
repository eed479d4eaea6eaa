"""What a completion needs from outside."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from src.domain.catalog.model import Model, Provider
from src.domain.completion.model import ChatRequest, Reply, UpstreamEvent, UpstreamRequest


class ChatModel(Protocol):
    """One model at its provider. Both methods raise UpstreamFailed and nothing else (besides cancellation)."""

    async def complete(self, request: UpstreamRequest) -> Reply: ...

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        """Text deltas or wire chunks, then exactly one Finished. A stream that ends without one has failed.

        Closing the iterator, or cancelling its task, closes the upstream connection at once.
        """
        ...


class Upstreams(Protocol):
    """Catalog rows made callable."""

    def chat_model(self, model: Model, provider: Provider) -> ChatModel:
        """Cheap: clients are shared and made once. Raises UpstreamFailed (credentials) where no key is configured."""
        ...

    def is_ready(self, provider: Provider) -> bool:
        """Whether the provider has what it needs to be called."""
        ...

    async def close(self) -> None: ...


class TokenMeter(Protocol):
    """Counts tokens offline."""

    def count(self, text: str, model: Model) -> int:
        """Our best estimate for that model's family."""
        ...

    async def prompt_bound(self, chat: ChatRequest, model: Model) -> int:
        """An upper bound of the tokens the provider will count for the prompt, overheads, tools and images included."""
        ...

    async def prompt_estimate(self, chat: ChatRequest, model: Model) -> int:
        """Our best estimate of the same tokens, for calls whose provider did not tell. Never above the bound."""
        ...


class ResponseCache(Protocol):
    """Whole answers by exact key. Fails open: when its store is away every lookup misses and every write is dropped."""

    async def get(self, key: str) -> Mapping[str, Any] | None: ...

    async def put(self, key: str, value: Mapping[str, Any], ttl_s: float) -> None: ...

    async def close(self) -> None: ...
