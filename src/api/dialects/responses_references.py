"""Items that a client names instead of telling them: what was answered before and is kept here."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from src.api.container import Gateway
from src.api.dialects.responses_items import items_of, place_of, references_in, with_items
from src.api.dialects.responses_request import ResponsesRequest, parse_response
from src.domain.dialogs.model import MessageId
from src.domain.dialogs.responding import get_answer
from src.domain.dialogs.storing import chat_message
from src.domain.identity.model import Principal
from src.shared.errors import InvalidRequest, NotFound

MAX_REFERENCED = 200
"""The most answers that one request may name items of: each is read by itself."""


async def with_referenced_items(asked: ResponsesRequest, principal: Principal, gateway: Gateway) -> ResponsesRequest:
    """The same request with every item told that it names.

    Raises NotFound for an item that is no part of an answer of the user's own.
    """
    names = references_in(asked.body.get("input"))
    if not names:
        return asked
    answers = {name: place[0] for name in names if (place := place_of(name)) is not None}
    found = await _items(set(answers.values()), principal, gateway)
    if missing := next((name for name in names if name not in found), None):
        raise NotFound(f"Item with id {missing[:100]!r} not found.", param="input")
    body = {**asked.body, "input": with_items(asked.body["input"], found)}
    return parse_response(body, asked.headers)


async def _items(answers: set[UUID], principal: Principal, gateway: Gateway) -> Mapping[str, Mapping[str, Any]]:
    """All items of some answers by their ids; nothing of those that are not the user's."""
    if len(answers) > MAX_REFERENCED:
        raise InvalidRequest(f"The input names items of more than {MAX_REFERENCED} responses.", param="input")
    found: dict[str, Mapping[str, Any]] = {}
    for answer_id in sorted(answers):
        try:
            answer = await get_answer(principal, MessageId(answer_id), gateway.dialogs)
        except NotFound:
            continue
        items = items_of(chat_message(answer), answer.id, removed=answer.removed)
        found |= {item["id"]: item for item in items}
    return found
