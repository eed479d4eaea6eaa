"""Vectors for OpenAI's clients. (Google's are called by their verbs, see gemini.py.)"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.api.deps import GatewayDep, JsonObject, PrincipalDep
from src.api.dialects.openai.embeddings import EmbeddingsWriter, parse_embeddings
from src.api.dialects.streaming import Door, serve
from src.api.errors import Dialect

router = APIRouter(tags=["compatible"])

_DOOR = Door(dialect=Dialect.OPENAI, endpoint="embeddings", writer=EmbeddingsWriter)


@router.post("/v1/embeddings")
async def embeddings(request: Request, principal: PrincipalDep, body: JsonObject, gateway: GatewayDep) -> Response:
    """OpenAI embeddings: any model of embeddings, for texts and for tokens."""
    return await serve(_DOOR, parse_embeddings(body, request.headers), principal, request, gateway)
