"""Google's endpoints: what is called stands in the path, as `models/{name}:{verb}`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.api.container import Gateway
from src.api.deps import GatewayDep, JsonObject, PrincipalDep
from src.api.dialects.counts import count_headers
from src.api.dialects.gemini.array import ArrayOfEvents
from src.api.dialects.gemini.embeddings import (
    GeminiEmbeddingsWriter,
    parse_batch_embed_contents,
    parse_embed_content,
)
from src.api.dialects.gemini.reply import GeminiWriter
from src.api.dialects.gemini.request import NAMES, parse_count_tokens, parse_generate_content
from src.api.dialects.streaming import Door, serve
from src.api.errors import Dialect
from src.api.native import answer
from src.api.sse import BLANK
from src.domain.completion.counting import count_prompt
from src.domain.identity.model import Principal
from src.shared.errors import NotFound

router = APIRouter(tags=["compatible"])

_DOOR = Door(dialect=Dialect.GEMINI, endpoint="generateContent", writer=GeminiWriter, names=NAMES, keepalive=BLANK)
_EMBEDDING_DOOR = Door(dialect=Dialect.GEMINI, endpoint="embedContent", writer=GeminiEmbeddingsWriter)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One call of a verb: the model's name as the catalog has it, and what came with it."""

    model: str
    body: dict[str, Any]
    request: Request
    principal: Principal
    gateway: Gateway


async def _generate(call: ModelCall) -> Response:
    parsed = parse_generate_content(call.model, call.body, call.request.headers)
    return await serve(_DOOR, parsed, call.principal, call.request, call.gateway)


async def _stream(call: ModelCall) -> Response:
    """As events where they are asked for, else as one JSON array that grows."""
    parsed = parse_generate_content(call.model, call.body, call.request.headers, stream=True)
    response = await serve(_DOOR, parsed, call.principal, call.request, call.gateway)
    query = call.request.query_params
    return response if "sse" in (query.get("alt"), query.get("$alt")) else ArrayOfEvents(response)


async def _count(call: ModelCall) -> Response:
    """The provider's own answer where it speaks this format, else our estimate."""
    chat = parse_count_tokens(call.model, call.body, call.request.headers).chat
    count = await count_prompt(call.principal, call.model, chat, call.gateway.completions)
    return answer(count.told or {"totalTokens": count.input_tokens}, headers=count_headers(count, Dialect.GEMINI))


async def _embed(call: ModelCall) -> Response:
    parsed = parse_embed_content(call.model, call.body)
    return await serve(_EMBEDDING_DOOR, parsed, call.principal, call.request, call.gateway)


async def _embed_batch(call: ModelCall) -> Response:
    parsed = parse_batch_embed_contents(call.model, call.body)
    return await serve(_EMBEDDING_DOOR, parsed, call.principal, call.request, call.gateway)


VERBS: dict[str, Callable[[ModelCall], Awaitable[Response]]] = {
    "generateContent": _generate,
    "streamGenerateContent": _stream,
    "countTokens": _count,
    "embedContent": _embed,
    "batchEmbedContents": _embed_batch,
}
"""What can be done with a model. Whoever serves another verb adds it here."""


@router.post("/v1/models/{target:path}")
@router.post("/v1beta/models/{target:path}")
async def call_model(
    target: str, request: Request, principal: PrincipalDep, body: JsonObject, gateway: GatewayDep
) -> Response:
    """generateContent, streamGenerateContent, countTokens, embedContent, batchEmbedContents: any model.

    Names may have slashes and colons.
    """
    return await _called(target.removeprefix("models/"), request, principal, body, gateway)


@router.post("/v1/tunedModels/{target:path}")
@router.post("/v1beta/tunedModels/{target:path}")
async def call_tuned_model(
    target: str, request: Request, principal: PrincipalDep, body: JsonObject, gateway: GatewayDep
) -> Response:
    """The same for models whose names begin with tunedModels/, which clients do not put below models/."""
    return await _called(f"tunedModels/{target}", request, principal, body, gateway)


async def _called(
    target: str, request: Request, principal: Principal, body: dict[str, Any], gateway: Gateway
) -> Response:
    model, _, verb = target.rpartition(":")
    serve_verb = VERBS.get(verb)
    if serve_verb is None or not model:
        raise NotFound(f"There is no such method here. There are: {', '.join(VERBS)}.")
    return await serve_verb(ModelCall(model=model, body=body, request=request, principal=principal, gateway=gateway))
