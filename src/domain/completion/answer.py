"""An answer as those see it who wait for it, whether it is generated or was kept."""

from collections.abc import AsyncGenerator
from typing import Protocol
from uuid import UUID

from src.domain.catalog.model import Model
from src.domain.completion.model import CacheUse, Call, Delta, Outcome, WireChunk


class Answer(Protocol):
    """What `begin` gives."""

    @property
    def id(self) -> UUID: ...

    @property
    def call(self) -> Call: ...

    @property
    def output_cap(self) -> int | None:
        """What the quota shrank the output to."""
        ...

    def deltas(self, start: int = 0) -> AsyncGenerator[Delta]:
        """Its pieces from a position on, until it has ended and what must be stored is stored."""
        ...

    async def outcome(self) -> Outcome:
        """How it ended, once that is durable. Raises Unavailable when it could not be stored."""
        ...

    def cancel(self) -> None:
        """Stop it, where it has not ended."""
        ...

    async def prompt_tokens(self) -> int:
        """Our own estimate of what the prompt used."""
        ...

    @property
    def model(self) -> Model | None:
        """The model that answers, once one does."""
        ...

    @property
    def attempts(self) -> int:
        """Upstream calls so far."""
        ...

    @property
    def cache(self) -> CacheUse | None:
        """What the response cache had; None where it is off."""
        ...

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of parameters that the model which answers was not told."""
        ...

    @property
    def is_relayed(self) -> bool:
        """Whether an upstream's own bytes are handed on."""
        ...

    @property
    def has_begun(self) -> bool:
        """Whether anything was delivered."""
        ...

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to end before its upstream's own end."""
        ...


class CachedAnswer:
    """An answer that was kept: it has ended, and used nothing."""

    output_cap: int | None = None

    def __init__(self, call: Call, outcome: Outcome) -> None:
        self.id = outcome.id
        self.call = call
        self._outcome = outcome

    async def deltas(self, start: int = 0) -> AsyncGenerator[Delta]:
        """All at once."""
        for delta in self._outcome.deltas[start:]:
            yield delta

    async def outcome(self) -> Outcome:
        """How it ended."""
        return self._outcome

    def cancel(self) -> None:
        """It has ended."""

    async def prompt_tokens(self) -> int:
        """No prompt was used."""
        return 0

    @property
    def model(self) -> Model | None:
        """The model that gave it once."""
        return self._outcome.model

    @property
    def attempts(self) -> int:
        """Nobody was called."""
        return 0

    @property
    def cache(self) -> CacheUse | None:
        """A hit, or that of an identical call which was under way."""
        return self._outcome.cache

    @property
    def dropped(self) -> tuple[str, ...]:
        """What the model that gave it was not told."""
        return self._outcome.dropped

    @property
    def is_relayed(self) -> bool:
        """Whether an upstream's own bytes are handed on."""
        return any(isinstance(delta, WireChunk) for delta in self._outcome.deltas)

    @property
    def has_begun(self) -> bool:
        """Whether it has any words."""
        return bool(self._outcome.deltas)

    @property
    def is_stopping(self) -> bool:
        """It came to its own end."""
        return False
