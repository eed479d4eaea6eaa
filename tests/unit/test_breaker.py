"""When a breaker opens, for how long, and how it finds out whether it may close."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.domain.completion.model import Failure, UpstreamFailed
from src.domain.routing.breaker import Breaker, BreakerPolicy, BreakerState

POLICY = BreakerPolicy(most_in_a_row=3, least_calls=10, open_s=5, longest_open_s=15, misconfigured_s=30)
TECHNICAL = [Failure.CONNECT, Failure.DROPPED, Failure.TIMEOUT, Failure.SERVER, Failure.MALFORMED, Failure.RATE_LIMITED]


def failure(kind: Failure = Failure.SERVER, retry_after_s: float | None = None) -> UpstreamFailed:
    return UpstreamFailed(kind, "It failed.", retry_after_s=retry_after_s)


def opened(at_s: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.most_in_a_row):
        breaker.failed(at_s, failure())
    return breaker


@pytest.mark.parametrize("kind", TECHNICAL)
def test_it_opens_after_so_many_failures_in_a_row(kind: Failure) -> None:
    breaker = Breaker(POLICY)
    assert [breaker.failed(0, failure(kind)) for _ in range(3)] == [False, False, True]
    assert (breaker.state(0), breaker.reason, breaker.admit(4.9)) == (BreakerState.OPEN, kind, False)


def test_an_answer_in_between_begins_the_count_anew() -> None:
    breaker = Breaker(POLICY)
    for _ in range(4):
        breaker.failed(0, failure())
        breaker.failed(0, failure())
        breaker.succeeded(0)
    assert breaker.state(0) is BreakerState.CLOSED


def test_it_opens_when_more_than_half_of_many_calls_fail() -> None:
    breaker = Breaker(BreakerPolicy(most_in_a_row=100, least_calls=10))
    for _ in range(4):
        breaker.succeeded(0)
    assert [breaker.failed(0, failure()) for _ in range(6)] == [False] * 5 + [True]


def test_failures_of_long_ago_are_forgotten() -> None:
    breaker = Breaker(BreakerPolicy(most_in_a_row=100, least_calls=10, window_s=30))
    for second in range(0, 3000, 100):
        assert not breaker.failed(second, failure())


@pytest.mark.parametrize("kind", [Failure.CALLER, Failure.UNSUPPORTED, Failure.CONTEXT_WINDOW])
def test_a_request_that_is_at_fault_itself_says_nothing_about_the_deployment(kind: Failure) -> None:
    breaker = Breaker(POLICY)
    assert not any(breaker.failed(0, failure(kind)) for _ in range(100))


@pytest.mark.parametrize("kind", [Failure.CREDENTIALS, Failure.UNKNOWN_MODEL])
def test_what_only_an_operator_can_mend_opens_it_at_once(kind: Failure) -> None:
    breaker = Breaker(POLICY)
    assert breaker.failed(0, failure(kind))
    assert not breaker.admit(29)
    assert breaker.admit(30)


@pytest.mark.parametrize(("asked_s", "open_s"), [(2.0, 2.0), (0.5, 0.5), (100.0, 15.0)])
def test_it_stays_open_for_as_long_as_a_provider_asks_for(asked_s: float, open_s: float) -> None:
    breaker = Breaker(POLICY)
    assert breaker.failed(0, failure(Failure.RATE_LIMITED, asked_s))
    assert not breaker.admit(open_s - 0.01)
    assert breaker.admit(open_s)


def test_when_its_time_is_up_one_call_probes_and_the_others_wait_for_it() -> None:
    breaker = opened()
    assert breaker.state(5) is BreakerState.HALF_OPEN
    assert [breaker.admit(5) for _ in range(4)] == [True, False, False, False]
    breaker.succeeded(6)
    assert [breaker.admit(6) for _ in range(4)] == [True] * 4


def test_each_probe_that_fails_doubles_the_rest_up_to_a_limit() -> None:
    breaker = opened()
    now_s, rests = 5.0, []
    for _ in range(4):
        assert breaker.admit(now_s)
        assert breaker.failed(now_s, failure())
        rests.append(breaker.retry_at_s - now_s)
        now_s = breaker.retry_at_s
    assert rests == [10, 15, 15, 15]
    breaker.admit(now_s)
    breaker.succeeded(now_s)
    for _ in range(3):
        breaker.failed(now_s, failure())
    assert breaker.retry_at_s == now_s + 5


def test_a_probe_that_is_given_up_leaves_the_next_one_to_another() -> None:
    breaker = opened()
    assert breaker.admit(5)
    breaker.left()
    assert breaker.admit(5)


def test_a_probe_that_never_tells_does_not_close_the_door_for_ever() -> None:
    breaker = opened()
    assert breaker.admit(5)
    assert not breaker.admit(5 + POLICY.probe_lease_s - 1)
    assert breaker.admit(5 + POLICY.probe_lease_s)


def test_late_failures_of_calls_from_before_do_not_shorten_the_rest() -> None:
    breaker = opened()
    breaker.failed(1, failure())
    assert breaker.retry_at_s >= 5


def test_it_learns_of_failures_elsewhere_but_keeps_its_own_longer_rest() -> None:
    breaker = Breaker(POLICY)
    breaker.open_until(8, Failure.TIMEOUT)
    assert (breaker.state(7), breaker.reason) == (BreakerState.OPEN, Failure.TIMEOUT)
    breaker.open_until(6, Failure.SERVER)
    assert not breaker.admit(7)
    assert breaker.admit(8)


def test_it_can_be_switched_off() -> None:
    breaker = Breaker(BreakerPolicy(most_in_a_row=0))
    assert not any(breaker.failed(0, failure(kind, 10.0)) for kind in Failure for _ in range(10))
    assert breaker.admit(0)


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["ok", "fail", "left", "limited"])), max_size=60))
def test_it_always_lets_somebody_try_again(steps: list[tuple[float, str]]) -> None:
    breaker, now_s = Breaker(POLICY), 0.0
    for pause_s, what in steps:
        now_s += pause_s
        if breaker.admit(now_s):
            if what == "ok":
                breaker.succeeded(now_s)
            elif what == "left":
                breaker.left()
            else:
                breaker.failed(now_s, failure(Failure.RATE_LIMITED if what == "limited" else Failure.SERVER, 3.0))
    assert breaker.admit(now_s + max(POLICY.longest_open_s, POLICY.probe_lease_s))
