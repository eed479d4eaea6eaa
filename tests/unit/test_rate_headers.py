"""What is left of rate limits, as each dialect's clients read it; and what a refused call is told."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from src.api.errors import Dialect, error_body, error_headers, status_of
from src.api.rate_headers import rate_headers
from src.domain.limits.model import Bucket, Level, LimitName, LimitReached, LimitScope

REQUESTS, TOKENS, PARALLEL = LimitName.REQUESTS, LimitName.TOKENS, LimitName.PARALLEL


def level(name: LimitName, limit: int, used: int, reset_s: float = 0.0, wait_s: float = 0.0, **given: Any) -> Level:
    scope = given.get("scope", LimitScope.API_KEY)
    return Level(Bucket(name, scope, "a", limit), used, reset_s, wait_s)


def test_nothing_is_told_where_nothing_is_limited() -> None:
    assert rate_headers([]) == rate_headers([level(PARALLEL, 5, 1)]) == {}


def test_the_tightest_bucket_of_each_kind_is_shown() -> None:
    levels = [
        level(REQUESTS, 100, 10, 60.5),
        level(TOKENS, 5000, 4000, 61),
        level(REQUESTS, 1000, 995, 0.2504),
        level(TOKENS, 100_000, 1),
    ]
    assert rate_headers(levels) == {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "5",
        "x-ratelimit-reset-requests": "251ms",
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": "1000",
        "x-ratelimit-reset-tokens": "1m1s",
    }


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0s"), (0.001, "1ms"), (1, "1s"), (1.01, "2s"), (59.5, "1m0s"), (61, "1m1s")]
)
def test_durations_are_written_as_openai_does(seconds: float, told: str) -> None:
    assert rate_headers([level(REQUESTS, 1, 1, seconds)])["x-ratelimit-reset-requests"] == told


def test_anthropic_clients_get_a_moment() -> None:
    headers = rate_headers([level(TOKENS, 50, 60, 12.3)], anthropic=True)
    reset = headers.pop("anthropic-ratelimit-tokens-reset")
    assert headers == {"anthropic-ratelimit-tokens-limit": "50", "anthropic-ratelimit-tokens-remaining": "0"}
    assert reset.endswith("Z")
    assert timedelta(seconds=5) < datetime.fromisoformat(reset) - datetime.now(UTC) <= timedelta(seconds=13)


def test_a_refused_call_is_told_of_the_bucket_it_waits_for_longest() -> None:
    tenant = level(TOKENS, 9, 5, 3.0, 2.5, scope=LimitScope.TENANT)
    error = LimitReached([level(REQUESTS, 60, 60, 61, 1.5), tenant, level(PARALLEL, 5, 1)])
    assert error.retry_after_s == 2.5
    assert error.details == {
        "scope": "tenant",
        "limit_name": "tokens_per_minute",
        "limit": 9,
        "used": 5,
        "retry_after_s": 2.5,
    }
    assert "tenant" in error.message
    assert "9 tokens a minute" in error.message


@pytest.mark.parametrize(("name", "kind"), [(REQUESTS, "requests"), (TOKENS, "tokens"), (PARALLEL, "requests")])
def test_every_dialect_gets_a_429_of_its_own(name: LimitName, kind: str) -> None:
    error = LimitReached([level(name, 4, 4, 60, 1.5)])
    assert {status_of(error, dialect) for dialect in Dialect} == {429}
    native, openai, anthropic, gemini = (error_body(error, dialect, "r")["error"] for dialect in Dialect)
    assert (native["code"], native["details"]["limit_name"]) == ("rate_limit_exceeded", name.value)
    assert (openai["type"], openai["code"]) == (kind, "rate_limit_exceeded")
    assert (anthropic["type"], anthropic["details"]["error_code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert (gemini["code"], gemini["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert [each.get("reason") or each["retryDelay"] for each in gemini["details"]] == ["rate_limit_exceeded", "2s"]


def test_the_headers_of_a_429_are_those_of_the_dialect_and_invite_a_retry() -> None:
    error = LimitReached([level(REQUESTS, 4, 4, 60, 1.5)])
    wait = {"retry-after": "2", "retry-after-ms": "1500"}
    openai = error_headers(error, Dialect.OPENAI)
    assert openai == {**wait, **rate_headers(error.levels)}
    assert error_headers(error, Dialect.NATIVE) == openai
    assert set(error_headers(error, Dialect.ANTHROPIC)) == {
        *wait,
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    }
    assert "x-should-retry" not in openai
