"""The arithmetic of the ledger, in memory.

A store locks the accounts and holds that a batch of operations touches, loads them into a Book, applies the operations
one by one and writes back what the Book says has changed. A refused operation changes nothing. Every store runs this
same code.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from src.domain.identity.model import TenantId
from src.domain.ledger.model import (
    MAX_AMOUNT,
    Account,
    AccountId,
    Closed,
    Closing,
    Demand,
    Entry,
    EntryKind,
    Hold,
    HoldId,
    HoldLine,
    HoldRequest,
    HoldState,
    QuotaId,
    Renewal,
    Scope,
    Unit,
    Window,
)
from src.domain.ledger.periods import period_of
from src.domain.ledger.quotas import Adjustment, LimitChange, QuotaChange, quota_details
from src.shared.errors import Conflict, InvalidRequest, QuotaExceeded
from src.shared.ids import new_id
from src.shared.money import MicroDollars

ScopeKey = tuple[TenantId, Scope, UUID]


@dataclass(slots=True, eq=False)
class Standing:
    """An account on the table, and its amounts as they stand now."""

    account: Account
    balance: int
    held: int
    spent: int

    @property
    def available(self) -> int:
        return self.balance - self.held

    def now(self) -> Account:
        """The account with these amounts."""
        return replace(self.account, balance=self.balance, held=self.held, spent=self.spent)


class Book:
    """Some accounts and some holds, open on the table, and the changes made to them."""

    def __init__(self, accounts: Iterable[Account], holds: Iterable[Hold] = ()) -> None:
        self._standings: dict[AccountId, Standing] = {}
        self._by_scope: defaultdict[ScopeKey, list[Standing]] = defaultdict(list)
        self._holds = {hold.id: hold for hold in holds}
        for account in accounts:
            self._admit(account)
        self.created: set[AccountId] = set()
        self.changed: set[AccountId] = set()
        self.opened: list[Hold] = []
        self.renewed: dict[HoldId, Hold] = {}
        self.grown: set[HoldId] = set()
        self.closed: list[Closing] = []
        self.entries: list[Entry] = []

    def account(self, account_id: AccountId) -> Account:
        """The account as it stands now. Raises KeyError when it is not on the table."""
        return self._standings[account_id].now()

    def changes(self) -> list[Standing]:
        """The accounts whose amounts have changed."""
        return [self._standings[account_id] for account_id in self.changed]

    def hold(self, hold_id: HoldId) -> Hold | None:
        """The hold as it stands now."""
        return self._holds.get(hold_id)

    def payers(self, request: HoldRequest) -> Iterator[Account]:
        """The accounts that a call is charged to: of its scopes and models, in the period it falls into."""
        return (standing.now() for standing in self._payers(request))

    def _payers(self, request: HoldRequest) -> Iterator[Standing]:
        models = (None, request.model, *request.models)
        for scope, scope_id in request.scopes:
            for standing in self._by_scope.get((request.tenant_id, scope, scope_id), ()):
                account = standing.account
                is_present = account.period == period_of(account.window, request.at, request.time_zone)
                if is_present and account.model in models and not account.removed:
                    yield standing

    def open(self, request: HoldRequest) -> Hold:
        """Take the worst case from every account of the call, or nothing from any.

        Where an account cannot pay for the whole output, the cap shrinks to what it can pay for. A member of a chain
        whose own quota cannot pay is left out of the call. Raises QuotaExceeded when an account cannot pay for the
        least useful output, or no member is left.
        """
        demand = request.demand
        payers: list[tuple[Account, int]] = []
        excluded: set[str] = set()
        for standing in self._payers(request):
            account = standing.account
            affordable = demand.affordable_output(account.unit, standing.available)
            if affordable < demand.least_output:
                if account.model in (None, request.model) or {*excluded, account.model} >= {*request.models}:
                    raise _refusal(standing.now(), demand.needed(account.unit, demand.least_output), request)
                excluded.add(account.model)
            else:
                payers.append((account, affordable))
        payers = [payer for payer in payers if payer[0].model not in excluded]
        output = min((affordable for _, affordable in payers), default=demand.output_tokens)
        hold = Hold(
            id=request.id,
            tenant_id=request.tenant_id,
            user_id=request.user_id,
            api_key_id=request.api_key_id,
            model=request.model,
            request_id=request.request_id,
            lines=tuple(_line(account, demand.needed(account.unit, output)) for account, _ in payers),
            output_cap=output if payers else None,
            created_at=request.at,
            expires_at=request.expires_at,
            excluded_models=tuple(sorted(excluded)),
        )
        self._take(hold.lines)
        self._holds[hold.id] = hold
        self.opened.append(hold)
        return hold

    def refusals(self, request: HoldRequest) -> list[QuotaExceeded]:
        """What each account says that would refuse the call: empty where `open` takes it. Nothing is changed.

        Members of a chain refuse it together, when none of them can pay.
        """
        demand = request.demand
        least = demand.least_output
        short = [
            account
            for account in self.payers(request)
            if demand.affordable_output(account.unit, account.available) < least
        ]
        left_out = {account.model for account in short} - {None, request.model}
        if left_out >= {*request.models}:
            left_out = set()
        return [
            _refusal(account, demand.needed(account.unit, least), request)
            for account in short
            if account.model not in left_out
        ]

    def renew(self, renewal: Renewal) -> Hold:
        """Keep an open hold alive, note what was delivered, and grow it where a demand says so.

        Raises Conflict when the hold is closed, QuotaExceeded when it should grow and nothing more can be paid.
        """
        hold = self._holds.get(renewal.hold.id)
        if hold is None or hold.state is not HoldState.OPEN:
            raise _cannot(hold, renewal.hold.id, "renewed")
        renewed = replace(hold, expires_at=renewal.expires_at, noted=renewal.noted or hold.noted)
        if renewal.demand is not None and hold.output_cap is not None:
            renewed = self._grown(renewed, renewal.demand, hold.output_cap)
        self._holds[hold.id] = self.renewed[hold.id] = renewed
        return renewed

    def _grown(self, hold: Hold, demand: Demand, had: int) -> Hold:
        output = demand.output_tokens
        if output <= had:  # asked again, its first answer was lost
            return hold
        for line in hold.lines:
            free = self._standings[line.account_id].available + line.amount
            output = min(output, demand.affordable_output(line.unit, free))
        if output <= had:
            raise QuotaExceeded("The quota cannot pay for a longer answer.")
        lines = tuple(replace(line, amount=demand.needed(line.unit, output)) for line in hold.lines)
        self._take(replace(new, amount=new.amount - old.amount) for new, old in zip(lines, hold.lines, strict=True))
        self.grown.add(hold.id)
        return replace(hold, lines=lines, output_cap=output)

    def close(self, closing: Closing) -> Closed:
        """Close a hold once: give back what was held and book what was used.

        Nothing beyond the hold is booked. One that expires is charged what was last noted of its call; when the call
        comes back after all, the rest is charged up to what its accounts can still pay, or what was noted too much is
        given back. Raises Conflict when the hold was settled or released already, or should expire but was renewed.
        """
        hold = self._holds.get(closing.hold.id)
        if hold is not None and hold.state is HoldState.EXPIRED and closing.state is HoldState.RELEASED:
            return Closed(hold_id=hold.id, lost={})
        late = hold is not None and hold.state is HoldState.EXPIRED and closing.state is HoldState.SETTLED
        if hold is None or (hold.state is not HoldState.OPEN and not late):
            raise _cannot(hold, closing.hold.id, "closed again")
        if closing.state is HoldState.EXPIRED:
            if hold.expires_at > closing.at:
                raise Conflict(f"The hold {hold.id} was renewed; it has not expired.")
            closing = as_noted(hold, closing)
        lost: dict[Unit, int] = {}
        for line in hold.lines:
            standing = self._standings[line.account_id]
            owed = closing.amount(line)
            if late:
                owed -= min(as_noted(hold, closing).amount(line), line.amount)
            paid = min(owed, max(0, standing.available) if late else line.amount)
            if owed > paid:
                lost[line.unit] = max(lost.get(line.unit, 0), owed - paid)
            standing.held -= 0 if late else line.amount
            standing.balance -= paid
            standing.spent += paid
            self.changed.add(line.account_id)
            if paid:
                self.entries.append(_charge(closing, standing.account, paid, late=late))
        self._holds[hold.id] = replace(hold, state=closing.state)
        self.closed.append(closing)
        return Closed(hold_id=hold.id, lost=lost)

    def adjust(self, adjustment: Adjustment) -> Account:
        """Give or take, making the prepaid account at its first gift.

        Raises Conflict when more is taken than is neither spent nor held, InvalidRequest past MAX_AMOUNT.
        """
        account = self._of_change(adjustment)
        if adjustment.amount < 0 and account.available + adjustment.amount < 0:
            raise Conflict(
                f"The account has {max(0, account.available)} {account.unit.value} that are neither spent nor held; "
                f"{-adjustment.amount} cannot be deducted.",
                details={
                    "limit": account.limit,
                    "used": account.spent,
                    "held": account.held,
                    "available": max(0, account.available),
                },
            )
        kind = EntryKind.TOP_UP if adjustment.amount >= 0 else EntryKind.DEDUCTION
        return self._changed(account, adjustment.amount, kind, adjustment)

    def set_limit(self, change: LimitChange) -> Account:
        """Book the difference to the new limit. Raises InvalidRequest past MAX_AMOUNT."""
        account = self._of_change(change)
        return self._changed(account, change.limit - account.limit, EntryKind.LIMIT, change)

    def _changed(self, account: Account, amount: int, kind: EntryKind, change: QuotaChange) -> Account:
        if account.limit + amount > MAX_AMOUNT:
            raise InvalidRequest(f"No more than {MAX_AMOUNT} may be given.", param="amount")
        if account.id not in self._standings:
            self._admit(account)
            self.created.add(account.id)
        standing = self._standings[account.id]
        standing.balance += amount
        self.changed.add(account.id)
        if amount:
            self.entries.append(
                Entry(
                    id=new_id(),
                    tenant_id=account.tenant_id,
                    scope_id=account.scope_id,
                    account_id=account.id,
                    unit=account.unit,
                    amount=amount,
                    kind=kind,
                    created_at=change.at,
                    request_id=change.request_id,
                    reason=change.reason,
                    actor_id=change.actor_id,
                )
            )
        return standing.now()

    def _of_change(self, change: QuotaChange) -> Account:
        key = change.key
        for standing in self._by_scope.get((key.tenant_id, key.scope, key.scope_id), ()):
            account = standing.account
            same = (account.unit, account.window, account.model) == (key.unit, key.window, key.model)
            if same and account.period == change.period and not account.removed:
                return standing.now()
        return Account(
            id=AccountId(new_id()),
            quota_id=QuotaId(new_id()),
            tenant_id=key.tenant_id,
            scope=key.scope,
            scope_id=key.scope_id,
            unit=key.unit,
            window=key.window,
            period=change.period,
            model=key.model,
        )

    def _admit(self, account: Account) -> None:
        standing = Standing(account, account.balance, account.held, account.spent)
        self._standings[account.id] = standing
        self._by_scope[(account.tenant_id, account.scope, account.scope_id)].append(standing)

    def _take(self, lines: Iterable[HoldLine]) -> None:
        for line in lines:
            self._standings[line.account_id].held += line.amount
            self.changed.add(line.account_id)


def as_noted(hold: Hold, closing: Closing) -> Closing:
    """The closing that charges what was last noted of the call, or nothing."""
    noted = hold.noted
    if noted is None:
        return replace(closing, tokens=0, micro_usd=MicroDollars(0), requests=0)
    return replace(
        closing,
        tokens=noted.usage.total_tokens,
        micro_usd=noted.cost_micro_usd,
        requests=1,
        model=noted.model,
        message_id=noted.message_id,
    )


def _line(account: Account, amount: int) -> HoldLine:
    return HoldLine(account_id=account.id, unit=account.unit, amount=amount, model=account.model)


def _cannot(hold: Hold | None, hold_id: HoldId, what: str) -> Conflict:
    return Conflict(f"The hold {hold_id} is {hold.state if hold else 'unknown'}; it cannot be {what}.")


def _refusal(account: Account, needed: int, request: HoldRequest) -> QuotaExceeded:
    details = quota_details(account, needed, request.at, request.time_zone)
    whose = f"{account.scope.value.replace('_', ' ')}'s"
    of = f" for {account.model}" if account.model else ""
    if account.window is Window.NONE:
        when = "Ask an administrator to top it up."
    else:
        when = f"It starts anew at {details['resets_at']:%Y-%m-%dT%H:%M:%SZ}; an administrator can raise it."
    per = "" if account.window is Window.NONE else f" per {account.window.value}"
    return QuotaExceeded(
        f"The {whose} quota of {account.unit.value}{per}{of} cannot pay for this call: "
        f"{max(0, account.available)} left of {account.limit}, {needed} needed. {when}",
        details=details,
    )


def _charge(closing: Closing, account: Account, paid: int, *, late: bool) -> Entry:
    return Entry(
        id=new_id(),
        tenant_id=account.tenant_id,
        scope_id=account.scope_id,
        account_id=account.id,
        unit=account.unit,
        amount=-paid,
        kind=EntryKind.LATE_CHARGE if late else EntryKind.CHARGE,
        created_at=closing.at,
        hold_id=closing.hold.id,
        message_id=closing.message_id,
        request_id=closing.hold.request_id,
        model=closing.model,
    )
