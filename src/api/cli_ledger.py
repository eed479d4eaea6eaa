"""Commands about the books."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from src.api.cli_admin import work_with
from src.api.operator import Operator
from src.domain.ledger.ports import Audit, Auditor, Breach

ledger_cli = typer.Typer(no_args_is_help=True, help="The books.")

RepairOption = Annotated[bool, typer.Option("--repair", help="First close the holds of calls that never ended.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@ledger_cli.command("verify")
def verify(repair: RepairOption = False, as_json: JsonOption = False) -> None:
    """Prove the books: every balance, hold, charge, usage record and answer. Exits 1 where any law is broken.

    --repair closes holds that have expired, as a running gateway does by itself. Nothing else is ever changed.
    """

    async def work(operator: Operator) -> tuple[int, Audit]:
        closed = await _close_expired(operator.auditor) if repair else 0
        return closed, await operator.auditor.audit()

    closed, audit = work_with(work)
    if as_json:
        report = {"right": not audit.breaches, "closed": closed, **asdict(audit)}
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(closed if repair else None, audit)
    if audit.breaches:
        sys.exit(1)


async def _close_expired(auditor: Auditor) -> int:
    closed = 0
    while more := await auditor.close_expired():
        closed += more
    return closed


def _print(closed: int | None, audit: Audit) -> None:
    if closed is not None:
        typer.echo(f"Expired holds closed: {closed}.")
    typer.echo(f"Checked: accounts {audit.accounts}, holds {audit.holds}, entries {audit.entries}.")
    if audit.overdue:
        typer.echo(f"Expired holds still open: {audit.overdue}. A running gateway closes them, or --repair.")
    for breach in audit.breaches:
        _print_breach(breach)
    typer.echo("The books are wrong." if audit.breaches else "The books are right.")


def _print_breach(breach: Breach) -> None:
    typer.echo(f"\nBroken: {breach.law}")
    for each in breach.examples:
        typer.echo(f"  {each.subject}: expected {each.expected}, found {each.found}")
    more = breach.count - len(breach.examples)
    typer.echo(f"  and {more} more\n" if more else "")
