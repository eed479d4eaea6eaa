"""OpenAI responses, inwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.api.dialects.request import ParsedRequest
from src.domain.completion.model import ChatMessage, Parameters
from src.domain.completion.tools import Tool, ToolChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesRequest:
    """The body of POST /v1/responses. `echo` are the fields of a response that repeat its request.

    `inputs` is what this request says itself, `body` and `headers` what came; `untranslated` names fields that have no
    place in our words.
    """

    model: str
    inputs: tuple[ChatMessage, ...]
    instructions: str | None
    parameters: Parameters
    tools: tuple[Tool, ...]
    tool_choice: ToolChoice
    stream: bool
    background: bool
    store: bool
    previous_response_id: str | None
    conversation: str | None
    truncation: str
    echo: Mapping[str, Any]
    untranslated: tuple[str, ...]
    untranslatable: tuple[str, ...]
    body: Mapping[str, Any]
    headers: Mapping[str, str]


def parse_response(body: Mapping[str, Any], headers: Mapping[str, str]) -> ResponsesRequest:
    """The body of POST /v1/responses in our words. Raises InvalidRequest."""
    raise NotImplementedError


def chat_of(asked: ResponsesRequest, history: Sequence[ChatMessage], response_id: str) -> ParsedRequest:
    """The conversation so far with what was asked, for a model. A background one is always translated."""
    raise NotImplementedError
