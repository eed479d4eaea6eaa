"""OpenAI chat completions, inwards."""

from collections.abc import Iterator, Mapping
from typing import Any

from src.api.dialects.fields import (
    MAX_TOKENS,
    flag_field,
    integer_field,
    messages_field,
    model_field,
    number_field,
    sampling_fields,
    stops_field,
)
from src.api.dialects.request import ParsedRequest
from src.domain.catalog.model import WireFormat
from src.domain.completion.model import ChatMessage, ChatRequest, ChatRole, Parameters, WireBody
from src.shared.errors import InvalidRequest

FORWARDED_HEADERS = ("openai-organization", "openai-project", "openai-beta")

MAX_CHOICES = 128

_ROLES = {
    "system": ChatRole.SYSTEM,
    "developer": ChatRole.SYSTEM,
    "user": ChatRole.USER,
    "assistant": ChatRole.ASSISTANT,
    "tool": ChatRole.USER,
    "function": ChatRole.USER,
}

_TRANSLATED = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
        "stop", "presence_penalty", "frequency_penalty", "seed", "user", "n", "tools", "functions", "response_format",
        "modalities", "audio",
    }
)  # fmt: skip


def parse_chat_completion(body: Mapping[str, Any], headers: Mapping[str, str]) -> ParsedRequest:
    """The body of POST /v1/chat/completions in our words, with the original beside it. Raises InvalidRequest."""
    stream_options = body.get("stream_options")
    messages = messages_field(body)
    wire = WireBody(
        format=WireFormat.CHAT_COMPLETIONS,
        body=body,
        headers={name: headers[name] for name in FORWARDED_HEADERS if name in headers},
        untranslatable=tuple(dict.fromkeys(_untranslatable(body, messages))),
        wants_usage=isinstance(stream_options, dict) and stream_options.get("include_usage") is True,
    )
    chat = ChatRequest(
        messages=tuple(_message(message, index) for index, message in enumerate(messages)),
        parameters=_parameters(body),
        stream=flag_field(body, "stream"),
        wire=wire,
    )
    untranslated = tuple(sorted(name for name in body if name not in _TRANSLATED))
    return ParsedRequest(model=model_field(body), chat=chat, untranslated=untranslated)


def _parameters(body: Mapping[str, Any]) -> Parameters:
    most = integer_field(body, "max_completion_tokens", least=1, most=MAX_TOKENS)
    older = integer_field(body, "max_tokens", least=1, most=MAX_TOKENS)
    return Parameters(
        max_output_tokens=older if most is None else most,
        stop=stops_field(body, "stop"),
        presence_penalty=number_field(body, "presence_penalty", least=-2, most=2),
        frequency_penalty=number_field(body, "frequency_penalty", least=-2, most=2),
        seed=integer_field(body, "seed", least=-(2**63), most=2**63 - 1),
        choices=integer_field(body, "n", least=1, most=MAX_CHOICES) or 1,
        **sampling_fields(body),
    )


def _message(message: Mapping[str, Any], index: int) -> ChatMessage:
    where = f"messages[{index}]"
    name = message.get("role")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise InvalidRequest(f"{where}.role must be one of {', '.join(_ROLES)}.", param=f"{where}.role")
    return ChatMessage(role=role, text=_text(message, f"{where}.content"))


def _text(message: Mapping[str, Any], where: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        if message.get("role") == "assistant":
            return ""
        raise InvalidRequest(f"{where} is required.", param=where)
    if not isinstance(content, list) or not content:
        raise InvalidRequest(f"{where} must be a string or a list of parts.", param=where)
    return "\n".join(_part_text(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part_text(part: Any, where: str) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise InvalidRequest(f"{where} must be an object with a type.", param=where)
    text = part.get(part["type"]) if part["type"] in ("text", "refusal") else ""
    if not isinstance(text, str):
        raise InvalidRequest(f"{where}.text must be a string.", param=f"{where}.text")
    return text


def _untranslatable(body: Mapping[str, Any], messages: list[Mapping[str, Any]]) -> Iterator[str]:
    """Names of what only an upstream of this dialect understands."""
    if body.get("tools") or body.get("functions"):
        yield "tools"
    response_format = body.get("response_format")
    if isinstance(response_format, dict) and response_format.get("type") not in (None, "text"):
        yield "response_format"
    if body.get("n") not in (None, 1):
        yield "n"
    if body.get("audio") is not None or "audio" in _listed(body.get("modalities")):
        yield "audio"
    for message in messages:
        if message.get("tool_calls") or message.get("function_call") or message.get("role") in ("tool", "function"):
            yield "tools"
        for part in _listed(message.get("content")):
            if isinstance(part, dict) and part.get("type") not in ("text", "refusal"):
                yield "images" if part.get("type") == "image_url" else str(part.get("type"))[:50]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
