"""OpenAI's Responses API: answers that are kept, continued, listened to again, cancelled and deleted."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from src.api.deps import GatewayDep, JsonObject, PrincipalDep
from src.api.dialects.counts import count_headers
from src.api.dialects.responses.ids import id_in, response_id
from src.api.dialects.responses.kept import items_in
from src.api.dialects.responses.lists import ItemPageDep, item_list
from src.api.dialects.responses.request import parse_response
from src.api.dialects.responses.state import asked_chat, is_background, listened_again, respond, told_again
from src.api.errors import Dialect
from src.api.native import answer
from src.domain.completion.counting import PromptCount
from src.domain.completion.use_cases import resolve
from src.domain.dialogs.following import cancel_answer
from src.domain.dialogs.model import MessageId
from src.domain.dialogs.responding import forget_answer, get_answer, inputs_of
from src.shared.errors import InvalidRequest, NotFound

router = APIRouter(prefix="/v1/responses", tags=["compatible"])


@router.post("")
async def create_response(request: Request, principal: PrincipalDep, body: JsonObject, gateway: GatewayDep) -> Response:
    """Answer: any model, streaming or not, in the background or not."""
    return await respond(parse_response(body, request.headers), principal, request, gateway)


@router.post("/input_tokens")
async def count_input(request: Request, principal: PrincipalDep, body: JsonObject, gateway: GatewayDep) -> Response:
    """How many tokens a request would send to its model: our own estimate, free of charge."""
    asked = parse_response(body, request.headers)
    model = resolve(gateway.catalog.current(), principal, asked.model).models[0]
    chat = (await asked_chat(asked, principal, gateway)).chat
    tokens = await gateway.completions.answers.meter.prompt_estimate(chat, model)
    headers = count_headers(PromptCount(model=model.name, input_tokens=tokens), Dialect.OPENAI)
    return answer({"object": "response.input_tokens", "input_tokens": tokens}, headers=headers)


def _answer_id(text: str) -> MessageId:
    """Raises NotFound for what is no id."""
    found = id_in(text)
    if found is None:
        raise NotFound(f"Response with id {text[:100]!r} not found.")
    return MessageId(found)


@router.get("/{name}")
async def get_response(
    name: str,
    request: Request,
    principal: PrincipalDep,
    gateway: GatewayDep,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=0, le=2**53)] | None = None,
) -> Response:
    """A response as it is stored; with `stream`, its events after a sequence number, while it runs or afterwards."""
    found = await get_answer(principal, _answer_id(name), gateway.dialogs)
    if not stream:
        return answer(told_again(found))
    after = -1 if starting_after is None else starting_after
    return listened_again(found, after, principal, request, gateway)


@router.delete("/{name}")
async def delete_response(name: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Delete a response with its input; what it cost stays in the ledger."""
    answer_id = _answer_id(name)
    await forget_answer(principal, answer_id, gateway.dialogs)
    return answer({"id": response_id(answer_id), "object": "response", "deleted": True})


@router.post("/{name}/cancel")
async def cancel_response(name: str, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Stop a background response; what was generated is kept and charged."""
    found = await get_answer(principal, _answer_id(name), gateway.dialogs)
    if not is_background(found):
        raise InvalidRequest("Cannot cancel a synchronous response: only those with background=true.")
    ended = await cancel_answer(principal, found.dialog_id, found.id, gateway.dialogs, gateway.completions)
    return answer(told_again(ended))


@router.get("/{name}/input_items")
async def list_input_items(name: str, page: ItemPageDep, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """What was asked for a response."""
    inputs = await inputs_of(principal, _answer_id(name), gateway.dialogs)
    items = [item for each in inputs for item in items_in(each)]
    return answer(item_list(items, page))
