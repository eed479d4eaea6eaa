"""Google's embedContent and batchEmbedContents, as the relay lane reads them and a translation writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.domain.catalog.model import Usage
from src.domain.completion.model import Finished, FinishReason, Reply, UpstreamRequest
from src.integrations.llm import relay_failures
from src.integrations.llm.vectors import outline_of, packed, whole_of

MOST_INPUTS = 100
"""In one batch."""


def body_for(request: UpstreamRequest, wire_body: Mapping[str, Any], cap_field: str) -> dict[str, Any]:
    """The client's body with the model changed wherever it is named: in a batch each request must name it."""
    name = f"models/{request.model.upstream}"
    body = {**wire_body, "model": name} if "model" in wire_body else dict(wire_body)
    if isinstance(body.get("requests"), list):
        body["requests"] = [{**each, "model": name} if isinstance(each, dict) else each for each in body["requests"]]
    return body


def read_reply(data: bytes) -> Reply:
    """A whole answer, its vectors unread. Raises UpstreamFailed where the body is none."""
    body = outline_of(data, b"values")
    rows = _rows_in(body)
    if not rows or not all(isinstance(row, dict) and "values" in row for row in rows):
        raise relay_failures.malformed("The provider's answer has no vectors.")
    usage = _usage_in(body.get("usageMetadata"))
    return Reply(finished=Finished(reason=FinishReason.STOP, usage=usage, wire=data))


def body_of(request: UpstreamRequest, texts: Sequence[str]) -> dict[str, Any]:
    """What to ask for the vectors of some texts, in a batch."""
    wish = request.chat.embedding
    more = {} if wish is None or wish.dimensions is None else {"outputDimensionality": wish.dimensions}
    name = f"models/{request.model.upstream}"
    return {"requests": [{"model": name, "content": {"parts": [{"text": text}]}, **more} for text in texts]}


def vectors_in(data: bytes) -> tuple[bytes, ...]:
    """The vectors of an answer, in the order of their inputs."""
    return tuple(packed(row["values"]) for row in _rows_in(whole_of(data)))


def _rows_in(body: Mapping[str, Any]) -> list[Any]:
    """Of a batch, or the one of a single request."""
    rows = body.get("embeddings", [body.get("embedding")])
    return rows if isinstance(rows, list) else []


def _usage_in(value: Any) -> Usage | None:
    """Older models tell none."""
    tokens = value.get("promptTokenCount") if isinstance(value, dict) else None
    return Usage(input_tokens=tokens) if isinstance(tokens, int) else None
