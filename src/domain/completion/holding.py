"""What a call may cost at the most, and how much of that is held at once."""

from dataclasses import dataclass, replace
from datetime import timedelta

from src.domain.completion.model import Call
from src.domain.completion.ports import TokenMeter
from src.domain.ledger.model import Demand, Hold, HoldId, HoldRequest
from src.shared.clock import Clock
from src.shared.ids import new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingPolicy:
    """`lease_s` is how long a hold outlives the last sign of life of its call.

    A call that its quota cannot pay for in full is admitted with as little output as `least_output_tokens`.
    """

    lease_s: float = 60.0
    least_output_tokens: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to hold now. `output_tokens` is all the output the call may come to.

    With a `step`, less than that is held at first, and more by steps while the answer is streamed.
    """

    request: HoldRequest
    output_tokens: int
    step: int | None = None

    def upstream_cap(self, hold: Hold) -> int | None:
        """The output limit to send upstream; None where nothing limits the call."""
        if hold.output_cap is None:
            return None
        return self.output_tokens if self.grows(hold) else hold.output_cap

    def grows(self, hold: Hold) -> bool:
        """Whether more is to be held while the answer goes on: not where the quota could not pay for the first step."""
        first = self.request.demand.output_tokens
        return self.step is not None and hold.output_cap is not None and hold.output_cap >= first

    def shrunk_cap(self, hold: Hold) -> int | None:
        """The output that the quota pays for, where that is less than was wished for."""
        cap = self.upstream_cap(hold)
        return cap if cap is not None and cap < self.output_tokens else None

    def grown(self, output_tokens: int) -> Demand:
        """The demand for that much output, at the most all that the call may come to."""
        return replace(self.request.demand, output_tokens=min(output_tokens, self.output_tokens))


async def plan_hold(call: Call, meter: TokenMeter, clock: Clock, policy: HoldingPolicy) -> Plan:
    """The worst case of a call over all models it may reach: the dearest rates, the longest count of its prompt."""
    now = clock()
    prompt = 0
    for model in call.route.models:
        prompt = max(prompt, await meter.prompt_bound(call.chat, model))
    rates = [model.price_at(now).worst_rates(prompt) for model in call.route.models]
    first, whole = _outputs(call)
    principal = call.principal
    request = HoldRequest(
        id=HoldId(new_id()),
        tenant_id=principal.tenant_id,
        user_id=principal.user_id,
        api_key_id=principal.api_key.id if principal.api_key else None,
        model=call.route.name,
        models=tuple(model.name for model in call.route.models),
        time_zone=principal.tenant.time_zone,
        request_id=call.request_id,
        demand=Demand(
            prompt_tokens=prompt,
            output_tokens=first,
            least_output_tokens=policy.least_output_tokens * call.chat.parameters.choices,
            rates=(max(rate[0] for rate in rates), max(rate[1] for rate in rates)),
        ),
        at=now,
        expires_at=now + timedelta(seconds=policy.lease_s),
    )
    return Plan(request=request, output_tokens=whole, step=first if first < whole else None)


async def likely_tokens(call: Call, meter: TokenMeter) -> int:
    """What the call is likely to use at the most: its prompt, and the output that is held at first."""
    return await meter.prompt_estimate(call.chat, call.route.models[0]) + _outputs(call)[0]


def _outputs(call: Call) -> tuple[int, int]:
    """How much output to hold at first, and in all.

    A model's reserve bounds what is held at first. A whole answer cannot grow: without a maximum of its own it is
    capped at the reserve; with one, all of it is held. Vectors are no output.
    """
    if call.chat.embedding is not None:
        return 0, 0
    parameters = call.chat.parameters
    models = call.route.models
    most = max(model.max_output for model in models)
    reserve = max(model.output_reserve or model.max_output for model in models)
    wish = parameters.max_output_tokens
    whole = most if wish is None else min(wish, most)
    if not call.chat.stream and wish is None:
        whole = min(whole, reserve)
    first = min(whole, reserve) if call.chat.stream else whole
    return first * parameters.choices, whole * parameters.choices
