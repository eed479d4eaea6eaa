"""Answers kept alive while nobody awaits them, and ended at shutdown."""

import asyncio

import pytest

from src.domain.catalog.model import Price
from src.domain.completion.deltas import TextDelta
from src.domain.completion.use_cases import TaskKeeper, begin, resolve
from src.domain.ledger.model import CallStatus, HoldState
from src.shared.errors import InvalidRequest, NotAllowed, NotFound, Unavailable
from tests.makers import make_key, make_user
from tests.unit.support import (
    DONE,
    FakeLedger,
    FakeUpstreams,
    Gate,
    ScriptedModel,
    answers,
    completion_ports,
    make_call,
    make_catalog,
    make_model,
    make_principal,
    usd,
)


def kept(keeper: TaskKeeper, gate: Gate) -> "asyncio.Task[None]":
    task = asyncio.create_task(gate.wait())
    keeper.keep(task, gate.opened.set)
    return task


async def test_a_task_is_kept_until_it_is_done() -> None:
    keeper, gate = TaskKeeper(most=1), Gate()
    task = kept(keeper, gate)
    assert keeper.running == {task}
    gate.opened.set()
    await task
    await asyncio.sleep(0)
    assert keeper.running == set()
    keeper.admit()


async def test_no_more_are_admitted_than_can_be_served() -> None:
    keeper, gate = TaskKeeper(most=2), Gate()
    tasks = [kept(keeper, gate), kept(keeper, gate)]
    with pytest.raises(Unavailable):
        keeper.admit()
    gate.opened.set()
    await asyncio.gather(*tasks)


def test_nobody_is_admitted_once_it_drains() -> None:
    keeper = TaskKeeper(most=1)
    keeper.admit()
    keeper.stop_admitting()
    assert keeper.is_draining
    with pytest.raises(Unavailable):
        keeper.admit()


async def test_draining_with_nothing_under_way_is_over_at_once() -> None:
    keeper = TaskKeeper(most=1)
    await keeper.drain(60)
    assert keeper.is_draining


async def test_draining_waits_for_what_is_under_way() -> None:
    keeper, gate = TaskKeeper(most=1), Gate()
    task = kept(keeper, gate)
    draining = asyncio.create_task(keeper.drain(60))
    await gate.reached.wait()
    assert not draining.done()
    gate.opened.set()
    await draining
    assert task.done()


@pytest.mark.parametrize("timeout_s", [0, 0.01])
async def test_draining_stops_what_outlasts_its_time(timeout_s: float) -> None:
    keeper, gate = TaskKeeper(most=1), Gate()
    task = kept(keeper, gate)
    await keeper.drain(timeout_s)
    assert task.done()
    assert not task.cancelled()


@pytest.mark.parametrize("timeout_s", [0, 0.01])
async def test_answers_cut_off_by_a_shutdown_are_settled(timeout_s: float) -> None:
    ledger = FakeLedger()
    upstreams = FakeUpstreams(fast=ScriptedModel([TextDelta("fine"), Gate(), DONE]))
    ports = completion_ports(ledger, upstreams, make_catalog())
    answering = await begin(make_call(), ports)
    await ports.keeper.drain(timeout_s)
    outcome = await answering.outcome()
    assert outcome.status is CallStatus.INTERRUPTED
    assert isinstance(outcome.error, Unavailable)
    assert ledger.states == [HoldState.SETTLED]


async def test_a_shutdown_does_not_break_into_a_settlement() -> None:
    ledger = FakeLedger()
    ledger.gate = Gate()
    ports = completion_ports(ledger, FakeUpstreams(fast=ScriptedModel(answers("fine"))), make_catalog())
    answering = await begin(make_call(), ports)
    draining = asyncio.create_task(ports.keeper.drain(0))
    await ledger.gate.reached.wait()
    await asyncio.sleep(0.01)
    ledger.gate.opened.set()
    await draining
    assert (await answering.outcome()).status is CallStatus.COMPLETED


async def test_a_call_that_is_not_admitted_holds_nothing() -> None:
    ledger = FakeLedger()
    ports = completion_ports(ledger, FakeUpstreams(), make_catalog())
    ports.keeper.stop_admitting()
    with pytest.raises(Unavailable):
        await begin(make_call(), ports)
    assert ledger.book.opened == []


def test_a_key_of_some_models_may_use_those_and_no_others() -> None:
    user = make_user(make_principal().tenant)
    principal = make_principal(user=user, api_key=make_key(user, models=("fast", "gone")))
    catalog = make_catalog(make_model(), make_model(name="slow"), default_model="fast")
    assert resolve(catalog, principal, None).name == "fast"
    with pytest.raises(NotAllowed):
        resolve(catalog, principal, "slow")
    with pytest.raises(NotFound):
        resolve(catalog, principal, "gone")


def test_a_user_without_a_scoped_key_may_use_every_model() -> None:
    catalog = make_catalog(make_model(), make_model(name="slow"))
    assert resolve(catalog, make_principal(), "slow").name == "slow"
    with pytest.raises(InvalidRequest):
        resolve(catalog, make_principal(), None)


async def test_a_hold_covers_the_dearest_the_longest_and_the_latest_of_a_chain() -> None:
    dear_input = make_model(prices=(Price(input=usd(9), output=usd(1)),))
    dear_output = make_model(name="slow", prices=(Price(input=usd(1), output=usd(8)),), max_output=300)
    call = make_call(dear_input, dear_output, name="smart")
    ledger = FakeLedger()
    ports = completion_ports(ledger, FakeUpstreams(fast=ScriptedModel(answers("fine"))), make_catalog())
    await (await begin(call, ports)).outcome()
    (request,) = ledger.requests
    assert request.demand.rates == (usd(9), usd(8))
    assert (request.demand.prompt_tokens, request.demand.output_tokens) == (13, 300)
    assert (request.expires_at - request.at).total_seconds() == 60
    assert (request.model, request.models) == ("smart", ("fast", "slow"))
