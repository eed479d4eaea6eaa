"""The endpoints that stock clients call: OpenAI chat completions and models, Anthropic messages."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.api.deps import GatewayDep, JsonObject, PrincipalDep
from src.api.dialects.anthropic.reply import PING, AnthropicWriter
from src.api.dialects.anthropic.request import NAMES as ANTHROPIC_NAMES
from src.api.dialects.anthropic.request import parse_count, parse_messages
from src.api.dialects.counts import count_headers
from src.api.dialects.openai.request import NAMES as OPENAI_NAMES
from src.api.dialects.openai.request import parse_chat_completion
from src.api.dialects.openai.stream import OpenAIWriter
from src.api.dialects.streaming import Door, serve
from src.api.errors import Dialect
from src.api.native import answer
from src.domain.completion.counting import count_prompt

router = APIRouter(tags=["compatible"])


_OPENAI = Door(dialect=Dialect.OPENAI, endpoint="chat.completions", writer=OpenAIWriter, names=OPENAI_NAMES)
_ANTHROPIC = Door(
    dialect=Dialect.ANTHROPIC,
    endpoint="messages",
    writer=AnthropicWriter,
    names=ANTHROPIC_NAMES,
    keepalive=PING,
)


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


@router.post("/v1/messages/count_tokens")
async def count_tokens(principal: PrincipalDep, request: Request, body: JsonObject, gateway: GatewayDep) -> Response:
    """How many tokens the messages would be: as Anthropic says of its own models, of others as we estimate."""
    parsed = parse_count(body, request.headers)
    counted = await count_prompt(principal, parsed.model, parsed.chat, gateway.completions)
    told = counted.told or {"input_tokens": counted.input_tokens}
    return answer(told, headers=count_headers(counted, Dialect.ANTHROPIC))
