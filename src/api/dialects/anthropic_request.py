"""Anthropic messages, inwards."""

from collections.abc import Iterator, Mapping
from typing import Any

from src.api.dialects.fields import (
    MAX_TOKENS,
    flag_field,
    integer_field,
    messages_field,
    model_field,
    sampling_fields,
    stops_field,
)
from src.api.dialects.request import ParsedRequest
from src.domain.catalog.model import WireFormat
from src.domain.completion.model import ChatMessage, ChatRequest, ChatRole, Parameters, WireBody
from src.shared.errors import InvalidRequest

FORWARDED_HEADERS = ("anthropic-version", "anthropic-beta")

_ROLES = {"user": ChatRole.USER, "assistant": ChatRole.ASSISTANT, "system": ChatRole.SYSTEM}

_TRANSLATED = frozenset(
    {"model", "messages", "system", "stream", "max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "tools"}
)


def parse_messages(body: Mapping[str, Any], headers: Mapping[str, str]) -> ParsedRequest:
    """The body of POST /v1/messages in our words, with the original beside it. Raises InvalidRequest."""
    messages = messages_field(body)
    system = _content(body["system"], "system") if body.get("system") is not None else ""
    wire = WireBody(
        format=WireFormat.MESSAGES,
        body=body,
        headers={name: headers[name] for name in FORWARDED_HEADERS if name in headers},
        untranslatable=tuple(dict.fromkeys(_untranslatable(body, messages))),
        wants_usage=True,
    )
    chat = ChatRequest(
        messages=(
            *((ChatMessage(role=ChatRole.SYSTEM, text=system),) if system else ()),
            *(_message(message, index) for index, message in enumerate(messages)),
        ),
        parameters=_parameters(body),
        stream=flag_field(body, "stream"),
        wire=wire,
    )
    untranslated = tuple(sorted(name for name in body if name not in _TRANSLATED))
    return ParsedRequest(model=model_field(body), chat=chat, untranslated=untranslated)


def _parameters(body: Mapping[str, Any]) -> Parameters:
    most = integer_field(body, "max_tokens", least=0, most=MAX_TOKENS)
    if most is None:
        raise InvalidRequest("max_tokens is required.", param="max_tokens")
    return Parameters(
        max_output_tokens=most,
        top_k=integer_field(body, "top_k", least=0, most=1_000_000),
        stop=stops_field(body, "stop_sequences"),
        **sampling_fields(body),
    )


def _message(message: Mapping[str, Any], index: int) -> ChatMessage:
    where = f"messages[{index}]"
    name = message.get("role")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise InvalidRequest(f"{where}.role must be user or assistant.", param=f"{where}.role")
    if "content" not in message:
        raise InvalidRequest(f"{where}.content is required.", param=f"{where}.content")
    return ChatMessage(role=role, text=_content(message["content"], f"{where}.content"))


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{where} must be a string or a list of blocks.", param=where)
    return "\n".join(_block_text(block, f"{where}[{index}]") for index, block in enumerate(content))


def _block_text(block: Any, where: str) -> str:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise InvalidRequest(f"{where} must be an object with a type.", param=where)
    text = block.get("text") if block["type"] == "text" else ""
    if not isinstance(text, str):
        raise InvalidRequest(f"{where}.text must be a string.", param=f"{where}.text")
    return text


def _untranslatable(body: Mapping[str, Any], messages: list[Mapping[str, Any]]) -> Iterator[str]:
    """Names of what only an upstream of this dialect understands."""
    if body.get("tools"):
        yield "tools"
    for message in messages:
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            kind = block.get("type") if isinstance(block, dict) else None
            if kind in ("tool_use", "tool_result"):
                yield "tools"
            elif kind == "image":
                yield "images"
            elif kind != "text":
                yield str(kind)[:50]
