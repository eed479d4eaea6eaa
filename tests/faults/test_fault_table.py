"""Each fault x each door x (whole, stream) x (one model, a chain whose second model works).

What is heard, charged and stored follows from what the fault is and when it strikes.
"""

from __future__ import annotations

import asyncio

import pytest

from src.domain.completion.model import Failure
from tests.faults.scene import LANES, Cell, Lane, Scene, Seen
from tests.faults.table import FAULTS, PROPER, Fault, Kinds
from tests.http.surface import NATIVE
from tests.http.ways import details_of

pytestmark = pytest.mark.asyncio(loop_scope="package")

THE_CALLERS = (Failure.CALLER, Failure.CONTEXT_WINDOW)
ONLY_THE_CALLERS: Kinds = frozenset({Failure.CALLER})
"""No other model is asked."""
NATIVE_CODES = ("provider_failed", "provider_timeout", "invalid_request", "context_length_exceeded")
WHOLE_TOKENS, WHOLE_COST = 45, 85
MOST_DELIVERED_TOKENS = 500
CASES = [
    pytest.param(fault, lane, id=f"{fault}-{lane}")
    for fault in FAULTS
    for lane in LANES
    if lane.name not in fault.not_for
]


@pytest.mark.parametrize(("fault", "lane"), CASES)
async def test_it_is_told_charged_and_stored_as_what_it_is(fault: Fault, lane: Lane, scene: Scene) -> None:
    wholes = [Cell(lane, stream=False, chained=chained) for chained in (False, True)]
    streams = [Cell(lane, stream=True, chained=chained) for chained in (False, True)]
    cells = (wholes if fault.whole else []) + (streams if fault.stream else [])
    before = await scene.balance()
    await scene.befall(fault, cells)
    try:
        all_seen = await asyncio.gather(*(scene.ask(cell) for cell in cells))
    finally:
        await scene.clear()
    for cell, seen in zip(cells, all_seen, strict=True):
        scene.report.add(fault, cell, seen)
    for cell, seen in zip(cells, all_seen, strict=True):
        check(fault, cell, seen)
    assert before - await scene.balance() == sum(seen.tokens for seen in all_seen)


def check(fault: Fault, cell: Cell, seen: Seen) -> None:
    """Fails with the cell's name."""
    facts = f"{cell.lane} {cell}: {seen}, {seen.outcomes}"
    if fault.kinds is None:
        assert seen.error is None, facts
        assert seen.outcomes == [(cell.wild, "ok")], facts
        check_whole_charge(seen, facts)
        return
    failed = [outcome for model, outcome in seen.outcomes if model == cell.wild]
    assert failed, facts
    if len(failed) == 2 and failed[0] == Failure.DROPPED:  # on a connection that the fault before has spoilt
        del failed[0]
    assert {Failure(outcome) for outcome in failed} <= fault.kinds, facts
    assert len(failed) <= 2, facts
    if cell.stream and cell.lane.dialect != NATIVE and fault.begins is not None:
        assert (seen.begun and seen.error is not None) is fault.begins, facts
    if seen.error is None:
        check_the_next_model_answered(fault, cell, seen, facts)
    elif seen.begun and seen.tokens:
        check_a_broken_stream(cell, seen, facts)
    else:
        check_a_failure(fault, cell, seen, facts)


def check_whole_charge(seen: Seen, facts: str) -> None:
    assert (seen.tokens, seen.cost_micro_usd) == (WHOLE_TOKENS, WHOLE_COST), facts


def check_the_next_model_answered(fault: Fault, cell: Cell, seen: Seen, facts: str) -> None:
    assert cell.chained, facts
    assert fault.kinds is not None
    assert fault.kinds != ONLY_THE_CALLERS, facts
    assert seen.outcomes[-1] == (cell.lane.spare, "ok"), facts
    assert seen.text == PROPER.text, facts
    check_whole_charge(seen, facts)


def check_a_broken_stream(cell: Cell, seen: Seen, facts: str) -> None:
    """Nobody else is asked any more, and what was delivered is charged."""
    assert cell.stream, facts
    assert {model for model, _ in seen.outcomes} == {cell.wild}, facts
    assert 0 < seen.tokens < MOST_DELIVERED_TOKENS, facts
    assert 0 < seen.cost_micro_usd <= 2 * seen.tokens, facts


def check_a_failure(fault: Fault, cell: Cell, seen: Seen, facts: str) -> None:
    assert not cell.chained or fault.kinds == ONLY_THE_CALLERS, facts
    assert (seen.tokens, seen.cost_micro_usd) == (0, 0), facts
    assert seen.error is not None
    if cell.stream and cell.lane.dialect == NATIVE:  # it had said that it would answer
        assert seen.error["code"] in NATIVE_CODES, facts
        return
    assert seen.status == expected_status(cell, seen.failed_as), facts
    if seen.failed_as not in THE_CALLERS:
        assert details_of(seen.error, cell.way)["reason"] == seen.failed_as.value, facts


def expected_status(cell: Cell, failure: Failure) -> int:
    if failure in THE_CALLERS:
        return 422 if cell.lane.dialect == NATIVE else 400
    return 504 if failure is Failure.TIMEOUT else 502
