"""Lists of items, as OpenAI pages them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Query

from src.shared.errors import InvalidRequest

MAX_ITEMS = 100


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Which part of a list of items: so many after one of them, newest first unless `order` is asc."""

    limit: int
    order: str
    after: str | None


async def item_page(
    limit: Annotated[int, Query(ge=1, le=MAX_ITEMS)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str, Query(max_length=200)] | None = None,
) -> ItemPage:
    """The page that the query names."""
    return ItemPage(limit, order, after)


ItemPageDep = Annotated[ItemPage, Depends(item_page)]


def item_list(items: Sequence[dict[str, Any]], page: ItemPage) -> dict[str, Any]:
    """A page of items, given oldest first. Raises InvalidRequest where the cursor is none of them."""
    ordered = list(items) if page.order == "asc" else list(reversed(items))
    start = 0
    if page.after is not None:
        places = [place for place, item in enumerate(ordered) if item["id"] == page.after]
        if not places:
            raise InvalidRequest("after must be the id of an item of this list.", param="after")
        start = places[0] + 1
    shown = ordered[start : start + page.limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else "",
        "last_id": shown[-1]["id"] if shown else "",
        "has_more": start + page.limit < len(ordered),
    }
