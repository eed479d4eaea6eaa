"""A circuit breaker: while a deployment fails, nobody waits for it to fail again."""

from dataclasses import dataclass, field
from enum import StrEnum

from src.domain.completion.model import Failure, UpstreamFailed

HEALTHY = frozenset({Failure.CALLER, Failure.UNSUPPORTED, Failure.CONTEXT_WINDOW})
"""Failures that say nothing about the deployment: it answered, and the request was not for it."""

MISCONFIGURED = frozenset({Failure.CREDENTIALS, Failure.UNKNOWN_MODEL})
"""Failures that only an operator can mend."""


LONGEST_OPEN_S = 60.0


class BreakerState(StrEnum):
    """Closed lets calls through, open none, half-open one at a time to find out."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a breaker opens, and for how long. With `most_in_a_row` 0 it never does.

    It opens after `most_in_a_row` failures, or when of at least `least_calls` within `window_s` more than `error_share`
    failed. It stays open for `open_s`, twice as long after each probe that fails, at the most `longest_open_s`; for
    `misconfigured_s` where an operator must act; and as long as a provider asks for with Retry-After.
    """

    most_in_a_row: int = 5
    window_s: float = 30.0
    least_calls: int = 20
    error_share: float = 0.5
    open_s: float = 5.0
    longest_open_s: float = LONGEST_OPEN_S
    misconfigured_s: float = 30.0
    probe_lease_s: float = 60.0


@dataclass(slots=True)
class Breaker:
    """The breaker of one deployment. Times are seconds of one clock that never goes back."""

    policy: BreakerPolicy = field(default_factory=BreakerPolicy)
    reason: Failure | None = None
    retry_at_s: float = 0.0
    _is_open: bool = False
    _in_a_row: int = 0
    _calls: int = 0
    _failures: int = 0
    _window_began_s: float = 0.0
    _open_for_s: float = 0.0
    _probe_until_s: float = 0.0

    def state(self, now_s: float) -> BreakerState:
        """What it would do with a call now."""
        if not self._is_open:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now_s >= self.retry_at_s else BreakerState.OPEN

    def admits(self, now_s: float) -> bool:
        """Whether `admit` would let a call through now."""
        state = self.state(now_s)
        return state is BreakerState.CLOSED or (state is BreakerState.HALF_OPEN and now_s >= self._probe_until_s)

    def admit(self, now_s: float) -> bool:
        """Let a call through, or not. One let through half-open is the probe; whoever makes it tells how it ended."""
        if not self.admits(now_s):
            return False
        if self._is_open:
            self._probe_until_s = now_s + self.policy.probe_lease_s
        return True

    def succeeded(self, now_s: float) -> None:
        """A call was answered."""
        self._is_open = False
        self._in_a_row = 0
        self._open_for_s = self._probe_until_s = self.retry_at_s = 0.0
        self.reason = None
        self._count(now_s, failed=False)

    def failed(self, now_s: float, failure: UpstreamFailed) -> bool:
        """A call failed. Returns whether that has opened the breaker, or kept it open."""
        if failure.kind in HEALTHY:
            self.succeeded(now_s)
            return False
        if not self.policy.most_in_a_row:
            return False
        self._in_a_row += 1
        self._count(now_s, failed=True)
        if failure.kind in MISCONFIGURED:
            self._open(now_s, self.policy.misconfigured_s, failure.kind)
        elif failure.kind is Failure.RATE_LIMITED and failure.retry_after_s:
            self._open(now_s, min(failure.retry_after_s, self.policy.longest_open_s), failure.kind)
        elif self._is_open or self._has_had_enough():
            longer_s = self._open_for_s * 2 if self._is_open else self.policy.open_s
            self._open_for_s = min(max(longer_s, self.policy.open_s), self.policy.longest_open_s)
            self._open(now_s, self._open_for_s, failure.kind)
        return self._is_open

    def left(self) -> None:
        """A call was given up before it said anything about the deployment: another may probe."""
        self._probe_until_s = 0.0

    def open_until(self, until_s: float, reason: Failure) -> None:
        """Another process found the deployment failing: stay away from it until then, at the least."""
        if until_s > self.retry_at_s:
            self._is_open, self.retry_at_s, self.reason = True, until_s, reason

    def _open(self, now_s: float, for_s: float, reason: Failure) -> None:
        self._is_open = True
        self.retry_at_s = max(self.retry_at_s, now_s + for_s) if self._probe_until_s <= now_s else now_s + for_s
        self._probe_until_s = 0.0
        self.reason = reason

    def _has_had_enough(self) -> bool:
        if self._in_a_row >= self.policy.most_in_a_row:
            return True
        return self._calls >= self.policy.least_calls and self._failures > self._calls * self.policy.error_share

    def _count(self, now_s: float, *, failed: bool) -> None:
        """In a window that is halved, not emptied, when it is over: an error rate has a memory."""
        if now_s - self._window_began_s >= self.policy.window_s:
            is_stale = now_s - self._window_began_s >= 2 * self.policy.window_s
            self._calls, self._failures = (0, 0) if is_stale else (self._calls // 2, self._failures // 2)
            self._window_began_s = now_s
        self._calls += 1
        self._failures += failed
