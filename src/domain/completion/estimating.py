"""What a call would hold and cost, and who would refuse it: said beforehand, by the arithmetic of the call itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from src.domain.catalog.model import Model, Usage
from src.domain.completion.abilities import refuse_other_jobs
from src.domain.completion.holding import Plan, plan_hold
from src.domain.completion.model import Call, UpstreamRequest
from src.domain.completion.use_cases import CompletionPorts
from src.domain.ledger.book import Book
from src.domain.ledger.model import Hold, Unit
from src.domain.ledger.standing import QuotaStanding, standings_of
from src.domain.unit_of_work import OpenUnitOfWork
from src.shared.errors import QuotaExceeded
from src.shared.money import MicroDollars, Rate, rounded_up


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEstimate:
    """A model that the call may reach, what it would be sent and what it would cost there.

    `is_available`: its provider is configured. `is_left_out`: a quota of its own cannot pay, that of another can.
    `input_tokens` is our estimate of the prompt; `output_tokens_cap` is sent upstream, None where nothing limits.
    `rates` are those of (input, output) that a prompt of that size has. It costs `least` with no word of an answer, and
    `most` with the longest count of the prompt and the longest answer.
    """

    model: Model
    is_available: bool
    is_left_out: bool
    input_tokens: int
    output_tokens_cap: int | None
    rates: tuple[Rate, Rate]
    least: MicroDollars
    most: MicroDollars


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """A quota that the call counts in, as it stands, and what the call would hold of it at first."""

    standing: QuotaStanding
    would_hold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`models` come in the order in which they are tried; `input_tokens_bound` is the longest count of any of them.

    `needed` is what is held at first in each unit that has a quota; of a call that is refused, the least that it needs.
    `is_shrunk`: the quotas pay for less output than was wished for. `refusals` is empty where the call is admitted.
    """

    model: str
    models: tuple[ModelEstimate, ...]
    input_tokens_bound: int
    needed: Mapping[Unit, int]
    is_shrunk: bool
    refusals: tuple[QuotaExceeded, ...]
    payers: tuple[Payer, ...]

    @property
    def first(self) -> ModelEstimate:
        """The model that is likely to answer: the first that can be called."""
        callable_ones = (each for each in self.models if each.is_available and not each.is_left_out)
        return next(callable_ones, self.models[0])

    @property
    def worst(self) -> MicroDollars:
        """What the call costs at the most, whichever of its models answers."""
        return max(each.most for each in self.models if not each.is_left_out)


async def estimate(call: Call, ports: CompletionPorts, open_reading: OpenUnitOfWork) -> Estimate:
    """The call as it would be admitted or refused now. Nothing is written, held or called.

    Raises InvalidRequest for a model that is for something else.
    """
    refuse_other_jobs(call.route, call.chat)
    answers = ports.answers
    plan = await plan_hold(call, answers.meter, answers.clock, answers.holding)
    request = plan.request
    async with open_reading(request.tenant_id) as uow:
        standings = await standings_of(uow, request.scopes, request.at, request.time_zone)
    book = Book(each.account for each in standings)
    paying = {account.id for account in book.payers(request)}
    refusals = book.refusals(request)
    hold = None if refusals else book.open(request)
    held = {line.account_id: line.amount for line in hold.lines} if hold else {}
    return Estimate(
        model=call.route.name,
        models=tuple([await _at_model(model, call, plan, hold, ports) for model in call.route.models]),
        input_tokens_bound=request.demand.prompt_tokens,
        needed=_needed(plan, hold),
        is_shrunk=hold is not None and plan.shrunk_cap(hold) is not None,
        refusals=tuple(refusals),
        payers=tuple(
            Payer(standing=each, would_hold=held.get(each.account.id, 0))
            for each in standings
            if each.account.id in paying
        ),
    )


def _needed(plan: Plan, hold: Hold | None) -> dict[Unit, int]:
    demand = plan.request.demand
    if hold is None:
        output = demand.least_output
    else:
        output = demand.output_tokens if hold.output_cap is None else hold.output_cap
    return {unit: demand.needed(unit, output) for unit in Unit}


async def _at_model(model: Model, call: Call, plan: Plan, hold: Hold | None, ports: CompletionPorts) -> ModelEstimate:
    answers = ports.answers
    price = model.price_at(plan.request.at)
    likely = await answers.meter.prompt_estimate(call.chat, model)
    cap = plan.output_tokens if hold is None else plan.upstream_cap(hold)
    sent = UpstreamRequest(model=model, chat=call.chat, output_cap=cap).max_output_tokens
    longest = model.max_output if sent is None else min(sent, model.max_output)
    bound = plan.request.demand.prompt_tokens
    input_rate, output_rate = price.worst_rates(bound)
    rates = price.rates_for(likely)
    return ModelEstimate(
        model=model,
        is_available=any(map(answers.routing.upstreams.is_ready, ports.catalog.current().providers_of(model))),
        is_left_out=hold is not None and model.name in hold.excluded_models,
        input_tokens=likely,
        output_tokens_cap=sent,
        rates=(rates.input, rates.output),
        least=price.cost(Usage(input_tokens=likely)),
        most=rounded_up(bound * input_rate + longest * output_rate),
    )
