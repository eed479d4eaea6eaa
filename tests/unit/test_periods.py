"""Calendar periods begin and end when clocks in the tenant's zone say so."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.domain.ledger import periods
from src.domain.ledger.model import Window
from src.domain.ledger.periods import period_of, resets_at
from src.shared.errors import InvalidRequest
from src.shared.time_zones import zone_of

TICK = timedelta(microseconds=1)
ZONES = (
    "UTC", "Asia/Tokyo", "America/New_York", "Africa/Cairo", "America/Havana", "Asia/Beirut", "America/Santiago",
    "Atlantic/Azores", "America/Nuuk", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "Pacific/Kiritimati",
    "Etc/GMT+12", "Africa/Casablanca", "America/St_Johns",
)  # fmt: skip


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "at", "day", "next_day"),
    [
        ("UTC", "2026-11-21T09:00:00.123456", "2026-11-21", "2026-11-22T00:00"),
        ("UTC", "2026-12-31T23:59:59.999999", "2026-12-31", "2027-01-01T00:00"),
        ("UTC", "2028-02-28T12:00", "2028-02-28", "2028-02-29T00:00"),
        ("UTC", "2027-02-28T12:00", "2027-02-28", "2027-03-01T00:00"),
        ("Asia/Tokyo", "2026-11-21T14:59:59", "2026-11-21", "2026-11-21T15:00"),
        ("Asia/Tokyo", "2026-11-21T15:00", "2026-11-22", "2026-11-22T15:00"),
        ("America/New_York", "2026-03-08T04:59:59", "2026-03-07", "2026-03-08T05:00"),
        ("America/New_York", "2026-03-08T05:00", "2026-03-08", "2026-03-09T04:00"),  # of 23 hours
        ("America/New_York", "2026-11-01T04:00", "2026-11-01", "2026-11-02T05:00"),  # of 25 hours
        ("America/New_York", "2026-11-01T06:30", "2026-11-01", "2026-11-02T05:00"),  # the hour that is there twice
        ("Africa/Cairo", "2026-04-23T21:59:59", "2026-04-23", "2026-04-23T22:00"),  # followed by no midnight
        ("Africa/Cairo", "2026-04-23T22:00", "2026-04-24", "2026-04-24T21:00"),
        ("Africa/Cairo", "2026-10-29T20:30", "2026-10-29", "2026-10-29T22:00"),  # 23:30, for the first time
        ("Africa/Cairo", "2026-10-29T21:30", "2026-10-29", "2026-10-29T22:00"),  # and for the second
        ("America/Havana", "2026-03-08T04:59:59", "2026-03-07", "2026-03-08T05:00"),  # followed by no midnight
        ("America/Havana", "2026-11-01T05:30", "2026-11-01", "2026-11-02T05:00"),  # its second midnight is at 05:00
        ("Asia/Beirut", "2026-03-28T21:59:59", "2026-03-28", "2026-03-28T22:00"),  # followed by no midnight
        ("Australia/Lord_Howe", "2026-04-04T12:59:59", "2026-04-04", "2026-04-04T13:00"),
        ("Australia/Lord_Howe", "2026-04-04T13:00", "2026-04-05", "2026-04-05T13:30"),  # of 24 and a half hours
        ("Pacific/Apia", "2011-12-30T09:59:59", "2011-12-29", "2011-12-30T10:00"),
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-31", "2011-12-31T10:00"),  # the 30th was left out
    ],
)
def test_a_day_is_the_local_one(zone: str, at: str, day: str, next_day: str) -> None:
    assert period_of(Window.DAY, moment(at), zone) == day
    assert resets_at(Window.DAY, moment(at), zone) == moment(next_day)


@pytest.mark.parametrize(
    ("zone", "at", "month", "next_month"),
    [
        ("UTC", "2026-11-30T23:59:59.999999", "2026-11", "2026-12-01T00:00"),
        ("UTC", "2026-12-01T00:00", "2026-12", "2027-01-01T00:00"),
        ("UTC", "2028-02-29T12:00", "2028-02", "2028-03-01T00:00"),
        ("UTC", "2027-01-31T12:00", "2027-01", "2027-02-01T00:00"),
        ("Asia/Tokyo", "2026-12-31T14:59:59", "2026-12", "2026-12-31T15:00"),
        ("Asia/Tokyo", "2026-12-31T15:00", "2027-01", "2027-01-31T15:00"),
        ("America/New_York", "2026-03-31T23:00", "2026-03", "2026-04-01T04:00"),
        ("America/New_York", "2026-11-01T04:00", "2026-11", "2026-12-01T05:00"),
        ("America/New_York", "2026-12-31T12:00", "2026-12", "2027-01-01T05:00"),
    ],
)
def test_a_month_is_the_local_one(zone: str, at: str, month: str, next_month: str) -> None:
    assert period_of(Window.MONTH, moment(at), zone) == month
    assert resets_at(Window.MONTH, moment(at), zone) == moment(next_month)


def test_a_prepaid_balance_has_no_period() -> None:
    assert period_of(Window.NONE, moment("2026-11-21T09:00"), "Asia/Tokyo") == ""
    assert resets_at(Window.NONE, moment("2026-11-21T09:00"), "Asia/Tokyo") is None


def test_the_next_period_is_told_in_utc_whatever_the_zone_of_the_moment() -> None:
    at = datetime(2026, 11, 22, 3, tzinfo=timezone(timedelta(hours=12)))
    assert period_of(Window.DAY, at, "Asia/Tokyo") == "2026-11-22"
    found = resets_at(Window.DAY, at, "Asia/Tokyo")
    assert found is not None
    assert (found, found.tzinfo) == (moment("2026-11-22T15:00"), UTC)


MOMENTS = st.datetimes(datetime(2011, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
WINDOWS = st.sampled_from([Window.DAY, Window.MONTH])


@given(at=MOMENTS, zone=st.sampled_from(ZONES), window=WINDOWS, part=st.floats(0, 1))
def test_a_period_lasts_until_it_is_reset_and_no_longer(at: datetime, zone: str, window: Window, part: float) -> None:
    name, end = period_of(window, at, zone), resets_at(window, at, zone)
    assert end is not None
    assert at < end <= at + timedelta(days=32)
    assert local_name(window, at, zone) == name
    for within in (at + (end - at - TICK) * part, end - TICK):
        assert local_name(window, within, zone) == period_of(window, within, zone) == name
        assert resets_at(window, within, zone) == end
    assert local_name(window, end, zone) == period_of(window, end, zone) > name


def local_name(window: Window, at: datetime, zone: str) -> str:
    return at.astimezone(zone_of(zone)).strftime("%Y-%m-%d" if window is Window.DAY else "%Y-%m")


def test_a_period_is_computed_once_and_one_is_remembered_for_each_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periods, "_last", {})
    computed: list[datetime] = []
    compute = periods._computed

    def counted(window: Window, at: datetime, zone: object) -> object:
        computed.append(at)
        return compute(window, at, zone)  # type: ignore[arg-type]

    monkeypatch.setattr(periods, "_computed", counted)
    at = moment("2026-11-21T00:00")
    for hours in range(24 * 40):
        period_of(Window.DAY, at + timedelta(hours=hours), "UTC")
        resets_at(Window.DAY, at + timedelta(hours=hours), "UTC")
    assert computed == [at + timedelta(days=days) for days in range(40)]
    assert len(periods._last) == 1


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+12", "EST5EDT"])
def test_a_zone_is_found_by_its_name(name: str) -> None:
    assert zone_of(name).key == name
    assert zone_of(name) is zone_of(name)


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "utc", "Europe/berlin", "Europe", "Europe/", "Europe/Nowhere", "+02:00", "CEST", "localtime",
        "posixrules", "posix/UTC", "right/UTC", "zone.tab", "../UTC", "Europe/../UTC", "/etc/localtime", "UTC\n",
        "UTC\0", "\ud800", "Ü", "x" * 5000, "__init__.py",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_zone_is_refused_and_the_field_named(name: str) -> None:
    for ask in (
        lambda: zone_of(name),
        lambda: period_of(Window.DAY, moment("2026-11-21T00:00"), name),
        lambda: resets_at(Window.MONTH, moment("2026-11-21T00:00"), name),
    ):
        with pytest.raises(InvalidRequest) as refused:
            ask()
        assert refused.value.param == "time_zone"
    assert not any(name == zone for zone, _ in periods._last)
