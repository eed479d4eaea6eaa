"""OpenAI's Conversations API: dialogs, seen as lists of items."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.api.container import Gateway
from src.api.deps import GatewayDep, JsonObject, PrincipalDep
from src.api.dialects.fields import metadata_field
from src.api.dialects.responses.ids import conversation_id, id_in
from src.api.dialects.responses.items import messages_of
from src.api.dialects.responses.kept import items_in, without_item
from src.api.dialects.responses.lists import ItemPage, ItemPageDep, item_list
from src.api.dialects.responses.references import items_told
from src.api.native import answer
from src.domain.completion.model import ChatMessage
from src.domain.dialogs import use_cases
from src.domain.dialogs.model import Dialog, DialogId, Message, MessageId, MessageStatus
from src.domain.dialogs.responding import Asked, add_to_conversation, change_conversation, conversation
from src.domain.identity.model import Principal
from src.shared.errors import InvalidRequest, NotFound

router = APIRouter(prefix="/v1/conversations", tags=["compatible"])

MAX_NEW_ITEMS = 20
"""As many as OpenAI takes at once."""


@router.post("")
async def create_conversation(
    request: Request, principal: PrincipalDep, body: JsonObject, gateway: GatewayDep
) -> Response:
    """Open a conversation, with its first items if there are any."""
    said = await _said(body, principal, gateway)
    fields = {"metadata": metadata_field(body)}
    dialog = await use_cases.create_dialog(principal, fields, gateway.dialogs)
    if said:
        await add_to_conversation(principal, dialog.id, said, _how(request, gateway), gateway.dialogs)
    return answer(_shape(dialog))


@router.get("/{name}")
async def get_conversation(name: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """One conversation."""
    return answer(_shape(await use_cases.get_dialog(principal, _dialog_id(name), gateway.dialogs)))


@router.post("/{name}")
async def update_conversation(name: str, principal: PrincipalDep, body: JsonObject, gateway: GatewayDep) -> Response:
    """Replace its metadata."""
    if "metadata" not in body:
        raise InvalidRequest("metadata is required.", param="metadata")
    changes = {"metadata": metadata_field(body)}
    return answer(_shape(await use_cases.update_dialog(principal, _dialog_id(name), changes, gateway.dialogs)))


@router.delete("/{name}")
async def delete_conversation(name: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Delete it with everything in it; what that cost stays in the ledger."""
    dialog_id = _dialog_id(name)
    await use_cases.delete_dialog(principal, dialog_id, gateway.dialogs)
    return answer({"id": conversation_id(dialog_id), "object": "conversation.deleted", "deleted": True})


@router.get("/{name}/items")
async def list_items(name: str, page: ItemPageDep, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """What was said, newest first unless the order says otherwise."""
    return answer(item_list(await _items(name, principal, gateway), page))


@router.post("/{name}/items")
async def add_items(
    request: Request, name: str, principal: PrincipalDep, body: JsonObject, gateway: GatewayDep
) -> Response:
    """Put items at its end; nothing is answered."""
    said = await _said(body, principal, gateway)
    if not said:
        raise InvalidRequest("items must be a list with at least one item.", param="items")
    how = _how(request, gateway)
    added = await add_to_conversation(principal, _dialog_id(name), said, how, gateway.dialogs)
    return answer(item_list(_items_in(added), ItemPage(MAX_NEW_ITEMS * 10, "asc", None)))


@router.get("/{name}/items/{item}")
async def get_item(name: str, item: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """One item."""
    return answer(_named(await _items(name, principal, gateway), item))


@router.delete("/{name}/items/{item}")
async def delete_item(name: str, item: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Take an item out; what follows it stays."""
    message_id = id_in(item)
    if message_id is None:
        raise NotFound(f"Item with id {item[:100]!r} not found.")
    dialog = await change_conversation(
        principal, _dialog_id(name), MessageId(message_id), lambda said: without_item(said, item), gateway.dialogs
    )
    return answer(_shape(dialog))


def _dialog_id(name: str) -> DialogId:
    """Raises NotFound for what is no id."""
    found = id_in(name)
    if found is None:
        raise NotFound(f"Conversation with id {name[:100]!r} not found.")
    return DialogId(found)


def _shape(dialog: Dialog) -> dict[str, Any]:
    return {
        "id": conversation_id(dialog.id),
        "object": "conversation",
        "created_at": int(dialog.created_at.timestamp()),
        "metadata": dict(dialog.metadata),
    }


async def _said(body: Mapping[str, Any], principal: Principal, gateway: Gateway) -> tuple[ChatMessage, ...]:
    items = body.get("items")
    if items is None:
        return ()
    if not isinstance(items, list) or len(items) > MAX_NEW_ITEMS:
        raise InvalidRequest(f"items must be a list of at most {MAX_NEW_ITEMS} items.", param="items")
    return messages_of(await items_told(items, "items", principal, gateway), "items")


def _how(request: Request, gateway: Gateway) -> Asked:
    return Asked(at=gateway.clock(), request_id=request.state.request_id, model=None, settings={})


async def _items(name: str, principal: Principal, gateway: Gateway) -> list[dict[str, Any]]:
    _, said = await conversation(principal, _dialog_id(name), gateway.dialogs)
    return _items_in([each for each in said if each.status is not MessageStatus.IN_PROGRESS])


def _items_in(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [item for each in messages for item in items_in(each)]


def _named(items: Sequence[dict[str, Any]], item_id: str) -> dict[str, Any]:
    """Raises NotFound."""
    found = next((each for each in items if each["id"] == item_id), None)
    if found is None:
        raise NotFound(f"Item with id {item_id[:100]!r} not found.")
    return found
