"""Who asks, through which door, for which model; what was heard and what was stored; and the report of it all."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2
from sqlalchemy import text

from src.data.engine import make_engine, reading
from src.domain.completion.model import Failure
from tests.faults.table import Fault
from tests.http.surface import ANTHROPIC, GEMINI, NATIVE, OPENAI, check_answer, check_error
from tests.http.ways import RESPONSES, Way, error_of, events_in, gemini_path, text_of
from tests.support.gateway import Person, RunningGateway
from tests.support.tcp_proxy import Fair, TcpProxy
from tests.support.upstream import Upstream

LAST_WORDS = {
    NATIVE: "event: message.completed",
    OPENAI: '"finish_reason":"',
    ANTHROPIC: '"stop_reason":"',
    GEMINI: '"finishReason"',
    RESPONSES: "event: response.completed",
}
"""What says in a stream that the answer is whole. (What may follow it, as [DONE], a relayed stream may lack.)"""


@dataclass(frozen=True, slots=True)
class Lane:
    """A door and the kind of provider behind it."""

    name: str
    dialect: str
    kind: str
    path: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def last_word(self) -> str:
        """Of its streams."""
        return LAST_WORDS[RESPONSES if self.path == RESPONSES else self.dialect]

    @property
    def spare(self) -> str:
        """The second model of this lane's chains, of another provider."""
        return "spare-openai" if self.kind == "anthropic" else "spare-anthropic"


LANES = (
    Lane("openai relayed", OPENAI, "openai", "/v1/chat/completions"),
    Lane("openai translated", OPENAI, "anthropic", "/v1/chat/completions"),
    Lane("anthropic relayed", ANTHROPIC, "anthropic", "/v1/messages"),
    Lane("anthropic translated", ANTHROPIC, "openai", "/v1/messages"),
    Lane("responses relayed", OPENAI, "openai", RESPONSES),
    Lane("responses translated", OPENAI, "anthropic", RESPONSES),
    Lane("gemini relayed", GEMINI, "google"),
    Lane("gemini translated", GEMINI, "openai"),
    Lane("native to google", NATIVE, "google"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to ask, and a wild model of its own."""

    lane: Lane
    stream: bool
    chained: bool

    def __str__(self) -> str:
        return f"{'stream' if self.stream else 'whole'}{', chain' if self.chained else ''}"

    @property
    def wild(self) -> str:
        """The model that the fault befalls."""
        return f"wild {self.lane} {self}".replace(", ", "-").replace(" ", "-")

    @property
    def model(self) -> str:
        """What is asked for."""
        return f"chain-{self.wild}" if self.chained else self.wild

    @property
    def way(self) -> Way:
        """In."""
        lane = self.lane
        path = gemini_path(stream=self.stream) if lane.dialect == GEMINI else lane.path
        return Way(name=lane.name, dialect=lane.dialect, model=self.model, stream=self.stream, path=path)


@dataclass(slots=True, kw_only=True)
class Seen:
    """How a call went, as its caller heard it and as it is stored."""

    status: int
    text: str
    error: dict[str, Any] | None
    begun: bool
    outcomes: list[tuple[str, str]]
    tokens: int
    cost_micro_usd: int
    lasted_s: float

    @property
    def failed_as(self) -> Failure:
        """Of its last attempt."""
        return Failure(self.outcomes[-1][1])

    def __str__(self) -> str:
        reasons = Counter(outcome for _, outcome in self.outcomes if outcome != "ok")
        why = ", ".join(f"`{reason}`{f' x{times}' if times > 1 else ''}" for reason, times in reasons.items())
        if self.error is None:
            return f"answered by the next after {why}" if why else "answered"
        told = "error event" if self.begun else str(self.status)
        return f"{told} {why}{', delivered part charged' if self.tokens else ''}"


@dataclass(slots=True)
class Report:
    """What happened, for people."""

    seen: defaultdict[str, defaultdict[str, dict[str, None]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    longest_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, fault: Fault, cell: Cell, seen: Seen) -> None:
        self.seen[fault.name][str(cell)][str(seen)] = None
        self.longest_s[fault.name] = max(self.longest_s[fault.name], seen.lasted_s)

    def markdown(self) -> str:
        """A row a fault; doors that saw the same are told together."""
        cells = [str(Cell(LANES[0], stream, chained)) for stream in (False, True) for chained in (False, True)]
        lines = [f"| fault | {' | '.join(cells)} | longest |", "|---" * (len(cells) + 2) + "|"]
        for name, row in self.seen.items():
            told = (" / ".join(row[each]) or "-" for each in cells)
            lines.append(f"| {name} | {' | '.join(told)} | {self.longest_s[name]:.2f} s |")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything there is."""

    gateway: RunningGateway
    person: Person
    upstream: Upstream
    proxy: TcpProxy
    report: Report

    async def befall(self, fault: Fault, cells: list[Cell]) -> None:
        """From now on, this."""
        for cell in cells:
            self.upstream.always(fault.behaviour(), model=cell.wild)
        if fault.weather is not None:
            await self.proxy.turn(fault.weather)

    async def clear(self) -> None:
        """Fair weather; whoever was asked has been left."""
        await self.proxy.turn(Fair())
        await self.upstream.wait_until(lambda up: up.in_flight == 0, 2.0)

    async def ask(self, cell: Cell) -> Seen:
        """Ask as the cell does, and look up what is stored of it."""
        send = await cell.way.prepare(self.person)
        request_id = f"call-{uuid4()}"
        began_s = time.monotonic()
        response = await send({"x-request-id": request_id})
        lasted_s = time.monotonic() - began_s
        error, begun = _error_in(response, cell)
        row = await self._stored(request_id)
        return Seen(
            status=response.status_code,
            text="" if error else text_of(response, cell.way),
            error=error,
            begun=begun,
            outcomes=[(each["model"], each["outcome"]) for each in json.loads(row["attempts"])],
            tokens=row["input_tokens"] + row["output_tokens"],
            cost_micro_usd=row["cost_micro_usd"],
            lasted_s=lasted_s,
        )

    async def balance(self) -> int:
        standing = (await self.person.http.get("/api/v1/users/me/tokens")).json()
        assert standing["held"] == 0
        return int(standing["balance"])

    async def _stored(self, request_id: str) -> dict[str, Any]:
        """The one row of a call, whatever became of it."""
        engine = make_engine(self.gateway.settings.database_url)
        try:
            async with reading(engine) as connection:
                rows = await connection.execute(text(_STORED), {"request_id": request_id})
                return dict(rows.mappings().one())
        finally:
            await engine.dispose()


_STORED = """SELECT attempts, input_tokens, output_tokens, cost_micro_usd FROM usage_records
WHERE request_id = :request_id"""


def _error_in(response: httpx2.Response, cell: Cell) -> tuple[dict[str, Any] | None, bool]:
    """The error told, and whether anything of an answer came before it."""
    check_answer(response)
    assert "127.0.0.1" not in response.text
    if response.status_code >= 400:
        return check_error(response, response.status_code, cell.lane.dialect), False
    if not cell.stream:
        return None, False
    events = events_in(response)
    error = error_of(events[-1])
    assert (cell.lane.last_word in response.text) is (error is None), response.text
    return error, error is None or len(events) > 1
