"""What a scripted provider remembers of its own answers, to know them again in a history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.behaviours import ToolCall, signature_of
from tests.support.upstream_plan import Plan, call_id, compact

ALLOWED_PREFIXES = ("x_", "xUnknown")
"""Fields that begin so are unknown to every provider and yet accepted: they prove that what is unknown is passed on."""


@dataclass(slots=True, kw_only=True)
class Memory:
    """One provider's. `lenient` accepts every unknown field.

    `thoughts` are what it thought, by signature; `redacted` is the data of thoughts it did not show; `responses` the
    calls of each stored response by its id; `items` the ids of stored output items. `signed_calls` are the signatures
    of tool calls that were given with one, by the calls' ids, and by what was called for clients that lose the ids.
    """

    lenient: bool = False
    thoughts: dict[str, str] = field(default_factory=dict)
    redacted: set[str] = field(default_factory=set)
    signed_calls: dict[str, str] = field(default_factory=dict)
    responses: dict[str, frozenset[str]] = field(default_factory=dict)
    items: set[str] = field(default_factory=set)

    def note(self, plan: Plan) -> None:
        if plan.thoughts:
            self.thoughts[plan.signature] = plan.thinking
        if plan.answer.redacted is not None:
            self.redacted.add(plan.answer.redacted)

    def note_signed(self, call_id: str, called: ToolCall, signature: str) -> None:
        self.signed_calls[call_id] = signature
        self.signed_calls.setdefault(_called(called.name, called.arguments), signature)

    def call_signature(self, call_id: str | None, name: str, arguments: Mapping[str, Any]) -> str | None:
        """What the call was given with; None for one that this provider did not sign."""
        return self.signed_calls.get(call_id or _called(name, arguments))

    def note_response(self, plan: Plan, response_id: str, item_ids: list[str]) -> None:
        self.responses[response_id] = frozenset(call_id(plan, n, "call_") for n in range(len(plan.tool_calls)))
        self.items.update(item_ids)

    def signed(self, signature: Any, thinking: str) -> bool:
        """Whether this provider signed that thought; a thought may come back empty, as it was when not displayed."""
        if signature in self.thoughts:
            return thinking in (self.thoughts[signature], "")
        return bool(signature == signature_of(thinking))

    def accepts(self, name: str) -> bool:
        """Whether an unknown field of this name is let through."""
        return self.lenient or name.startswith(ALLOWED_PREFIXES)


def _called(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{name} {compact(dict(sorted(arguments.items())))}"
