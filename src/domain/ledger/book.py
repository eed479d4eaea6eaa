"""The arithmetic of the ledger, in memory.

A store locks the accounts that a batch of operations touches, loads them into a Book, applies the operations one by one
and writes back what the Book says has changed. A refused operation changes nothing. Every store runs this same code.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from src.domain.identity.model import TenantId
from src.domain.ledger.model import (
    MAX_AMOUNT,
    Account,
    AccountId,
    Adjustment,
    Closed,
    Closing,
    Entry,
    EntryKind,
    Hold,
    HoldId,
    HoldLine,
    HoldRequest,
    HoldState,
    Scope,
    Unit,
    Window,
    quota_details,
)
from src.shared.errors import Conflict, InvalidRequest, QuotaExceeded
from src.shared.ids import new_id

ScopeKey = tuple[TenantId, Scope, UUID]


class Book:
    """Some accounts and the states of some holds, open on the table, and the changes made to them."""

    def __init__(self, accounts: Iterable[Account], hold_states: dict[HoldId, HoldState] | None = None) -> None:
        self._accounts: dict[AccountId, Account] = {}
        self._by_scope: defaultdict[ScopeKey, list[AccountId]] = defaultdict(list)
        self._states = dict(hold_states or {})
        for account in accounts:
            self._admit(account)
        self.created: set[AccountId] = set()
        self.changed: set[AccountId] = set()
        self.opened: list[Hold] = []
        self.closed: list[Closing] = []
        self.entries: list[Entry] = []

    def account(self, account_id: AccountId) -> Account:
        """The account as it stands now. Raises KeyError when it is not on the table."""
        return self._accounts[account_id]

    def open(self, request: HoldRequest) -> Hold:
        """Take the worst case from every account of the request's scopes, or nothing from any.

        Where an account cannot pay for the whole output, the cap shrinks to what it can pay for. Raises QuotaExceeded
        when that is less than the least useful output.
        """
        demand = request.demand
        payers = [
            account
            for scope, scope_id in request.scopes
            for account_id in self._by_scope[(request.tenant_id, scope, scope_id)]
            if (account := self._accounts[account_id]).model in (None, request.model)
        ]
        output = demand.output_tokens
        least = min(demand.least_output_tokens, demand.output_tokens)
        for account in payers:
            affordable = demand.affordable_output(account.unit, account.available)
            if affordable < least:
                raise _refusal(account, demand.needed(account.unit, least))
            output = min(output, affordable)
        lines = tuple(
            HoldLine(account_id=account.id, unit=account.unit, amount=demand.needed(account.unit, output))
            for account in payers
        )
        for line in lines:
            account = self._accounts[line.account_id]
            self._put(replace(account, held=account.held + line.amount))
        hold = Hold(
            id=request.id,
            tenant_id=request.tenant_id,
            user_id=request.user_id,
            api_key_id=request.api_key_id,
            model=request.model,
            request_id=request.request_id,
            lines=lines,
            output_cap=output if payers else None,
            created_at=request.at,
            expires_at=request.expires_at,
        )
        self._states[hold.id] = HoldState.OPEN
        self.opened.append(hold)
        return hold

    def close(self, closing: Closing) -> Closed:
        """Close a hold once: give back what was held and book what was used.

        Nothing beyond the hold is booked. A hold that expired before its call came back is charged up to what its
        accounts can still pay; released after it expired, there is nothing left to do. Raises Conflict when it was
        settled or released already.
        """
        state = self._states.get(closing.hold.id)
        if state is HoldState.EXPIRED and closing.state is HoldState.RELEASED:
            return Closed(hold_id=closing.hold.id, lost={})
        late = state is HoldState.EXPIRED and closing.state is HoldState.SETTLED
        if state is not HoldState.OPEN and not late:
            raise Conflict(f"The hold {closing.hold.id} is {state or 'unknown'}; it cannot be closed again.")
        lost: dict[Unit, int] = {}
        for line in closing.hold.lines:
            account = self._accounts[line.account_id]
            owed = closing.amount(line.unit)
            paid = min(owed, max(0, account.available) if late else line.amount)
            if owed > paid:
                lost[line.unit] = max(lost.get(line.unit, 0), owed - paid)
            released = 0 if late else line.amount
            self._put(
                replace(
                    account, held=account.held - released, balance=account.balance - paid, spent=account.spent + paid
                )
            )
            if paid:
                self.entries.append(_charge(closing, line, paid, late=late))
        self._states[closing.hold.id] = closing.state
        self.closed.append(closing)
        return Closed(hold_id=closing.hold.id, lost=lost)

    def adjust(self, adjustment: Adjustment) -> Account:
        """Top up or deduct, making the prepaid account at its first top-up.

        Raises Conflict when a deduction is more than what is neither spent nor held, InvalidRequest past MAX_AMOUNT.
        """
        account = self._prepaid(adjustment)
        if adjustment.amount < 0 and account.available + adjustment.amount < 0:
            raise Conflict(
                f"The account has {account.available} {account.unit.value} that are neither spent nor held; "
                f"{-adjustment.amount} cannot be deducted.",
                details=quota_details(account, -adjustment.amount),
            )
        if account.balance + adjustment.amount > MAX_AMOUNT:
            raise InvalidRequest(f"A balance may not be over {MAX_AMOUNT}.", param="amount")
        if account.id not in self._accounts:
            self._admit(account)
            self.created.add(account.id)
        changed = replace(account, balance=account.balance + adjustment.amount)
        self._put(changed)
        self.entries.append(
            Entry(
                id=new_id(),
                tenant_id=account.tenant_id,
                account_id=account.id,
                unit=account.unit,
                amount=adjustment.amount,
                kind=EntryKind.TOP_UP if adjustment.amount >= 0 else EntryKind.DEDUCTION,
                created_at=adjustment.at,
                request_id=adjustment.request_id,
                reason=adjustment.reason,
                actor_id=adjustment.actor_id,
            )
        )
        return changed

    def _prepaid(self, adjustment: Adjustment) -> Account:
        for account_id in self._by_scope[(adjustment.tenant_id, adjustment.scope, adjustment.scope_id)]:
            account = self._accounts[account_id]
            if account.unit is adjustment.unit and account.window is Window.NONE and account.model is None:
                return account
        return Account(
            id=AccountId(new_id()),
            tenant_id=adjustment.tenant_id,
            scope=adjustment.scope,
            scope_id=adjustment.scope_id,
            unit=adjustment.unit,
        )

    def _admit(self, account: Account) -> None:
        self._accounts[account.id] = account
        self._by_scope[(account.tenant_id, account.scope, account.scope_id)].append(account.id)

    def _put(self, account: Account) -> None:
        self._accounts[account.id] = account
        self.changed.add(account.id)


def _refusal(account: Account, needed: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"The {account.scope.value}'s {account.unit.value} quota cannot pay for this call: "
        f"{max(0, account.available)} left of {account.limit}, {needed} needed. Ask an administrator to top it up.",
        details=quota_details(account, needed),
    )


def _charge(closing: Closing, line: HoldLine, paid: int, *, late: bool) -> Entry:
    return Entry(
        id=new_id(),
        tenant_id=closing.hold.tenant_id,
        account_id=line.account_id,
        unit=line.unit,
        amount=-paid,
        kind=EntryKind.LATE_CHARGE if late else EntryKind.CHARGE,
        created_at=closing.at,
        hold_id=closing.hold.id,
        message_id=closing.message_id,
        request_id=closing.hold.request_id,
        model=closing.model,
    )
