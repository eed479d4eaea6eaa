"""How much Anthropic's models are to think."""

from dataclasses import dataclass, field
from typing import Any

from src.domain.catalog.model import ReasoningStyle
from src.domain.completion.model import UpstreamRequest
from src.domain.completion.tools import Reasoning
from src.integrations.llm.anthropic.relay import MIN_THINKING_TOKENS
from src.integrations.llm.anthropic.tools import forces_a_tool
from src.integrations.llm.anthropic.turns import Turns
from src.integrations.llm.reasoning import BUDGETS, budget_of, effort_of, style_of

_EFFORTS = {"none": "low", "minimal": "low"}
"""The least there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """The SDK's arguments for it. `is_wished`: what was asked for is all said."""

    arguments: dict[str, Any] = field(default_factory=dict)
    effort: str | None = None
    is_on: bool = False
    is_wished: bool = True


OFF = Thought()
NOT_HERE = Thought(is_wished=False)


def thinking(request: UpstreamRequest, max_tokens: int, turns: Turns) -> Thought:
    """Off where it is wished and cannot be: with tools that must be called, or without the thoughts of before."""
    wished = request.chat.parameters.reasoning
    style = style_of(request.model)
    if wished is None:
        return OFF
    if budget_of(wished) == 0:
        return Thought(arguments={"thinking": {"type": "disabled"}}) if style is ReasoningStyle.EFFORT else OFF
    match style:
        case ReasoningStyle.NONE:
            return NOT_HERE
        case ReasoningStyle.BUDGET:
            if forces_a_tool(request.chat) or turns.lacks_a_thought:
                return NOT_HERE
            return _by_budget(wished, max_tokens)
        case ReasoningStyle.EFFORT:
            return _by_effort(wished, is_possible=not forces_a_tool(request.chat))


def _by_budget(wished: Reasoning, max_tokens: int) -> Thought:
    """A budget that leaves nothing of the maximum is refused: then a quarter is kept for the answer."""
    budget = budget_of(wished)
    budget = max(MIN_THINKING_TOKENS, BUDGETS["medium"] if budget is None else budget)
    if budget >= max_tokens:
        budget = max(MIN_THINKING_TOKENS, max_tokens - max_tokens // 4)
    if budget >= max_tokens:
        return NOT_HERE
    return Thought(arguments={"thinking": {"type": "enabled", "budget_tokens": budget}}, is_on=True)


def _by_effort(wished: Reasoning, *, is_possible: bool) -> Thought:
    """An effort is meant for the whole answer; thinking is the model's to decide."""
    effort = effort_of(wished)
    effort = None if effort is None else _EFFORTS.get(effort, effort)
    if not is_possible:
        return Thought(effort=effort, is_wished=False)
    shown = {"display": "summarized"} if wished.shown else {}
    return Thought(arguments={"thinking": {"type": "adaptive", **shown}}, effort=effort, is_on=True)
