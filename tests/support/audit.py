"""What callers were told, held against what the gateway has stored and charged.

All of it is asked over HTTP, but for the row of each single call in `usage_records`, which no endpoint lists.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from sqlalchemy import text

from src.data.engine import make_engine, reading
from tests.support.load import Customer, Outcome, Sent, Told

PARTLY_HEARD = (Outcome.CUT, Outcome.BROKEN)
"""What may have been delivered and charged although its caller never heard the end."""
CHARGES = ("charge", "late_charge")


@dataclass(slots=True, kw_only=True)
class Findings:
    """The figures of a run, and every breach of a law in a sentence."""

    acknowledged: int = 0
    charged: int = 0
    unacknowledged: int = 0
    """Charged calls whose callers never heard the end."""
    stored: int = 0
    """Acknowledged answers of dialogs, found stored as they were told."""
    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    overspent: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def breaches(self) -> list[str]:
        return [*self.lost, *self.double, *self.overspent, *self.wrong]


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """What the gateway says about one customer."""

    standing: dict[str, Any]
    entries: list[dict[str, Any]]
    messages: dict[str, dict[str, Any]]
    usage: list[dict[str, Any]]

    @property
    def charges(self) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["kind"] in CHARGES]


async def pages(http: aiohttp.ClientSession, path: str) -> list[dict[str, Any]]:
    """Everything a list holds."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        async with http.get(path, params={"limit": "100", **after}) as response:
            response.raise_for_status()
            page = await response.json()
        found += page["data"]
        if not page["has_more"]:
            return found
        after = {"after": page["last_id"]}


def asking(address: str, secret: str) -> aiohttp.ClientSession:
    """A session of one customer with one gateway."""
    return aiohttp.ClientSession(address, headers={"authorization": f"Bearer {secret}"})


async def book_of(address: str, customer: Customer) -> Book:
    """Ask for all of it."""
    async with asking(address, customer.secret) as http:
        async with http.get("/api/v1/users/me/tokens") as response:
            standing = await response.json()
        messages: dict[str, dict[str, Any]] = {}
        for dialog in await pages(http, "/api/v1/dialogs"):
            found = await pages(http, f"/api/v1/dialogs/{dialog['id']}/messages")
            messages |= {message["id"]: message for message in found}
        entries = await pages(http, "/api/v1/users/me/tokens/history")
        async with http.get("/api/v1/usage") as response:
            usage = (await response.json())["data"]
    return Book(standing=standing, entries=entries, messages=messages, usage=usage)


