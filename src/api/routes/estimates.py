"""What a call would hold, cost and be told, before it is made."""

from fastapi import APIRouter
from starlette.responses import Response

from src.api.container import Gateway
from src.api.deps import GatewayDep, PrincipalDep, RequestId, path_id
from src.api.native import NativeRoute, answer
from src.api.routes.estimate_schemas import EstimateBody, estimate_shape
from src.domain.completion.estimating import estimate
from src.domain.completion.model import Call, ChatRequest, Parameters
from src.domain.completion.use_cases import resolve
from src.domain.dialogs.model import DialogId, MessageId
from src.domain.dialogs.sending import Prepared, Question, prepare
from src.domain.identity.model import Principal

router = APIRouter(prefix="/estimates", tags=["estimates"], route_class=NativeRoute)


@router.post("")
async def estimate_call(
    body: EstimateBody, principal: PrincipalDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Tokens, cost, and which quotas would refuse. Nothing is held, written or called; 200 also for what is refused."""
    body.check_form()
    more: dict[str, int] = {}
    if body.dialog_id is None:
        route = resolve(gateway.catalog.current(), principal, body.model)
        parameters = Parameters(**body.given_params())
        chat = ChatRequest(messages=body.chat_messages(), parameters=parameters, stream=body.stream)
    else:
        prepared = await _prepared(body, body.dialog_id, principal, gateway, request_id)
        route, chat, more = prepared.route, prepared.chat, {"omitted_turns": prepared.omitted_turns}
    call = Call(principal=principal, route=route, chat=chat, endpoint="estimates", request_id=request_id)
    found = await estimate(call, gateway.completions, gateway.open_reading)
    return answer({**estimate_shape(found), **more})


async def _prepared(
    body: EstimateBody, dialog_id: str, principal: Principal, gateway: Gateway, request_id: str
) -> Prepared:
    question = Question(
        dialog_id=DialogId(path_id(dialog_id, "dialog")),
        content=body.content or "",
        request_id=request_id,
        model=body.model,
        parent_id=None if body.parent_id is None else MessageId(path_id(body.parent_id, "message")),
        params=body.given_params(),
        stream=body.stream,
    )
    return await prepare(principal, question, gateway.dialogs, gateway.completions.answers.meter)
