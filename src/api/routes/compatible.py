"""The endpoints that stock clients call: OpenAI chat completions and models, Anthropic messages."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.api.deps import GatewayDep, JsonObject, PrincipalDep
from src.api.dialects import anthropic_reply, openai_reply
from src.api.dialects.anthropic_request import parse_messages
from src.api.dialects.openai_request import parse_chat_completion
from src.api.dialects.request import ParsedRequest
from src.api.dialects.streaming import Door, serve
from src.api.errors import Dialect
from src.domain.completion.answering import Answering
from src.domain.completion.model import Outcome
from src.shared.clock import utc_now
from src.shared.ids import new_id

router = APIRouter(tags=["compatible"])


class OpenAIWriter:
    """Writes chat completions."""

    def __init__(self, parsed: ParsedRequest) -> None:
        self._id = f"chatcmpl-{new_id().hex}"
        self._wants_usage = parsed.chat.wire is not None and parsed.chat.wire.wants_usage
        self._chunks = openai_reply.ChunkWriter(self._id, utc_now(), parsed.model)

    def whole(self, outcome: Outcome, model: str) -> dict[str, Any]:
        return openai_reply.completion(outcome, self._id, model)

    def first(self, answering: Answering, model: str) -> bytes:
        self._chunks = openai_reply.ChunkWriter(self._id, utc_now(), model)
        return self._chunks.first()

    def text(self, text: str) -> bytes:
        return self._chunks.text(text)

    def last(self, outcome: Outcome) -> bytes:
        return self._chunks.last(outcome, with_usage=self._wants_usage)

    def error(self, body: dict[str, Any]) -> bytes:
        return openai_reply.error_event(body)


class AnthropicWriter:
    """Writes messages."""

    def __init__(self, _: ParsedRequest) -> None:
        self._id = f"msg_{new_id().hex}"

    def whole(self, outcome: Outcome, model: str) -> dict[str, Any]:
        return anthropic_reply.message(outcome, self._id, model)

    def first(self, answering: Answering, model: str) -> bytes:
        return anthropic_reply.first_events(self._id, model, 0)

    def text(self, text: str) -> bytes:
        return anthropic_reply.text_event(text)

    def last(self, outcome: Outcome) -> bytes:
        return anthropic_reply.last_events(outcome)

    def error(self, body: dict[str, Any]) -> bytes:
        return anthropic_reply.error_event(body)


_OPENAI = Door(dialect=Dialect.OPENAI, endpoint="chat.completions", writer=OpenAIWriter)
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
