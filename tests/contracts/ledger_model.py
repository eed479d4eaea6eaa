"""What the ledger should do, in plain integers: written from its contract, sharing no arithmetic with the real one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from src.domain.ledger.model import Scope, Unit, Window
from src.domain.ledger.quotas import QuotaKey

RATE = 1_000_000
"""One micro-USD a token, so that the model needs no rounding."""


@dataclass(slots=True)
class Purse:
    """What was given, spent and held in one period of one quota."""

    given: int
    spent: int = 0
    held: int = 0

    @property
    def free(self) -> int:
        return self.given - self.spent - self.held


@dataclass(slots=True, eq=False)
class Rule:
    """A quota, with its purse of each period that was used."""

    key: QuotaKey
    id: UUID
    limit: int | None = None
    purses: dict[str, Purse] = field(default_factory=dict)

    def purse(self, period: str) -> Purse:
        return self.purses.setdefault(period, Purse(self.limit or 0))

    def free(self, period: str) -> int:
        purse = self.purses.get(period)
        return (self.limit or 0) if purse is None else purse.free


@dataclass(frozen=True, slots=True)
class Wish:
    """What a call asks for. `members` are the models it may reach; prices are micro-USD a token."""

    scopes: tuple[tuple[Scope, UUID], ...]
    name: str
    members: tuple[str, ...]
    prompt: int
    output: int
    least: int
    price_in: int
    price_out: int

    def cost(self, unit: Unit, output: int) -> int:
        return {
            Unit.TOKENS: self.prompt + output,
            Unit.MICRO_USD: self.prompt * self.price_in + output * self.price_out,
            Unit.REQUESTS: 1,
        }[unit]

    def most(self, unit: Unit, free: int) -> int:
        """The longest output within the wish that so much pays for; -1 when it pays for none at all."""
        return max((n for n in range(self.output + 1) if self.cost(unit, n) <= free), default=-1)


@dataclass(slots=True, eq=False)
class Line:
    """What a purse gave to a call, and what the call has been charged there so far."""

    rule: Rule
    purse: Purse
    amount: int
    charged: int = 0


@dataclass(slots=True, eq=False)
class Lent:
    """A hold, as it should be."""

    wish: Wish
    lines: list[Line]
    cap: int | None
    excluded: tuple[str, ...]
    expires_at: datetime
    state: str = "open"
    noted: "Used | None" = None
    hold: Any = None

    @property
    def amounts(self) -> list[tuple[str, int]]:
        return sorted((line.rule.key.unit.value, line.amount) for line in self.lines)


@dataclass(frozen=True, slots=True)
class Used:
    """What a call came to, by the model that answered."""

    tokens: int
    cost: int
    model: str

    def owed(self, lent: Lent, line: Line) -> int:
        if line.rule.key.model not in (None, lent.wish.name, self.model):
            return 0
        return {Unit.TOKENS: self.tokens, Unit.MICRO_USD: self.cost, Unit.REQUESTS: 1}[line.rule.key.unit]


class LedgerModel:
    """The books of one tenant."""

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self.rules: dict[QuotaKey, Rule] = {}
        self.removed: list[Rule] = []
        self.usage: dict[UUID, Used] = {}

    def period(self, window: Window, at: datetime) -> str:
        day = at.astimezone(self.zone).strftime("%Y-%m-%d")
        return {Window.NONE: "", Window.DAY: day, Window.MONTH: day[:7]}[window]

    def put_limit(self, key: QuotaKey, quota_id: UUID, limit: int, at: datetime) -> None:
        rule = self.rules.setdefault(key, Rule(key, quota_id))
        rule.purse(self.period(key.window, at)).given = limit
        if key.window is not Window.NONE:
            rule.limit = limit

    def remove(self, key: QuotaKey) -> None:
        self.removed.append(self.rules.pop(key))

    def admits(self, wish: Wish, at: datetime) -> Lent | None:
        """The hold that should be given, nothing taken yet; None where it must be refused."""
        excluded: set[str] = set()
        outputs: dict[Rule, int] = {}
        for rule in self._concerned(wish):
            output = wish.most(rule.key.unit, rule.free(self.period(rule.key.window, at)))
            if output >= min(wish.least, wish.output):
                outputs[rule] = output
            elif rule.key.model in (None, wish.name):
                return None
            else:
                excluded.add(str(rule.key.model))
        if wish.members and excluded >= set(wish.members):
            return None
        paying = {rule: output for rule, output in outputs.items() if rule.key.model not in excluded}
        cap = min(paying.values(), default=None)
        lines = [
            Line(rule, rule.purse(self.period(rule.key.window, at)), wish.cost(rule.key.unit, cap or 0))
            for rule in paying
        ]
        return Lent(wish, lines, cap, tuple(sorted(excluded)), at)

    def _concerned(self, wish: Wish) -> Iterator[Rule]:
        for key, rule in self.rules.items():
            if (key.scope, key.scope_id) in wish.scopes and key.model in (None, wish.name, *wish.members):
                yield rule

    def take(self, lent: Lent) -> None:
        for line in lent.lines:
            line.purse.held += line.amount

    def grow(self, lent: Lent, output: int) -> bool:
        """Hold so much output, or as much of it as can be paid; False where no more can be than is."""
        assert lent.cap is not None
        if output <= lent.cap:
            return True
        wish = Wish(**{name: getattr(lent.wish, name) for name in Wish.__slots__} | {"output": output})
        cap = min(wish.most(line.rule.key.unit, line.purse.free + line.amount) for line in lent.lines)
        if cap <= lent.cap:
            return False
        for line in lent.lines:
            amount = wish.cost(line.rule.key.unit, cap)
            line.purse.held += amount - line.amount
            line.amount = amount
        lent.cap = cap
        return True

    def settle(self, lent: Lent, used: Used) -> dict[Unit, int]:
        """Close it as settled, in time or late; what the operator loses by it."""
        lost: dict[Unit, int] = {}
        for line in lent.lines:
            owed = used.owed(lent, line) - line.charged
            if lent.state == "open":
                line.purse.held -= line.amount
                paid = min(owed, line.amount)
            else:
                paid = min(owed, max(0, line.purse.free))
            self._charge(line, paid)
            if owed > paid:
                lost[line.rule.key.unit] = max(owed - paid, lost.get(line.rule.key.unit, 0))
        lent.state = "settled"
        self.usage[lent.hold.id] = used
        return lost

    def release(self, lent: Lent) -> None:
        if lent.state == "open":
            for line in lent.lines:
                line.purse.held -= line.amount
            lent.state = "released"

    def expire(self, lent: Lent) -> None:
        for line in lent.lines:
            line.purse.held -= line.amount
            if lent.noted is not None:
                self._charge(line, min(lent.noted.owed(lent, line), line.amount))
        if lent.noted is not None:
            self.usage[lent.hold.id] = lent.noted
        lent.state = "expired"

    def _charge(self, line: Line, paid: int) -> None:
        line.purse.spent += paid
        line.charged += paid
