"""What is kept behind OpenAI's Responses API: answers of dialogs, asked for, told again, listened to again."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

from fastapi import Request
from starlette.responses import Response

from src.api.container import Gateway
from src.api.dialects.request import ParsedRequest
from src.api.dialects.responses.ids import id_in, response_id
from src.api.dialects.responses.items import grouped
from src.api.dialects.responses.kept import asked_tools, item_status, output_items
from src.api.dialects.responses.references import with_referenced_items
from src.api.dialects.responses.reply import response_body, status_of
from src.api.dialects.responses.request import NAMES, ResponsesRequest, chat_of, namespaces_in, parse_response
from src.api.dialects.responses.stream import ResponsesWriter, after, end_after
from src.api.dialects.streaming import Door, Stateful, serve
from src.api.errors import Dialect, error_body, error_response
from src.api.sse import KEEPALIVE, EventStream
from src.domain.catalog.model import Usage
from src.domain.completion.content import Part
from src.domain.completion.deltas import PartDelta, grown
from src.domain.completion.model import ChatMessage, ChatRequest, ChatRole, FinishReason, Outcome, WireChunk
from src.domain.completion.use_cases import resolve
from src.domain.dialogs.following import growing
from src.domain.dialogs.model import DialogId, Message, MessageId, MessageStatus
from src.domain.dialogs.removing import Entry, Removed, entries_of
from src.domain.dialogs.responding import Asked, Place, get_answer, place_of
from src.domain.dialogs.storing import call_status
from src.domain.identity.model import Principal
from src.shared.errors import GatewayError, InvalidRequest, NotFound, ProvidersFailed
from src.shared.ids import new_id

ENDPOINT = "responses"


async def respond(asked: ResponsesRequest, principal: Principal, request: Request, gateway: Gateway) -> Response:
    """Answer, and keep the answer in a dialog unless the client wishes otherwise."""
    asked = await with_referenced_items(asked, principal, gateway)
    place = await _told(asked, principal, gateway)
    is_said = any(each.text or each.parts for each in asked.inputs)
    if not (is_said or place.path or asked.echo["prompt"]):
        raise InvalidRequest("input is required: nothing has been said so far.", param="input")
    how = Asked(
        at=gateway.clock(),
        request_id=request.state.request_id,
        model=asked.model,
        settings={"response": dict(asked.echo), "model": asked.model},
    )
    is_stored = asked.store or asked.conversation is not None
    storing = place.storing(principal, asked.inputs, how) if is_stored else None
    answer_id = storing.answer.id if storing else new_id()
    name = response_id(answer_id)
    parsed = chat_of(asked, _history(asked, place), name)

    def writer(parsed: ParsedRequest, answer_id: UUID) -> ResponsesWriter:
        return ResponsesWriter(
            parsed,
            answer_id,
            echo=asked.echo,
            response_id=response_id(answer_id),
            created_at=how.at,
            namespaces=namespaces_in(asked),
        )

    def accepted() -> Mapping[str, Any]:
        return response_body(
            response_id=name, created_at=how.at, model=asked.model, echo=asked.echo, status="queued", output=[]
        )

    async def again(found: UUID) -> Mapping[str, Any]:
        return told_again(await get_answer(principal, MessageId(found), gateway.dialogs))

    stateful = Stateful(
        answer_id=answer_id,
        storing=storing,
        background=asked.background,
        accepted=accepted if asked.background and not asked.stream else None,
        again=again,
    )
    door = Door(dialect=Dialect.OPENAI, endpoint=ENDPOINT, writer=writer, names=NAMES)
    return await serve(door, parsed, principal, request, gateway, stateful)


async def asked_chat(asked: ResponsesRequest, principal: Principal, gateway: Gateway) -> ParsedRequest:
    """What a model would be asked, with everything that was said before. Raises what `respond` does."""
    asked = await with_referenced_items(asked, principal, gateway)
    place = await _told(asked, principal, gateway)
    return chat_of(asked, _history(asked, place), response_id(new_id()))


async def _told(asked: ResponsesRequest, principal: Principal, gateway: Gateway) -> Place:
    """Where it hangs; where the client wishes that, with no more of the history than the first model has room for."""
    place = await _place(asked, principal, gateway)
    if asked.truncation != "auto" or not place.path:
        return place
    model = resolve(gateway.catalog.current(), principal, asked.model).models[0]
    meter = gateway.completions.answers.meter
    alone = chat_of(asked, (), response_id(new_id())).chat
    return place.fitted(model, asked.parameters, await meter.prompt_estimate(alone, model), meter)


async def _place(asked: ResponsesRequest, principal: Principal, gateway: Gateway) -> Place:
    """Raises NotFound for what is unknown or another user's, in the words of what was named."""
    if asked.background and not asked.store:
        raise InvalidRequest("A background response must be stored: leave out store, or background.", param="store")
    previous, dialog = asked.previous_response_id, asked.conversation
    answer_id, dialog_id = (None if each is None else id_in(each) for each in (previous, dialog))
    unknown = NotFound(
        f"Previous response with id {str(previous)[:100]!r} not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )
    if dialog is not None:
        unknown = NotFound(f"Conversation with id {dialog[:100]!r} not found.", param="conversation")
    if (previous is not None and answer_id is None) or (dialog is not None and dialog_id is None):
        raise unknown
    try:
        return await place_of(
            principal,
            None if answer_id is None else MessageId(answer_id),
            None if dialog_id is None else DialogId(dialog_id),
            gateway.dialogs,
        )
    except NotFound:
        raise unknown from None


def _history(asked: ResponsesRequest, place: Place) -> Sequence[ChatMessage]:
    """What was said so far; with the dialog's own system prompt where the request brings no instructions."""
    prompt = place.dialog.system_prompt if place.dialog is not None and asked.instructions is None else None
    return (*((ChatMessage(role=ChatRole.SYSTEM, text=prompt),) if prompt else ()), *place.history(asked.inputs))


def told_again(answer: Message) -> dict[str, Any]:
    """The response object of a stored answer, as far as it has come."""
    settings = _settings(answer)
    status, reason = _status(answer)
    return response_body(
        response_id=response_id(answer.id),
        created_at=answer.created_at,
        model=_model(answer),
        echo=settings,
        status=status,
        output=output_items(entries_of(answer), answer.id, status=item_status(answer), namespaces=asked_tools(answer)),
        usage=answer.usage,
        error=_error(answer),
        incomplete_reason=reason,
        completed_at=answer.completed_at if status == "completed" else None,
    )


def _status(answer: Message) -> tuple[str, str | None]:
    if answer.status is MessageStatus.IN_PROGRESS:
        return "in_progress", None
    return status_of(call_status(answer.status), _reason(answer))


def _reason(answer: Message) -> FinishReason:
    return FinishReason(answer.finish_reason) if answer.finish_reason else FinishReason.ERROR


def _error(answer: Message) -> Mapping[str, str] | None:
    if answer.error is None or _status(answer)[0] != "failed":
        return None
    return {"code": "server_error", "message": str(answer.error.get("message") or "The response failed.")}


def _settings(answer: Message) -> Mapping[str, Any]:
    """What is told of the request; of an answer of another door, what a request that wished nothing would be told."""
    kept: Mapping[str, Any] | None = (answer.settings or {}).get("response")
    return kept or parse_response({"model": _model(answer), "input": ""}, {}).echo


def _model(answer: Message) -> str:
    return answer.model or str((answer.settings or {}).get("model") or "unknown")


def is_background(answer: Message) -> bool:
    """Whether it was asked for in the background."""
    return bool((answer.settings or {}).get("response", {}).get("background"))


def listened_again(
    answer: Message, starting_after: int, principal: Principal, request: Request, gateway: Gateway
) -> EventStream:
    """The events of a stored answer after a sequence number, while it is given and whenever it has been."""
    return EventStream(
        _events(answer, starting_after, principal, request.state.request_id, gateway),
        headers=dict,
        failed=lambda error: error_response(error, Dialect.OPENAI, request.state.request_id),
    )


async def _events(
    answer: Message, starting_after: int, principal: Principal, request_id: str, gateway: Gateway
) -> AsyncGenerator[bytes]:
    parsed = ParsedRequest(model=_model(answer), chat=ChatRequest(messages=(), stream=True))
    writer = ResponsesWriter(
        parsed,
        answer.id,
        echo=_settings(answer),
        response_id=response_id(answer.id),
        created_at=answer.created_at,
    )
    first = b"".join(after([writer.first(_model(answer), 0)], starting_after))
    yield first or KEEPALIVE  # headers go out with it, however long it waits
    try:
        async with aclosing(_heard(answer, principal, gateway)) as heard:
            async for each in heard:
                if isinstance(each, Outcome):
                    yield end_after(_end(each, writer, request_id), starting_after)
                    continue
                told = writer.kept(each) if isinstance(each, tuple) else writer.delta(each)
                for left in after([told], starting_after):
                    yield left
    except GatewayError as error:
        failed = writer.error(error_body(error, Dialect.OPENAI, request_id))
        yield end_after(failed, starting_after)


async def _heard(
    answer: Message, principal: Principal, gateway: Gateway
) -> AsyncGenerator[PartDelta | tuple[Entry, ...] | Outcome]:
    """Its pieces from the first one on, and last how it ended.

    They come as they do where it is given here and now, as they are noted where another replica gives it; what is
    relayed or has ended comes in the parts that it is kept in, those of one item together.
    """
    answering = gateway.completions.running.find(answer.id)
    if answering is not None:
        async with aclosing(answering.deltas()) as deltas:
            async for delta in deltas:
                if isinstance(delta, WireChunk):
                    break
                yield delta
            else:
                yield await answering.outcome()
                return
    told: Sequence[Part] = ()
    async with aclosing(growing(principal, answer, gateway.dialogs, gateway.completions)) as found:
        async for message in found:
            entries = entries_of(message)
            parts = [each for each in entries if not isinstance(each, Removed)]
            has_ended = message.status is not MessageStatus.IN_PROGRESS
            if has_ended and not told:
                for item in grouped(entries, ChatRole.ASSISTANT):
                    yield item
            elif (has_ended or is_background(answer)) and len(parts) == len(entries):
                for piece in grown(told, parts):
                    yield piece
                told = parts
            if has_ended:
                yield _outcome(message, gateway)


def _end(outcome: Outcome, writer: ResponsesWriter, request_id: str) -> bytes:
    if outcome.error is not None:
        return writer.error(error_body(outcome.error, Dialect.OPENAI, request_id))
    return writer.last(outcome)


def _outcome(answer: Message, gateway: Gateway) -> Outcome:
    """How a stored answer ended, as its writer wants to know it."""
    error = None if answer.error is None else ProvidersFailed(str(answer.error.get("message")))
    return Outcome(
        id=answer.id,
        status=call_status(answer.status),
        text=answer.content,
        finish_reason=_reason(answer),
        usage=answer.usage or Usage(),
        cost_micro_usd=answer.cost_micro_usd,
        model=gateway.catalog.current().models.get(answer.model or ""),
        upstream_model=answer.model,
        attempts=(),
        ended_at=answer.completed_at or answer.created_at,
        error=error,
    )
