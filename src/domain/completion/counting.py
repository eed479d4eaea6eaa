"""How many tokens a prompt has: as the provider says that would read it, else as we estimate. It costs nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.domain.completion.model import ChatRequest, UpstreamFailed, UpstreamRequest
from src.domain.completion.use_cases import CompletionPorts, resolve
from src.domain.identity.model import Principal
from src.domain.limits.model import Level
from src.domain.routing.candidates import Candidate, candidates, sticky_word


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCount:
    """The tokens of a prompt for one model, as it is called here.

    `told` is the provider's own answer, in the format of the client's body; None where the count is our estimate.
    `levels` are the rate limits that the question counted in.
    """

    model: str
    input_tokens: int
    told: Mapping[str, Any] | None = None
    levels: Sequence[Level] = ()


async def count_prompt(principal: Principal, name: str, chat: ChatRequest, ports: CompletionPorts) -> PromptCount:
    """Count for the model that would be called first. Nothing is held, charged or told to breakers.

    It counts as a request in the rate limits. Raises NotFound and NotAllowed for the name, and LimitReached.
    """
    route = resolve(ports.catalog.current(), principal, name)
    permit = await ports.limiter.admit(principal, route.name, _no_tokens)
    try:
        answers = ports.answers
        providers = ports.catalog.current().providers
        line = candidates(
            route,
            providers,
            answers.routing.board,
            stream=chat.stream,
            sticky=sticky_word(chat, None),
            now=answers.clock(),
        )
        ready = (each for each in line if answers.routing.upstreams.is_ready(each.provider))
        return await _counted(next(ready, line[0]), chat, ports, permit.levels)
    finally:
        await permit.end(0)


async def _counted(
    candidate: Candidate, chat: ChatRequest, ports: CompletionPorts, levels: Sequence[Level]
) -> PromptCount:
    model, upstreams = candidate.model, ports.answers.routing.upstreams
    if chat.wire is not None and chat.wire.format in candidate.provider.formats:
        try:
            told = await upstreams.count_prompt(UpstreamRequest(model=model, chat=chat), candidate.provider)
        except UpstreamFailed:
            pass  # our estimate will do
        else:
            return PromptCount(model=model.name, input_tokens=told.input_tokens, told=told.body, levels=levels)
    estimate = await ports.answers.meter.prompt_estimate(chat, model)
    return PromptCount(model=model.name, input_tokens=estimate, levels=levels)


async def _no_tokens() -> int:
    return 0
