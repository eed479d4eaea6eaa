"""Which models think by effort and which by budget, where the catalog does not say."""

import pytest

from src.domain.catalog.model import ReasoningStyle
from src.domain.completion.tools import Reasoning
from src.integrations.llm.reasoning import budget_of, effort_of, style_of
from tests.unit.support import make_model


@pytest.mark.parametrize(
    ("style", "names"),
    [
        (ReasoningStyle.NONE, "gpt-4o gpt-4-turbo gpt-3.5-turbo claude-3-opus-20240229 claude-3-5-sonnet llama-4"),
        (ReasoningStyle.NONE, "gemini-2.0-flash text-embedding-3-small"),
        (ReasoningStyle.EFFORT, "o3 o4-mini gpt-5 gpt-5.1-codex openai/gpt-oss-120b gemini-3-pro-preview"),
        (ReasoningStyle.EFFORT, "claude-sonnet-5 claude-opus-4-6 claude-opus-4-7-20260101 anthropic/claude-opus-5"),
        (ReasoningStyle.BUDGET, "claude-3-7-sonnet-latest claude-sonnet-4-20250514 claude-opus-4-1 claude-haiku-4-5"),
        (ReasoningStyle.BUDGET, "claude-sonnet-4-5-20250929 gemini-2.5-flash gemini-2.5-pro"),
    ],
)
def test_a_models_name_suggests_how_it_is_told_to_think(style: ReasoningStyle, names: str) -> None:
    assert {name: style_of(make_model(name=name, upstream=name)) for name in names.split()} == dict.fromkeys(
        names.split(), style
    )


def test_efforts_and_budgets_are_made_from_each_other() -> None:
    assert effort_of(Reasoning(effort="high", budget_tokens=1)) == "high"
    assert effort_of(Reasoning(budget_tokens=2000)) == "low"
    assert effort_of(Reasoning()) is None
    assert budget_of(Reasoning(budget_tokens=5000, effort="high")) == 5000
    assert budget_of(Reasoning(effort="low")) == 2048
    assert budget_of(Reasoning(shown=True)) is None
