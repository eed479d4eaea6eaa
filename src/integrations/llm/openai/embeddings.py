"""OpenAI's embeddings, as the relay lane reads them and a translation writes them."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from src.domain.catalog.model import Usage
from src.domain.completion.model import Finished, FinishReason, Reply, UpstreamRequest
from src.integrations.llm import relay_failures
from src.integrations.llm.failures import told
from src.integrations.llm.openai.relay_chat import count_in
from src.integrations.llm.vectors import outline_of, packed, whole_of

MOST_INPUTS = 2048
"""In one request."""


def body_for(request: UpstreamRequest, wire_body: Mapping[str, Any], cap_field: str) -> dict[str, Any]:
    """The client's body with the model changed."""
    return {**wire_body, "model": request.model.upstream}


def read_reply(data: bytes) -> Reply:
    """A whole answer, its vectors unread. Raises UpstreamFailed where the body is none."""
    body = outline_of(data, b"embedding")
    rows = body.get("data")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and "embedding" in row for row in rows):
        raise relay_failures.malformed("The provider's answer has no vectors.")
    model = told(body.get("model")) or None
    usage = _usage_in(body.get("usage"))
    return Reply(finished=Finished(reason=FinishReason.STOP, usage=usage, upstream_model=model, wire=data))


def body_of(request: UpstreamRequest, texts: Sequence[str]) -> dict[str, Any]:
    """What to ask for the vectors of some texts."""
    wish = request.chat.embedding
    body = {"input": list(texts), "encoding_format": "base64"}
    return body if wish is None or wish.dimensions is None else {**body, "dimensions": wish.dimensions}


def vectors_in(data: bytes) -> tuple[bytes, ...]:
    """The vectors of an answer, in the order of their inputs. Servers that do not know base64 write numbers."""
    rows = whole_of(data)["data"]
    ordered = sorted(enumerate(rows), key=lambda each: _index_of(each[1], each[0]))
    return tuple(_vector_in(row["embedding"]) for _, row in ordered)


def _index_of(row: Mapping[str, Any], place: int) -> int:
    index = row.get("index")
    return index if isinstance(index, int) else place


def _vector_in(value: Any) -> bytes:
    if not isinstance(value, str):
        return packed(value)
    try:
        vector = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        vector = b""
    if not vector or len(vector) % 4:
        raise relay_failures.malformed("The provider's answer has a vector that is no base64 of float32.")
    return vector


def _usage_in(value: Any) -> Usage | None:
    """Some servers tell the total alone: it is the same."""
    if not isinstance(value, dict):
        return None
    tokens = count_in(value.get("prompt_tokens", value.get("total_tokens")))
    return None if tokens is None else Usage(input_tokens=tokens)
