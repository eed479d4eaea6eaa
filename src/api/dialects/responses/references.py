"""Items that a client names instead of telling them: what was said before and is kept here."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from src.api.container import Gateway
from src.api.dialects.responses.items import place_of, references_in, with_items
from src.api.dialects.responses.kept import items_in
from src.api.dialects.responses.request import ResponsesRequest, parse_response
from src.domain.dialogs.model import MessageId
from src.domain.dialogs.responding import said_before
from src.domain.identity.model import Principal
from src.shared.errors import InvalidRequest, NotFound

MAX_REFERENCED = 200
"""The most messages that one request may name items of: each is read by itself."""


async def with_referenced_items(asked: ResponsesRequest, principal: Principal, gateway: Gateway) -> ResponsesRequest:
    """The same request with every item told that it names. Raises what `items_told` does."""
    given = asked.body.get("input")
    if not references_in(given):
        return asked
    body = {**asked.body, "input": await items_told(given, "input", principal, gateway)}
    return parse_response(body, asked.headers)


async def items_told(items: Any, where: str, principal: Principal, gateway: Gateway) -> Any:
    """The same list of items with every one told that is only named.

    Raises NotFound for an item that is no part of a dialog of the user's own.
    """
    names = references_in(items)
    if not names:
        return items
    places = {name: place[0] for name in names if (place := place_of(name)) is not None}
    found = await _items(set(places.values()), where, principal, gateway)
    if missing := next((name for name in names if name not in found), None):
        raise NotFound(f"Item with id {missing[:100]!r} not found.", param=where)
    return with_items(items, found)


async def _items(
    messages: set[UUID], where: str, principal: Principal, gateway: Gateway
) -> Mapping[str, Mapping[str, Any]]:
    """All items of some messages by their ids; nothing of those that are not the user's."""
    if len(messages) > MAX_REFERENCED:
        raise InvalidRequest(f"The items named are of more than {MAX_REFERENCED} messages.", param=where)
    said = await said_before(principal, map(MessageId, sorted(messages)), gateway.dialogs)
    items = (item for each in said for item in items_in(each))
    return {item["id"]: item for item in items}