async def wait_for_the_sweep(address: str, customers: Sequence[Customer], timeout_s: float) -> None:
    """Until nothing is held and no answer is in progress any more. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        for customer in customers:
            async with asking(address, customer.secret) as http:
                while await _is_holding(http):
                    await asyncio.sleep(0.2)


async def _is_holding(http: aiohttp.ClientSession) -> bool:
    async with http.get("/api/v1/users/me/tokens") as response:
        standing = await response.json()
    return bool(standing["held"] or any(quota["held"] for quota in standing["quotas"]))


async def usage_rows(database_url: str) -> dict[str, list[int]]:
    """The tokens of each usage row by the id of its request."""
    engine = make_engine(database_url)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    try:
        async with reading(engine) as connection:
            for request_id, tokens in await connection.execute(text(_USAGE_ROWS)):
                rows[request_id].append(tokens)
    finally:
        await engine.dispose()
    return rows


_USAGE_ROWS = "SELECT request_id, input_tokens + output_tokens FROM usage_records"


async def audit(
    address: str,
    database_url: str,
    customers: Sequence[Customer],
    sent: Sequence[Sent],
) -> Findings:
    """Hold everything against everything."""
    findings = Findings(acknowledged=sum(call.told is not None for call in sent))
    for customer in customers:
        book = await book_of(address, customer)
        own = [call for call in sent if call.customer == customer.name]
        _check_calls(customer, own, book, findings)
        _check_dialogs(own, book, findings)
        _check_sums(customer, book, findings)
    _check_usage(sent, await usage_rows(database_url), findings)
    findings.wrong += [f"{call.request_id} hung at {call.door}" for call in sent if call.outcome is Outcome.HUNG]
    findings.wrong += [
        f"{call.request_id} got {call.status} at {call.door}: {call.words[:300]}" for call in sent if call.status == 500
    ]
    return findings


def _check_calls(customer: Customer, sent: Sequence[Sent], book: Book, findings: Findings) -> None:
    """Each acknowledged call is charged as told, others only where their end was never heard.

    One charge of each kind: what a late settlement adds to an expired hold is an entry of its own.
    """
    charged: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for entry in book.charges:
        charged[entry["request_id"]][entry["unit"]] -= entry["amount"]
    times = Counter((entry["request_id"], entry["unit"], entry["kind"]) for entry in book.charges)
    findings.double += [
        f"{request_id} has {n} {kind}s in {unit}" for (request_id, unit, kind), n in times.items() if n > 1
    ]
    findings.charged += len(charged)
    for call in sent:
        amounts = charged.pop(call.request_id, Counter())
        if call.told is not None:
            _check_charge(customer, call, call.told, amounts, findings)
        elif amounts:
            findings.unacknowledged += 1
            if call.outcome not in PARTLY_HEARD:
                findings.wrong.append(f"{call.request_id} ({call.outcome} {call.status}) is charged {dict(amounts)}")
    findings.wrong += [f"{request_id} is charged and was never sent" for request_id in charged]


def _check_charge(customer: Customer, call: Sent, told: Told, amounts: Counter[str], findings: Findings) -> None:
    expected = {"tokens": told.tokens, "requests": 1}
    if told.cost_micro_usd is not None:
        expected["micro_usd"] = told.cost_micro_usd
    for unit in customer.credit:
        if unit not in amounts:
            findings.lost.append(f"{call.request_id} was acknowledged at {call.door} and is not charged in {unit}")
        elif amounts[unit] != expected.get(unit, amounts[unit]):
            findings.wrong.append(f"{call.request_id} was told {expected} and is charged {dict(amounts)}")
    if not told.text or not f"echo: {call.question}".startswith(told.text):
        findings.wrong.append(f"{call.request_id} was answered {told.text!r} to {call.question!r}")


def _check_dialogs(sent: Sequence[Sent], book: Book, findings: Findings) -> None:
    """What was acknowledged is stored as told; whatever is stored as complete is charged once, what failed is not."""
    for call in sent:
        if call.told is None or call.told.message_id is None:
            continue
        stored = book.messages.get(call.told.message_id)
        if stored is None:
            findings.lost.append(f"the answer {call.told.message_id} of {call.request_id} is not stored")
        elif (stored["status"], stored["content"], (stored["usage"] or {}).get("total_tokens")) != (
            "completed",
            call.told.text,
            call.told.tokens,
        ):
            findings.wrong.append(f"{call.request_id} was told {call.told} and {stored} is stored")
        else:
            findings.stored += 1
    charges = Counter((entry["message_id"], entry["unit"]) for entry in book.charges if entry["message_id"])
    paid = {message_id for message_id, _ in charges}
    for message in book.messages.values():
        if message["role"] != "assistant":
            continue
        if message["status"] in ("completed", "interrupted") and message["id"] not in paid:
            findings.lost.append(f"the answer {message['id']} is {message['status']} and not charged")
        if message["status"] in ("in_progress", "failed") and (
            message["id"] in paid or message["status"] == "in_progress"
        ):
            findings.wrong.append(
                f"the answer {message['id']} is {message['status']}, charged: {message['id'] in paid}"
            )


def _check_usage(sent: Sequence[Sent], rows: dict[str, list[int]], findings: Findings) -> None:
    """Each acknowledged call has its one row, as it was told; no call has two."""
    for call in sent:
        found = rows.get(call.request_id, [])
        if len(found) > 1:
            findings.double.append(f"{call.request_id} has usage rows of {found} tokens")
        elif call.told is not None and not found:
            findings.lost.append(f"{call.request_id} was acknowledged at {call.door} and has no usage row")
        elif call.told is not None and found != [call.told.tokens]:
            findings.wrong.append(f"{call.request_id} was told {call.told.tokens} tokens, its usage row says {found}")


def _check_sums(customer: Customer, book: Book, findings: Findings) -> None:
    """Credit is what was spent and what is left; usage says the same as the charges."""
    sums: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for entry in book.entries:
        sums[entry["unit"]] += entry["amount"]
        spent[entry["unit"]] -= entry["amount"] if entry["kind"] in CHARGES else 0
    used = {
        "tokens": sum(row["total_tokens"] for row in book.usage),
        "micro_usd": sum(row["cost_micro_usd"] for row in book.usage),
    }
    for unit, credit in customer.credit.items():
        facts = f"{customer.name} had {credit} {unit}, spent {spent[unit]}, entries leave {sums[unit]}"
        if spent[unit] > credit or sums[unit] < 0:
            findings.overspent.append(facts)
        if credit - spent[unit] != sums[unit]:
            findings.wrong.append(facts)
        if spent[unit] != used.get(unit, spent[unit]):
            findings.wrong.append(f"{facts}; usage says {used[unit]}")
    if "tokens" in customer.credit and book.standing["balance"] != sums["tokens"]:
        findings.wrong.append(
            f"{customer.name}'s balance is {book.standing['balance']}, entries leave {sums['tokens']}"
        )
