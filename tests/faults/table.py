"""The faults of providers and networks, and what must come of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TypeAlias

from src.domain.completion.model import Failure
from tests.support.tcp_proxy import Corrupt, Cut, Drip, Hang, Refuse, Reset, Weather
from tests.support.upstream import (
    Answer,
    Behaviour,
    CutAfter,
    ErrorEvent,
    Fail,
    Garbage,
    Interject,
    LyingLength,
    MalformedChunk,
    ResetBeforeAnswer,
    Usage,
    gzip_bomb,
)
from tests.support.upstream import Drip as SlowDrip
from tests.support.upstream import Hang as Silence

USAGE = Usage(input=5, output=40)
PROPER = Answer(text="one two three four five six seven", usage=USAGE)
LONG = Answer(text="word " * 400, usage=USAGE)
MIB = 1024 * 1024

Kinds: TypeAlias = frozenset[Failure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and the failures it may count as; None is an answer as it should be.

    `begins`: streams have begun by then. `whole` or `stream` says that only one of the two is wrong so. `not_for` are
    the lanes whose format knows no such thing.
    """

    name: str
    behaviour: Callable[[], Behaviour] = lambda: PROPER
    weather: Weather | None = None
    kinds: Kinds | None
    begins: bool | None = False
    whole: bool = True
    stream: bool = True
    not_for: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


def _kinds(*kinds: Failure) -> Kinds:
    return frozenset(kinds)


CONNECT, DROPPED, TIMEOUT = _kinds(Failure.CONNECT), _kinds(Failure.DROPPED), _kinds(Failure.TIMEOUT)
SERVER, MALFORMED, RATE_LIMITED = _kinds(Failure.SERVER), _kinds(Failure.MALFORMED), _kinds(Failure.RATE_LIMITED)
NO_ANSWER = MALFORMED | DROPPED
TOO_LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."


def _says(status: int, kinds: Kinds, name: str = "", **fields: object) -> Fault:
    def behaviour() -> Behaviour:
        return Fail(status=status, **fields)  # type: ignore[arg-type]

    return Fault(name=name or f"it says {status}", behaviour=behaviour, kinds=kinds)


def _limits(name: str, value: str, header: str = "retry-after") -> Fault:
    return _says(429, RATE_LIMITED, f"429, {name}", headers={header: value})


def _in_a_minute() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)


def _junk(name: str, body: bytes, kinds: Kinds = NO_ANSWER, status: int = 200) -> Fault:
    return Fault(name=name, behaviour=lambda: Garbage(body, None, status), kinds=kinds)


def _network(name: str, weather: Weather, kinds: Kinds, *, begins: bool | None = False) -> Fault:
    return Fault(name=f"network: {name}", behaviour=lambda: LONG, weather=weather, kinds=kinds, begins=begins)


STATUSES = (
    _says(400, _kinds(Failure.CALLER)),
    _says(400, _kinds(Failure.CONTEXT_WINDOW), "400, the prompt is too long", message=TOO_LONG),
    _says(401, _kinds(Failure.CREDENTIALS)),
    _says(404, _kinds(Failure.UNKNOWN_MODEL)),
    _says(408, TIMEOUT),
    _says(429, RATE_LIMITED),
    _limits("retry after seconds", "2"),
    _limits("retry after a date", _in_a_minute()),
    _limits("retry after milliseconds", "1500", "retry-after-ms"),
    _limits("retry after 30,000 years", "1e12"),
    _limits("retry after words", "soon"),
    _says(500, SERVER),
    _says(503, SERVER, "503 with a web page", body=b"<html>"),
    _says(529, SERVER),
    _says(307, MALFORMED, "it redirects", headers={"location": "http://127.0.0.1:9/"}),
)
BODIES = (
    _junk("204", b"", NO_ANSWER | SERVER, status=204),
    Fault(name="a web page", behaviour=Garbage, kinds=MALFORMED),
    _junk("nothing", b""),
    _junk("JSON of another shape", b'{"status": "ok"}'),
    Fault(name="a gzip bomb", behaviour=lambda: gzip_bomb(48), kinds=MALFORMED | TIMEOUT),
    Fault(name="too long a content-length", behaviour=lambda: LyingLength(200), kinds=TIMEOUT, stream=False),
    Fault(name="too short a content-length", behaviour=lambda: LyingLength(-30), kinds=MALFORMED, stream=False),
)
MIDWAY = (
    Fault(name="silence", behaviour=Silence, kinds=TIMEOUT),
    Fault(name="silence midway", behaviour=lambda: Silence(30, 2, PROPER), kinds=TIMEOUT, begins=True),
    Fault(name="a reset", behaviour=ResetBeforeAnswer, kinds=DROPPED),
    Fault(name="a cut midway", behaviour=lambda: CutAfter(2, PROPER), kinds=DROPPED, begins=True),
    Fault(name="broken JSON", behaviour=lambda: MalformedChunk(2, PROPER), kinds=MALFORMED, begins=True),
    Fault(name="its own error midway", behaviour=lambda: ErrorEvent(2, 503, answer=PROPER), kinds=SERVER, begins=True),
    Fault(
        name="no finish reason",
        behaviour=lambda: Answer(text="one two", finish="none", usage=USAGE),
        kinds=NO_ANSWER,  # Google's streams have no other last word: without it they were cut
        begins=True,
        not_for=("responses relayed",),
    ),
    Fault(
        name="garbage between events",
        behaviour=lambda: Interject(piece=b"\xff<garbage>\n\n", times=1, answer=PROPER),
        kinds=MALFORMED,
        begins=True,
    ),
    Fault(
        name="keep-alives for ever",
        behaviour=lambda: Interject(piece=b": keep-alive\n\n", every_s=0.05, answer=PROPER),
        kinds=TIMEOUT | MALFORMED,  # Google's SDK takes comments for JSON
        begins=True,
    ),
    Fault(
        name="crumbs for ever",
        behaviour=lambda: Interject(opening=b'data: {"', piece=b"x", every_s=0.05, answer=PROPER),
        kinds=TIMEOUT,
        begins=True,
    ),
    Fault(
        name="a line of 100 MB",
        behaviour=lambda: Interject(opening=b"data: ", piece=b"x" * MIB, times=100, answer=PROPER),
        kinds=MALFORMED | TIMEOUT,
        begins=True,
    ),
    Fault(name="headers that drip", behaviour=lambda: SlowDrip(size=1, every_s=0.1, head=True), kinds=TIMEOUT),
)
NETWORK = (
    _network("nobody listens", Refuse(), CONNECT | DROPPED),
    _network("a hang", Hang(), TIMEOUT),
    _network("a drip", Drip(size=1, every_s=0.05), TIMEOUT),
    _network("a reset", Reset(), DROPPED | CONNECT),
    _network("a reset midway", Reset(800), DROPPED, begins=None),
    _network("a cut in the headers", Cut(50), DROPPED),
    _network("a cut midway", Cut(800), DROPPED, begins=None),
    _network("corruption", Corrupt(every=40), NO_ANSWER),
)
SOUND = (
    Fault(name="(sound)", kinds=None),
    Fault(name="slow but sound", behaviour=lambda: SlowDrip(size=150, every_s=0.01, answer=PROPER), kinds=None),
    Fault(
        name="no last word",
        behaviour=lambda: Answer(text="one two", last_word=False, usage=USAGE),
        kinds=None,
        not_for=("responses relayed",),
    ),
)
FAULTS = (*SOUND, *STATUSES, *BODIES, *MIDWAY, *NETWORK)
