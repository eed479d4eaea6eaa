"""What this process knows of the deployments it calls: which of them fail, and how long they take to answer."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from src.domain.completion.model import Failure, UpstreamFailed
from src.domain.routing.breaker import Breaker, BreakerPolicy, BreakerState

RECENT_S = 60.0
"""A latency older than this is forgotten: the deployment may have changed, and is measured anew."""
NEWEST_SHARE = 0.3
"""How much of a latency's average is its newest value."""
MOST_DEPLOYMENTS = 10_000


@dataclass(slots=True)
class Latency:
    """The moving average of how long a deployment takes to say something, in seconds, and when it was last measured."""

    seconds: float
    measured_s: float

    def add(self, seconds: float, now_s: float) -> None:
        """Another measurement."""
        self.seconds += (seconds - self.seconds) * NEWEST_SHARE
        self.measured_s = now_s


@dataclass(slots=True)
class Standing:
    """One deployment: its breaker, and its latency for whole answers and for the first words of streams."""

    breaker: Breaker
    latencies: dict[bool, Latency] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a deployment stands, to be shown. `retry_in_s` is None where its breaker is closed."""

    state: BreakerState
    reason: Failure | None = None
    retry_in_s: float | None = None
    latency_ms: int | None = None


HEALTHY = Health(state=BreakerState.CLOSED)

Changed = Callable[[str, float, Failure], None]
"""Told of a deployment whose breaker has opened, and for how many seconds; with 0 that it closed."""


class Board:
    """Breakers and latencies of all deployments, by their keys."""

    def __init__(
        self,
        policy: BreakerPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy or BreakerPolicy()
        self._clock = clock
        self._standings: dict[str, Standing] = {}
        self._listeners: list[Changed] = []

    def tell(self, listener: Changed) -> None:
        """Tell this listener, too, of every breaker that opens or closes here."""
        self._listeners.append(listener)

    def admits(self, deployment: str) -> bool:
        """Whether a call would be let through now; `admit` decides."""
        standing = self._standings.get(deployment)
        return standing is None or standing.breaker.admits(self._clock())

    def admit(self, deployment: str) -> bool:
        """Let a call through, or not. Each call let through is told of by `answered`, `failed` or `left`."""
        return self._standing(deployment).breaker.admit(self._clock())

    def answered(self, deployment: str, seconds: float, *, stream: bool) -> None:
        """It said its first words after so many seconds (or its only ones)."""
        now_s = self._clock()
        standing = self._standing(deployment)
        known = self._recent(standing, stream, now_s)
        if known is None:
            standing.latencies[stream] = Latency(seconds, now_s)
        else:
            known.add(seconds, now_s)

    def succeeded(self, deployment: str) -> None:
        """A call ended well."""
        breaker = self._standing(deployment).breaker
        reason = breaker.reason
        breaker.succeeded(self._clock())
        if reason is not None:
            self._changed(deployment, 0.0, reason)

    def failed(self, deployment: str, failure: UpstreamFailed) -> None:
        """A call failed."""
        now_s = self._clock()
        breaker = self._standing(deployment).breaker
        before_s = breaker.retry_at_s
        if breaker.failed(now_s, failure) and breaker.retry_at_s > before_s:
            self._changed(deployment, breaker.retry_at_s - now_s, failure.kind)

    def left(self, deployment: str) -> None:
        """A call was given up by whoever made it."""
        self._standing(deployment).breaker.left()

    def learn(self, deployment: str, for_s: float, reason: Failure) -> None:
        """Another process will not call it for so many seconds."""
        self._standing(deployment).breaker.open_until(self._clock() + for_s, reason)

    def latency_s(self, deployment: str, *, stream: bool) -> float | None:
        """The recent average; None where it was not measured lately."""
        standing = self._standings.get(deployment)
        known = None if standing is None else self._recent(standing, stream, self._clock())
        return None if known is None else known.seconds

    def retry_in_s(self, deployment: str) -> float:
        """How long it is not called for; 0 where it may be."""
        standing = self._standings.get(deployment)
        return 0.0 if standing is None else max(0.0, standing.breaker.retry_at_s - self._clock())

    def health(self, deployment: str) -> Health:
        """How it stands."""
        standing = self._standings.get(deployment)
        if standing is None:
            return HEALTHY
        now_s = self._clock()
        state = standing.breaker.state(now_s)
        recent = [known for stream in (True, False) if (known := self._recent(standing, stream, now_s)) is not None]
        return Health(
            state=state,
            reason=standing.breaker.reason,
            retry_in_s=None if state is BreakerState.CLOSED else self.retry_in_s(deployment),
            latency_ms=round(recent[0].seconds * 1000) if recent else None,
        )

    def _changed(self, deployment: str, for_s: float, reason: Failure) -> None:
        for listener in self._listeners:
            listener(deployment, for_s, reason)

    def _standing(self, deployment: str) -> Standing:
        standing = self._standings.get(deployment)
        if standing is None:
            if len(self._standings) >= MOST_DEPLOYMENTS:  # of catalogs that were edited for years
                self._standings.clear()
            standing = self._standings[deployment] = Standing(Breaker(self._policy))
        return standing

    def _recent(self, standing: Standing, stream: bool, now_s: float) -> Latency | None:
        known = standing.latencies.get(stream)
        return known if known is not None and now_s - known.measured_s < RECENT_S else None
