"""Money is whole and rounded up; ids rise."""

from datetime import UTC, datetime, timedelta, timezone
from unittest.mock import patch
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.shared import ids
from src.shared.clock import iso, utc_now
from src.shared.ids import new_id, parse_id
from src.shared.money import PER_MILLION, rate_from_usd, rounded_up


@pytest.mark.parametrize(
    ("usd", "rate"),
    [(10, 10_000_000), (0.15, 150_000), ("0.075", 75_000), (0, 0), ("0.000001", 1), (1e6, 10**12)],
)
def test_a_rate_in_dollars_becomes_whole_micro_dollars(usd: str | float, rate: int) -> None:
    assert rate_from_usd(usd) == rate


@pytest.mark.parametrize("usd", [-1, "0.0000001", "nan", "inf", "-inf", "sNaN", "ten", "", "1e999999"])
def test_what_is_no_whole_amount_is_refused(usd: str | float) -> None:
    with pytest.raises(ValueError):
        rate_from_usd(usd)


@given(st.integers(0, 10**30))
def test_a_sum_is_rounded_up_and_by_less_than_one(sum_: int) -> None:
    assert 0 <= rounded_up(sum_) * PER_MILLION - sum_ < PER_MILLION


def test_new_ids_are_version_7_and_rise() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(set(made))
    assert {(each.version, each.variant) for each in made} == {(7, "specified in RFC 4122")}


def test_an_id_tells_when_it_was_made() -> None:
    with patch.object(ids, "_last", (0, 0)):
        made_ms = new_id().int >> 80
    assert abs(made_ms - utc_now().timestamp() * 1000) < 5_000


def test_ids_still_rise_when_the_clock_goes_back() -> None:
    ahead_ms = int(utc_now().timestamp() * 1000) + 60_000
    with patch.object(ids, "_last", (ahead_ms, 0xFFE)):
        made = [new_id() for _ in range(5)]
    assert made == sorted(set(made))
    assert made[-1].int >> 80 == ahead_ms + 1


@pytest.mark.parametrize("form", [str, lambda each: each.hex, lambda each: str(each).upper()])
def test_an_id_is_read_in_its_usual_forms(form) -> None:
    made = new_id()
    assert parse_id(form(made)) == made


@pytest.mark.parametrize(
    "text", ["", "me", "0" * 31, "z" * 32, f"{{{UUID(int=1)}}}", f"urn:uuid:{UUID(int=1)}", "9" * 99]
)
def test_what_is_no_id_is_none(text: str) -> None:
    assert parse_id(text) is None


def test_times_are_written_in_utc_with_microseconds() -> None:
    moment = datetime(2026, 11, 21, 10, 30, tzinfo=timezone(timedelta(hours=2)))
    assert iso(moment) == "2026-11-21T08:30:00.000000Z"
    assert utc_now().tzinfo is UTC
