"""The endpoints that stock clients call: OpenAI chat completions and models, Anthropic messages."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.api.deps import GatewayDep, JsonObject, PrincipalDep
from src.api.dialects.anthropic_reply import AnthropicWriter
from src.api.dialects.anthropic_request import parse_messages
from src.api.dialects.openai_request import NAMES as OPENAI_NAMES
from src.api.dialects.openai_request import parse_chat_completion
from src.api.dialects.openai_stream import OpenAIWriter
from src.api.dialects.streaming import Door, serve
from src.api.errors import Dialect

router = APIRouter(tags=["compatible"])


_OPENAI = Door(dialect=Dialect.OPENAI, endpoint="chat.completions", writer=OpenAIWriter, names=OPENAI_NAMES)
_ANTHROPIC = Door(dialect=Dialect.ANTHROPIC, endpoint="messages", writer=AnthropicWriter)


@router.post("/v1/chat/completions")
async def chat_completions(
    request: Request, principal: PrincipalDep, body: JsonObject, gateway: GatewayDep
) -> Response:
    """OpenAI chat completions: any model, streaming or not."""
    return await serve(_OPENAI, parse_chat_completion(body, request.headers), principal, request, gateway)


@router.post("/v1/messages")
async def messages(request: Request, principal: PrincipalDep, body: JsonObject, gateway: GatewayDep) -> Response:
    """Anthropic messages: any model, streaming or not."""
    return await serve(_ANTHROPIC, parse_messages(body, request.headers), principal, request, gateway)
