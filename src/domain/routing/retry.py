"""When a failed call is made again, and how long to wait before."""

import random
from dataclasses import dataclass

from src.domain.completion.model import Failure, UpstreamFailed

RETRYABLE = frozenset(
    {Failure.CONNECT, Failure.DROPPED, Failure.TIMEOUT, Failure.RATE_LIMITED, Failure.SERVER, Failure.MALFORMED}
)
"""Failures that may be over the next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Retries of one call and of all calls together.

    The pause before a retry is random, below `first_pause_s` doubled with each one and below `longest_pause_s`, and no
    shorter than a provider's Retry-After; where that is longer than `longest_pause_s`, the caller is told instead.
    Retries may be `share` of all calls (1 is no limit), saved up to `most_saved`; where there are few calls, one in
    `every_s` seconds, saved up to `first_saved`.
    """

    most: int = 2
    first_pause_s: float = 0.25
    longest_pause_s: float = 8.0
    share: float = 0.1
    most_saved: float = 10.0
    first_saved: float = 3.0
    every_s: float = 5.0


class RetryBudget:
    """What keeps retries from multiplying an outage: a purse that calls fill and retries empty."""

    def __init__(self, policy: RetryPolicy, now_s: float) -> None:
        self._policy = policy
        self._saved = policy.first_saved
        self._since_s = now_s

    def called(self) -> None:
        """A call was made that is no retry."""
        self._saved = min(self._policy.most_saved, self._saved + self._policy.share)

    def take(self, now_s: float) -> bool:
        """Whether there may be a retry now."""
        policy = self._policy
        if self._saved < policy.first_saved:
            self._saved = min(policy.first_saved, self._saved + (now_s - self._since_s) / policy.every_s)
        self._since_s = now_s
        if policy.share >= 1:
            return True
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


def pause_s(policy: RetryPolicy, retries: int, failure: UpstreamFailed, left_s: float) -> float | None:
    """How long to wait before retry number `retries` (from 0); None where there should be none, or no time is left."""
    if failure.kind not in RETRYABLE or retries >= policy.most:
        return None
    wanted_s = random.uniform(0, min(policy.first_pause_s * 2**retries, policy.longest_pause_s))
    asked_s = failure.retry_after_s or 0.0
    if asked_s > policy.longest_pause_s:
        return None
    waiting_s = max(wanted_s, asked_s)
    return waiting_s if waiting_s < left_s else None
