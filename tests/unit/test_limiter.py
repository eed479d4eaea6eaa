"""Calls that begin within their limits, what they hold, and what they give back however they end."""

from collections.abc import Awaitable, Callable

import pytest

from src.domain.limits.limiter import UNLIMITED, Limiter
from src.domain.limits.model import LimitName, LimitReached, LimitScope
from src.integrations.buckets.memory import MemoryBuckets
from tests.makers import make_rate_limit
from tests.unit.support import FakeRateLimitsView, make_principal

PRINCIPAL = make_principal()


def limiter(**limits: int) -> Limiter:
    """The limits of the principal's user."""
    scope = {"scope": LimitScope.USER, "scope_id": str(PRINCIPAL.user_id)}
    return Limiter(FakeRateLimitsView(make_rate_limit(PRINCIPAL.tenant, **scope, **limits)), MemoryBuckets())


def tokens(count: int) -> Callable[[], Awaitable[int]]:
    async def counted() -> int:
        return count

    return counted


async def never() -> int:
    raise AssertionError("nobody limits tokens, so nobody counts them")


async def test_a_call_that_nothing_limits_is_free() -> None:
    someone = make_principal()
    assert await limiter(requests_per_minute=1, tokens_per_minute=1).admit(someone, "fast", never) is UNLIMITED
    await UNLIMITED.end(1000)
    await UNLIMITED.undo()
    assert UNLIMITED.levels == ()


async def test_tokens_are_counted_only_where_they_are_limited() -> None:
    permit = await limiter(requests_per_minute=1, parallel=1).admit(PRINCIPAL, "fast", never)
    assert [level.remaining for level in permit.levels] == [0, 0]


async def test_a_refused_call_takes_nothing() -> None:
    office = limiter(requests_per_minute=10, parallel=1)
    first = await office.admit(PRINCIPAL, "fast", never)
    for _ in range(20):
        with pytest.raises(LimitReached) as refused:
            await office.admit(PRINCIPAL, "fast", never)
        assert refused.value.details["limit_name"] == "parallel"
    await first.end(0)
    second = await office.admit(PRINCIPAL, "fast", never)
    assert [level.used for level in second.levels] == [2, 1]


async def test_a_call_counts_what_it_used_and_is_over_once() -> None:
    office = limiter(tokens_per_minute=100, parallel=1, requests_per_minute=9)
    permit = await office.admit(PRINCIPAL, "fast", tokens(90))
    for used in (30, 90, 0):
        await permit.end(used)
        await permit.undo()
    after = await office.admit(PRINCIPAL, "fast", tokens(1))
    assert [(level.bucket.name, level.used) for level in after.levels] == [
        (LimitName.REQUESTS, 2),
        (LimitName.TOKENS, 31),
        (LimitName.PARALLEL, 1),
    ]


async def test_a_call_that_was_undone_never_was() -> None:
    office = limiter(tokens_per_minute=100, parallel=1, requests_per_minute=1)
    for _ in range(3):
        await (await office.admit(PRINCIPAL, "fast", tokens(100))).undo()


async def test_the_limits_of_a_model_hold_for_all_its_callers() -> None:
    office = Limiter(
        FakeRateLimitsView(make_rate_limit(scope=LimitScope.MODEL, scope_id="fast", requests_per_minute=2)),
        MemoryBuckets(),
    )
    for caller in (PRINCIPAL, make_principal()):
        await office.admit(caller, "fast", never)
    with pytest.raises(LimitReached, match="model"):
        await office.admit(make_principal(), "fast", never)
    assert await office.admit(PRINCIPAL, "slow", never) is UNLIMITED
