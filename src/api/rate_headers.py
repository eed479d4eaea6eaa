"""What is left of rate limits, in the headers that stock clients know."""

import math
from collections.abc import Sequence
from datetime import timedelta

from src.domain.limits.model import Level, LimitName
from src.shared.clock import utc_now

_KINDS = {LimitName.REQUESTS: "requests", LimitName.TOKENS: "tokens"}


def rate_headers(levels: Sequence[Level], *, anthropic: bool = False) -> dict[str, str]:
    """The tightest bucket of requests and that of tokens; nothing where neither is limited."""
    headers: dict[str, str] = {}
    for name, kind in _KINDS.items():
        found = [level for level in levels if level.bucket.name is name]
        if found:
            tightest = min(found, key=lambda level: (level.remaining, level.bucket.limit))
            headers |= _as_anthropic(tightest, kind) if anthropic else _as_openai(tightest, kind)
    return headers


def _as_openai(level: Level, kind: str) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": str(level.bucket.limit),
        f"x-ratelimit-remaining-{kind}": str(level.remaining),
        f"x-ratelimit-reset-{kind}": _duration(level.reset_s),
    }


def _as_anthropic(level: Level, kind: str) -> dict[str, str]:
    reset_at = utc_now() + timedelta(seconds=math.ceil(level.reset_s))
    return {
        f"anthropic-ratelimit-{kind}-limit": str(level.bucket.limit),
        f"anthropic-ratelimit-{kind}-remaining": str(level.remaining),
        f"anthropic-ratelimit-{kind}-reset": reset_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _duration(seconds: float) -> str:
    """As OpenAI writes it: 250ms, 1s, 1m1s."""
    if 0 < seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest_s = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest_s}s" if minutes else f"{rest_s}s"
