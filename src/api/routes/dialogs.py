"""Dialogs and their messages."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from src.api.cache_control import cache_wish
from src.api.container import Gateway
from src.api.deps import GatewayDep, PageDep, PrincipalDep, path_id
from src.api.idempotency import answered_once
from src.api.json import dumps
from src.api.native import NativeRoute, answer, listed
from src.api.rate_headers import rate_headers
from src.api.routes.answer_events import asked_stream, exchange_headers, followed_stream, last_event_id
from src.api.routes.schemas import DialogBody, MessageBody, dialog_shape, message_shape
from src.api.sse import EventStream
from src.domain.completion.idempotency import Claim, Claimed, Kept, kept
from src.domain.dialogs import use_cases
from src.domain.dialogs.following import cancel_answer, find_answer
from src.domain.dialogs.model import DialogId, MessageId, MessageStatus
from src.domain.dialogs.sending import Exchanged, Keeping, Question, ask
from src.domain.identity.model import Principal
from src.shared.errors import NotFound
from src.shared.ids import parse_id

Search = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")]

router = APIRouter(prefix="/dialogs", tags=["dialogs"], route_class=NativeRoute)


def _dialog_id(text: str) -> DialogId:
    return DialogId(path_id(text, "dialog"))


@router.post("", status_code=201)
async def create_dialog(principal: PrincipalDep, gateway: GatewayDep, body: DialogBody | None = None) -> Response:
    """Open a dialog; every field may be left out, and so may the body."""
    fields = body.fields() if body else {}
    return answer(dialog_shape(await use_cases.create_dialog(principal, fields, gateway.dialogs)), 201)


@router.get("")
async def list_dialogs(principal: PrincipalDep, gateway: GatewayDep, page: PageDep, q: Search = None) -> Response:
    """The caller's dialogs, newest first; `q` searches titles and messages."""
    return listed(await use_cases.list_dialogs(principal, page, q or None, gateway.dialogs), dialog_shape)


@router.get("/{dialog_id}")
async def get_dialog(dialog_id: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """One dialog."""
    return answer(dialog_shape(await use_cases.get_dialog(principal, _dialog_id(dialog_id), gateway.dialogs)))


@router.patch("/{dialog_id}")
async def update_dialog(dialog_id: str, body: DialogBody, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Change what the body names."""
    changed = await use_cases.update_dialog(principal, _dialog_id(dialog_id), body.fields(), gateway.dialogs)
    return answer(dialog_shape(changed))


@router.delete("/{dialog_id}", status_code=204)
async def delete_dialog(dialog_id: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Delete a dialog with its messages."""
    await use_cases.delete_dialog(principal, _dialog_id(dialog_id), gateway.dialogs)
    return Response(status_code=204)


@router.get("/{dialog_id}/messages")
async def list_messages(dialog_id: str, principal: PrincipalDep, gateway: GatewayDep, page: PageDep) -> Response:
    """All messages of the tree, oldest first."""
    found = await use_cases.list_messages(principal, _dialog_id(dialog_id), page, gateway.dialogs)
    return listed(found, message_shape)


@router.get("/{dialog_id}/messages/{message_id}")
async def get_message(dialog_id: str, message_id: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """One message."""
    message = MessageId(path_id(message_id, "message"))
    found = await use_cases.get_message(principal, _dialog_id(dialog_id), message, gateway.dialogs)
    return answer(message_shape(found))


@router.post("/{dialog_id}/messages", status_code=201)
async def send_message(
    request: Request, dialog_id: str, body: MessageBody, principal: PrincipalDep, gateway: GatewayDep
) -> Response:
    """Ask: 201 with the pair of messages, or a stream of events where `stream` is true."""
    question = Question(
        dialog_id=_dialog_id(dialog_id),
        content=body.content,
        request_id=request.state.request_id,
        model=body.model,
        parent_id=_parent_id(body.parent_id),
        params=body.params.given() if body.params else None,
        stream=body.stream,
        cache=cache_wish(request.headers),
    )

    async def first(claim: Claim | None) -> Response:
        keeping = None if claim is None else Keeping(claim, None if body.stream else _rendered(claim))
        exchange = await ask(principal, replace(question, keeping=keeping), gateway.dialogs, gateway.completions)
        if body.stream:
            return asked_stream(exchange, question.request_id)
        exchanged = await exchange.exchanged()
        return answer(_pair(exchanged), 201, exchange_headers(exchanged) | rate_headers(exchanged.levels))

    async def attach(found: Claimed) -> EventStream:
        message_id = MessageId(found.claim.message_id or found.claim.id)
        return await _followed(request, question.dialog_id, message_id, None, principal, gateway)

    return await answered_once(request, principal, gateway, first, attach if body.stream else None)


def _pair(exchanged: Exchanged) -> dict[str, Any]:
    pair = {"user_message": message_shape(exchanged.question), "message": message_shape(exchanged.answer)}
    return {**pair, "omitted_turns": exchanged.omitted_turns}


def _rendered(claim: Claim) -> Callable[[Exchanged], Kept]:
    """How the answer is kept for whoever repeats the request."""
    return lambda exchanged: kept(
        claim, 201, "application/json", [dumps(_pair(exchanged))], exchange_headers(exchanged)
    )


@router.get("/{dialog_id}/messages/{message_id}/events")
async def answer_events(
    request: Request, dialog_id: str, message_id: str, principal: PrincipalDep, gateway: GatewayDep
) -> Response:
    """The events of an answer, running or finished, after the `Last-Event-ID` that was seen; from the start without."""
    message = MessageId(path_id(message_id, "message"))
    return await _followed(request, _dialog_id(dialog_id), message, last_event_id(request), principal, gateway)


async def _followed(
    request: Request,
    dialog_id: DialogId,
    message_id: MessageId,
    seen: int | None,
    principal: Principal,
    gateway: Gateway,
) -> EventStream:
    found = await find_answer(principal, dialog_id, message_id, gateway.dialogs)
    created: dict[str, Any] | None = None
    if seen is None:
        question = MessageId(found.parent_id or found.id)
        asked = await use_cases.get_message(principal, dialog_id, question, gateway.dialogs)
        created = {"user_message": message_shape(asked)}
    return followed_stream(found, created, seen or 0, principal, gateway, request.state.request_id)


@router.post("/{dialog_id}/messages/{message_id}/cancel")
async def cancel(dialog_id: str, message_id: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Stop an answer: what was generated is kept and charged. 202 while the replica that makes it has not heard yet."""
    message = MessageId(path_id(message_id, "message"))
    ended = await cancel_answer(principal, _dialog_id(dialog_id), message, gateway.dialogs, gateway.completions)
    return answer(message_shape(ended), 202 if ended.status is MessageStatus.IN_PROGRESS else 200)


def _parent_id(text: str | None) -> MessageId | None:
    if text is None:
        return None
    found = parse_id(text)
    if found is None:
        raise NotFound("The parent message is not in this dialog.", param="parent_id")
    return MessageId(found)
