"""Lists of models, as Anthropic pages them."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query

MAX_MODELS = 1000

Name = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True, slots=True)
class AnthropicPage:
    """Which part of a list: up to `limit` models after one of them, or those just before one."""

    limit: int
    after_id: str
    before_id: str

    def of(self, names: Sequence[str], shape: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        """The page of a sorted list, and whether there is more in its direction."""
        start = bisect_right(names, self.after_id) if self.after_id else 0
        end = bisect_left(names, self.before_id) if self.before_id else len(names)
        asked = names[start:end]
        shown = asked[-self.limit :] if self.before_id and not self.after_id else asked[: self.limit]
        return {
            "data": [shape(name) for name in shown],
            "first_id": shown[0] if shown else None,
            "last_id": shown[-1] if shown else None,
            "has_more": len(shown) < len(asked),
        }


async def _anthropic_page(
    limit: Annotated[int, Query(ge=1, le=MAX_MODELS)] = 20, after_id: Name = "", before_id: Name = ""
) -> AnthropicPage:
    return AnthropicPage(limit, after_id, before_id)


AnthropicPageDep = Annotated[AnthropicPage, Depends(_anthropic_page)]
