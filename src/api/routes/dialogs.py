"""Dialogs and their messages."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from src.api.deps import GatewayDep, PageDep, PrincipalDep, RequestId, path_id
from src.api.dialects.fields import dropped_by, dropped_header
from src.api.errors import Dialect, error_response
from src.api.native import NativeRoute, answer, listed
from src.api.routes.schemas import DialogBody, MessageBody, dialog_shape, message_shape
from src.api.sse import EventStream, event
from src.domain.completion.model import TextDelta
from src.domain.dialogs import use_cases
from src.domain.dialogs.model import DialogId, Message, MessageId, MessageStatus
from src.domain.dialogs.sending import Exchanging, Question, ask, ended_answer
from src.shared.errors import GatewayError, NotFound
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
    dialog_id: str, body: MessageBody, principal: PrincipalDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Ask: 201 with the pair of messages, or a stream of events where `stream` is true."""
    question = Question(
        dialog_id=_dialog_id(dialog_id),
        content=body.content,
        request_id=request_id,
        model=body.model,
        parent_id=_parent_id(body.parent_id),
        params=body.params.given() if body.params else None,
        stream=body.stream,
    )
    exchange = await ask(principal, question, gateway.dialogs, gateway.completions)
    if body.stream:
        return _stream(exchange, request_id)
    ended = await exchange.ended()
    pair = {"user_message": message_shape(exchange.question), "message": message_shape(ended)}
    return answer({**pair, "omitted_turns": exchange.omitted_turns}, 201, _headers(exchange, ended))


def _parent_id(text: str | None) -> MessageId | None:
    if text is None:
        return None
    found = parse_id(text)
    if found is None:
        raise NotFound("The parent message is not in this dialog.", param="parent_id")
    return MessageId(found)


def _headers(exchange: Exchanging, ended: Message) -> dict[str, str]:
    return {
        "x-gateway-model": ended.model or "",
        "x-gateway-attempts": str(exchange.answering.attempts),
        "x-gateway-cost-micro-usd": str(ended.cost_micro_usd),
        **_dropped(exchange),
    }


def _dropped(exchange: Exchanging) -> dict[str, str]:
    """Sampling parameters that the model (in a stream not yet known to be another: the first of its chain) refuses."""
    call = exchange.answering.call
    model = exchange.answering.model or call.route.models[0]
    return dropped_header(dropped_by(call.chat.parameters, sampling=model.capabilities.sampling, untranslated=()))


def _stream(exchange: Exchanging, request_id: str) -> EventStream:
    return EventStream(
        _events(exchange),
        headers=lambda: _dropped(exchange),
        failed=lambda error: error_response(error, Dialect.NATIVE, request_id),
    )


async def _events(exchange: Exchanging) -> AsyncGenerator[bytes]:
    """message.created, message.delta …, and message.completed or message.failed; ids count up from 0."""
    created = {
        "message": message_shape(exchange.answer),
        "user_message": message_shape(exchange.question),
        "omitted_turns": exchange.omitted_turns,
    }
    yield event(created, name="message.created", event_id="0")
    number = 0
    deltas = exchange.answering.deltas()
    try:
        async for delta in deltas:
            if isinstance(delta, TextDelta):
                number += 1
                yield event({"text": delta.text}, name="message.delta", event_id=str(number))
    finally:
        await deltas.aclose()
    name, data = await _end(exchange)
    yield event(data, name=name, event_id=str(number + 1))


async def _end(exchange: Exchanging) -> tuple[str, dict[str, object]]:
    """The last event: the answer as it was stored."""
    try:
        outcome = await exchange.answering.outcome()
    except GatewayError as error:
        lost = {**message_shape(exchange.answer), "status": MessageStatus.FAILED.value}
        return "message.failed", {"error": {"code": error.specific_code, "message": error.message}, "message": lost}
    ended = ended_answer(exchange.answer, outcome)
    if outcome.error is None:
        return "message.completed", {"message": message_shape(ended)}
    return "message.failed", {"error": ended.error, "message": message_shape(ended)}
