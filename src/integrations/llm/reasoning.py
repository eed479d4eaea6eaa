"""How hard a model is to think, in its provider's words: efforts and budgets of tokens, one made from the other."""

import re
from functools import lru_cache

from src.domain.catalog.model import Model, ReasoningStyle
from src.domain.completion.tools import EFFORTS, Reasoning

BUDGETS = {"none": 0, "minimal": 1024, "low": 2048, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 65536}
"""Tokens of thought for an effort, between what providers document for theirs."""

_STYLES = (
    (re.compile(r"claude-(3-7|3\.7|(opus|sonnet|haiku)-4(-[015])?(-\d{6,}|@|$|-v\d))"), ReasoningStyle.BUDGET),
    (re.compile(r"claude-[a-z]+-([5-9]|4-[6-9])"), ReasoningStyle.EFFORT),
    (re.compile(r"gemini-2\.5"), ReasoningStyle.BUDGET),
    (re.compile(r"gemini-([3-9]|\d\d)"), ReasoningStyle.EFFORT),
    (
        re.compile(r"(o[1-9]|gpt-([5-9]|\d\d)|codex|gpt-oss|grok-([3-9]|\d\d)|deepseek-(r|v[3-9])|magistral)"),
        ReasoningStyle.EFFORT,
    ),
)


@lru_cache(maxsize=1024)
def _style_named(upstream: str) -> ReasoningStyle:
    name = upstream.rpartition("/")[2].removeprefix("ft:").lower()
    return next((style for pattern, style in _STYLES if pattern.match(name)), ReasoningStyle.NONE)


def style_of(model: Model) -> ReasoningStyle:
    """As the catalog says; where it does not, as the upstream's name suggests."""
    return model.capabilities.reasoning or _style_named(model.upstream)


def effort_of(reasoning: Reasoning) -> str | None:
    """The effort that was named, or the one whose budget is nearest to what was named."""
    if reasoning.effort is not None or reasoning.budget_tokens is None:
        return reasoning.effort
    budget = reasoning.budget_tokens
    return min(EFFORTS, key=lambda effort: abs(BUDGETS[effort] - budget))


def budget_of(reasoning: Reasoning) -> int | None:
    """The budget that was named, or that of the effort that was."""
    if reasoning.budget_tokens is not None or reasoning.effort is None:
        return reasoning.budget_tokens
    return BUDGETS[reasoning.effort]
