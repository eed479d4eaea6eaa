"""OpenAI's embeddings, inwards and outwards."""

import base64
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from src.api.dialects.fields import MAX_DIMENSIONS, MAX_INPUTS, integer_field, model_field, text_field
from src.api.dialects.openai.request import FORWARDED_HEADERS
from src.api.dialects.request import ParsedRequest
from src.domain.catalog.model import WireFormat
from src.domain.completion.model import ChatMessage, ChatRequest, ChatRole, EmbeddingWish, Outcome, WireBody
from src.shared.errors import InvalidRequest
from src.shared.vectors import unpacked

MAX_TOKEN_ID = 2**31 - 1

_TRANSLATED = frozenset({"model", "input", "encoding_format", "dimensions", "user"})
_FORMATS = (None, "float", "base64")


def parse_embeddings(body: Mapping[str, Any], headers: Mapping[str, str]) -> ParsedRequest:
    """The body of POST /v1/embeddings in our words, with the original beside it. Raises InvalidRequest."""
    inputs = _inputs(body.get("input"))
    arrays = [each for each in inputs if isinstance(each, list)]
    encoding = text_field(body, "encoding_format", longest=64)
    beyond_others = {"tokens as input": bool(arrays), "encoding_format": encoding not in _FORMATS}
    wire = WireBody(
        format=WireFormat.EMBEDDINGS,
        body=body,
        headers={name: headers[name] for name in FORWARDED_HEADERS if name in headers},
        untranslatable=tuple(name for name, is_there in beyond_others.items() if is_there),
    )
    wish = EmbeddingWish(
        dimensions=integer_field(body, "dimensions", least=1, most=MAX_DIMENSIONS), tokens=sum(map(len, arrays))
    )
    messages = (ChatMessage(role=ChatRole.USER, text=each if isinstance(each, str) else "") for each in inputs)
    return ParsedRequest(
        model=model_field(body),
        chat=ChatRequest(messages=tuple(messages), embedding=wish, wire=wire),
        untranslated=tuple(sorted(name for name in body if name not in _TRANSLATED)),
    )


def _inputs(value: Any) -> list[str] | list[list[int]]:
    """One text or several, or one list of tokens or several, as a list."""
    if isinstance(value, str):
        return _texts([value])
    if not isinstance(value, list) or not value:
        raise InvalidRequest(
            "input must be a string, a list of strings, a list of tokens or a list of lists of tokens, and not empty.",
            param="input",
        )
    kinds = set(map(type, value))
    if kinds == {int}:
        return _arrays([value])
    if len(value) > MAX_INPUTS:
        raise InvalidRequest(f"input has {len(value)} elements; at most {MAX_INPUTS} are possible.", param="input")
    if kinds == {str}:
        return _texts(value)
    if kinds == {list}:
        return _arrays(value)
    raise InvalidRequest("The elements of input must all be strings, all tokens or all lists of tokens.", param="input")


def _texts(values: list[str]) -> list[str]:
    for index, text in enumerate(values):
        if not text:
            raise InvalidRequest(f"input[{index}] must not be empty.", param=f"input[{index}]")
    return values


def _arrays(values: list[list[int]]) -> list[list[int]]:
    for index, tokens in enumerate(values):
        # bool is another type, and the tests of type, least and most are quick: there may be millions
        if not tokens or set(map(type, tokens)) != {int} or min(tokens) < 0 or max(tokens) > MAX_TOKEN_ID:
            raise InvalidRequest(f"input[{index}] must be a list of tokens, and not empty.", param=f"input[{index}]")
    return values


class EmbeddingsWriter:
    """Writes vectors as numbers, or as base64 where that was asked for."""

    def __init__(self, parsed: ParsedRequest, answer_id: UUID) -> None:
        wire = parsed.chat.wire
        self._in_base64 = wire is not None and wire.body.get("encoding_format") == "base64"

    def whole(self, outcome: Outcome, model: str) -> Mapping[str, Any]:
        """The body of an answer."""
        tokens = outcome.usage.input_tokens
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": self._written(vector)}
                for index, vector in enumerate(outcome.vectors)
            ],
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def _written(self, vector: bytes) -> str | tuple[float, ...]:
        return base64.b64encode(vector).decode() if self._in_base64 else unpacked(vector)
