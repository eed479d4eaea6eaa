"""How often failed calls are made again, one and all together."""

import pytest

from src.domain.completion.model import Failure, UpstreamFailed
from src.domain.routing.retry import RETRYABLE, RetryBudget, RetryPolicy, pause_s

POLICY = RetryPolicy(most=3, first_pause_s=1.0, longest_pause_s=3.0)


def failure(kind: Failure = Failure.SERVER, retry_after_s: float | None = None) -> UpstreamFailed:
    return UpstreamFailed(kind, "It failed.", retry_after_s=retry_after_s)


@pytest.mark.parametrize("kind", Failure)
def test_only_what_may_pass_is_tried_again(kind: Failure) -> None:
    assert (pause_s(POLICY, 0, failure(kind), 60) is not None) == (kind in RETRYABLE)


def test_pauses_are_random_and_grow_to_a_limit() -> None:
    for retries, most_s in enumerate((1.0, 2.0, 3.0)):
        pauses = [pause_s(POLICY, retries, failure(), 60) for _ in range(200)]
        found = [each for each in pauses if each is not None]
        assert len(found) == 200
        assert max(found) <= most_s
        assert max(found) > most_s * 0.8
        assert min(found) < most_s * 0.2
    assert pause_s(POLICY, 3, failure(), 60) is None


def test_a_provider_is_waited_for_as_long_as_it_asks_but_not_for_ever() -> None:
    pause = pause_s(POLICY, 0, failure(Failure.RATE_LIMITED, 2.5), 60)
    assert pause == 2.5
    assert pause_s(POLICY, 0, failure(Failure.RATE_LIMITED, 3.5), 60) is None
    assert pause_s(POLICY, 0, failure(Failure.RATE_LIMITED, 2.5), 2.0) is None


def test_retries_are_a_share_of_all_calls() -> None:
    budget = RetryBudget(RetryPolicy(share=0.1), 0.0)
    retries = 0
    for _ in range(1000):
        budget.called()
        retries += budget.take(0.0)
    assert 100 <= retries <= 105


def test_a_quiet_gateway_may_retry_too() -> None:
    budget = RetryBudget(RetryPolicy(share=0.0, first_saved=3, every_s=5), 0.0)
    assert [budget.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.take(second) for second in (4, 6, 8, 12)] == [False, True, False, True]
    assert [budget.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_what_is_saved_has_a_limit() -> None:
    budget = RetryBudget(RetryPolicy(share=0.5, most_saved=10), 0.0)
    for _ in range(1000):
        budget.called()
    assert sum(budget.take(0.0) for _ in range(100)) == 10
