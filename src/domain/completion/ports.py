"""What a completion needs from outside."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from src.domain.catalog.model import Model, Provider
from src.domain.completion.model import ChatRequest, Reply, ToldCount, UpstreamEvent, UpstreamRequest


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

    async def count_prompt(self, request: UpstreamRequest, provider: Provider) -> ToldCount:
        """What the provider itself counts for a client's body in the provider's own format, within seconds.

        Raises UpstreamFailed, also where there is no such body or no such endpoint.
        """
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
    """Whole answers by exact key, and whose turn it is to make one that is not there.

    Fails open: when its store is away, each process remembers by itself and it is always its turn.
    """

    async def seek(self, key: str, seeker: str, lease_s: float) -> bytes | bool:
        """What is kept. Where nothing is: whether it is the seeker's turn to make it, for so long; to ask again renews.

        A turn is one seeker's among all replicas, until it leaves or its lease is over.
        """
        ...

    async def get(self, key: str) -> bytes | None:
        """What is kept, for those who would not make it."""
        ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None: ...

    async def leave(self, key: str, seeker: str) -> None:
        """Give the seeker's turn back, if it is still its own."""
        ...

    async def close(self) -> None: ...


class Embedder(Protocol):
    """Meanings as vectors of length 1: the more alike two texts, the nearer to 1 is the product of theirs."""

    async def vector(self, text: str) -> Sequence[float] | None:
        """None for a text that it cannot read as a whole, or not now."""
        ...

    def close(self) -> None:
        """What waits for its vector is given up."""
        ...


class QuestionIndex(Protocol):
    """Vectors of questions with the keys of their answers, in this process. Only those of one scope are compared."""

    def nearest(self, scope: str, vector: Sequence[float], least: float) -> str | None:
        """The key of the nearest question in force, if the product of its vector and this one is at least `least`."""
        ...

    def put(self, scope: str, key: str, vector: Sequence[float], ttl_s: float) -> None: ...

    def forget(self, scope: str, key: str) -> None:
        """Of an answer that is not kept any more."""
        ...
