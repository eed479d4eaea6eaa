"""OpenAI responses, inwards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from src.api.dialects.fields import (
    MAX_MESSAGES,
    MAX_TOKENS,
    flag_field,
    integer_field,
    list_at,
    model_field,
    number_field,
    object_at,
    sampling_fields,
    text_at,
)
from src.api.dialects.request import ParsedRequest
from src.api.dialects.responses.content import OWN
from src.api.dialects.responses.echo import conversation_of, echo_of, instructions_of, truncation_of
from src.api.dialects.responses.items import Namespaces, items_of, messages_of, own_item, unsaid
from src.api.dialects.responses.tools import Notes, choice_of, namespaces_of, tools_of
from src.domain.completion.content import Opaque, Part
from src.domain.completion.model import ChatMessage, ChatRequest, ChatRole, Parameters, WireBody
from src.domain.completion.tools import EFFORTS, Reasoning, ResponseFormat, Tool, ToolChoice
from src.shared.errors import InvalidRequest

NAMES = {
    "logprobs": "top_logprobs",
    "response_format": "text.format",
    "thinking": "reasoning",
}
"""The dialect's names of parameters, where it has others than the domain."""

_FORWARDED = ("openai-", "x-codex-", "x-openai-")
_FORWARDED_NAMES = frozenset(
    {"originator", "session-id", "session_id", "thread-id", "thread_id", "conversation_id", "x-client-request-id"}
)

_TRANSLATED = frozenset(
    {
        "model", "input", "instructions", "previous_response_id", "conversation", "stream", "stream_options", "store",
        "background", "metadata", "user", "max_output_tokens", "temperature", "top_p", "presence_penalty",
        "frequency_penalty", "seed", "parallel_tool_calls", "top_logprobs", "tools", "tool_choice", "reasoning",
        "text", "include", "prompt", "truncation", "service_tier",
    }
)  # fmt: skip
_STATE = frozenset({"previous_response_id", "conversation", "background"})
"""What the gateway keeps itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesRequest:
    """The body of POST /v1/responses. `echo` are the fields of a response that repeat its request.

    `inputs` is what this request says itself, `body` and `headers` what came; `untranslated` names fields that have no
    place in our words, `untranslatable` content that has none.
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
    notes = Notes()
    model = model_field(body)
    inputs = _inputs(body)
    tools = tools_of(body.get("tools"), "tools", notes) + _tools_within(inputs, notes)
    choice = choice_of(body.get("tool_choice"), notes)
    echo = echo_of(body)
    if echo["previous_response_id"] is not None and echo["conversation"] is not None:
        raise InvalidRequest(
            "previous_response_id and conversation exclude each other: name one of them.", param="previous_response_id"
        )
    parameters = _parameters(body, notes)
    _note_fields(body, echo, notes)
    return ResponsesRequest(
        model=model,
        inputs=inputs,
        instructions=instructions_of(body),
        parameters=parameters,
        tools=tools,
        tool_choice=choice if tools else ToolChoice(),
        stream=flag_field(body, "stream"),
        background=echo["background"],
        store=echo["store"],
        previous_response_id=echo["previous_response_id"],
        conversation=conversation_of(body),
        truncation=truncation_of(body),
        echo=echo,
        untranslated=tuple(notes.untranslated),
        untranslatable=("prompt",) if echo["prompt"] else (),
        body=body,
        headers={name: value for name, value in headers.items() if _is_forwarded(name.lower())},
    )


def _is_forwarded(name: str) -> bool:
    return name in _FORWARDED_NAMES or name.startswith(_FORWARDED)


def _inputs(body: Mapping[str, Any]) -> tuple[ChatMessage, ...]:
    given = body.get("input")
    if given is None:
        if not any(body.get(name) for name in ("previous_response_id", "conversation", "prompt")):
            raise InvalidRequest("input is required.", param="input")
        return ()
    if not isinstance(given, str | list):
        raise InvalidRequest("input must be a string or a list of items.", param="input")
    if len(given) > MAX_MESSAGES and isinstance(given, list):
        raise InvalidRequest(f"There are more than {MAX_MESSAGES} items.", param="input")
    return messages_of(given)


def _parameters(body: Mapping[str, Any], notes: Notes) -> Parameters:
    return Parameters(
        max_output_tokens=integer_field(body, "max_output_tokens", least=1, most=MAX_TOKENS),
        presence_penalty=number_field(body, "presence_penalty", least=-2, most=2),
        frequency_penalty=number_field(body, "frequency_penalty", least=-2, most=2),
        seed=integer_field(body, "seed", least=-(2**63), most=2**63 - 1),
        logprobs=_logprobs(body, notes),
        parallel_tool_calls=None
        if body.get("parallel_tool_calls") is None
        else flag_field(body, "parallel_tool_calls"),
        reasoning=_reasoning(body.get("reasoning"), notes),
        response_format=_response_format(body.get("text"), notes),
        **sampling_fields(body),
    )


def _logprobs(body: Mapping[str, Any], notes: Notes) -> int | None:
    wanted: int | None = None
    for index, name in enumerate(list_at(body.get("include"), "include")):
        match text_at(name, f"include[{index}]"):
            case "message.output_text.logprobs":
                wanted = 0
            case "reasoning.encrypted_content":
                pass
            case _:
                notes.leave_out("include")
    alternatives = integer_field(body, "top_logprobs", least=0, most=20)
    return alternatives or wanted


def _reasoning(given: Any, notes: Notes) -> Reasoning | None:
    if given is None:
        return None
    found = object_at(given, "reasoning")
    for name in found:
        if name not in ("effort", "summary", "generate_summary") and found[name] is not None:
            notes.leave_out(f"reasoning.{name}")
    effort = found.get("effort")
    if effort is not None and text_at(effort, "reasoning.effort") not in EFFORTS:
        notes.leave_out("reasoning.effort")
        effort = None
    shown = any(found.get(name) is not None for name in ("summary", "generate_summary"))
    return Reasoning(effort=effort, shown=shown) if effort is not None or shown else None


def _response_format(given: Any, notes: Notes) -> ResponseFormat | None:
    if given is None:
        return None
    found = object_at(given, "text")
    for name in found:
        if name != "format" and found[name] not in (None, "medium"):
            notes.leave_out(f"text.{name}")
    if found.get("format") is None:
        return None
    form = object_at(found["format"], "text.format")
    match text_at(form.get("type"), "text.format.type"):
        case "text":
            return None
        case "json_object":
            return ResponseFormat()
        case "json_schema":
            return _schema(form)
        case _:
            notes.leave_out("text.format")
            return None


def _schema(form: Mapping[str, Any]) -> ResponseFormat:
    strict, description = form.get("strict"), form.get("description")
    if strict is not None and not isinstance(strict, bool):
        raise InvalidRequest("text.format.strict must be true or false.", param="text.format.strict")
    return ResponseFormat(
        schema=object_at(form.get("schema"), "text.format.schema"),
        name=text_at(form.get("name"), "text.format.name"),
        description=None if description is None else text_at(description, "text.format.description"),
        strict=strict,
    )


def _note_fields(body: Mapping[str, Any], echo: Mapping[str, Any], notes: Notes) -> None:
    for name, value in body.items():
        if name not in _TRANSLATED and value is not None:
            notes.leave_out(name)
    if echo["service_tier"] != "default":
        notes.leave_out("service_tier")


def _tools_within(messages: Sequence[ChatMessage], notes: Notes) -> tuple[Tool, ...]:
    """Tools that are told in the middle of a conversation."""
    found = (tools_of(part.body.get("tools"), "input.tools", notes) for part in _opaque(messages) if _has_tools(part))
    return tuple(tool for tools in found for tool in tools)


def _opaque(messages: Sequence[ChatMessage]) -> Iterator[Opaque]:
    return (part for message in messages for part in message.parts if isinstance(part, Opaque))


def _has_tools(part: Part) -> bool:
    return isinstance(part, Opaque) and part.body.get("type") == "additional_tools"


def namespaces_in(asked: ResponsesRequest) -> Namespaces:
    """Its tools that are in namespaces, by their flat names."""
    within = (tool for part in _opaque(asked.inputs) if _has_tools(part) for tool in part.body.get("tools") or ())
    return namespaces_of([*(asked.body.get("tools") or ()), *within])


def chat_of(asked: ResponsesRequest, history: Sequence[ChatMessage], response_id: str) -> ParsedRequest:
    """The conversation so far with what was asked, for a model.

    A background one is always translated, and comes in pieces: so far as it has come it is told, and charged where it
    is cut off. Raises InvalidRequest where that cannot be.
    """
    new = _untranslatable(asked.inputs)
    files = (
        name for message in history if message.role is ChatRole.USER for name in _untranslatable([message], "input_")
    )
    untranslatable = tuple(dict.fromkeys((*asked.untranslatable, *new, *files)))
    if asked.background and untranslatable:
        raise InvalidRequest(
            f"This cannot be answered in the background: {', '.join(untranslatable)}; leave out background.",
            param="background",
        )
    system = (ChatMessage(role=ChatRole.SYSTEM, text=asked.instructions),) if asked.instructions else ()
    chat = ChatRequest(
        messages=(*system, *_said((*history, *asked.inputs))),
        parameters=asked.parameters,
        tools=asked.tools + _tools_within(history, Notes()),
        tool_choice=asked.tool_choice,
        stream=asked.stream or asked.background,
        wire=None if asked.background else _wire(asked, history, response_id, untranslatable),
    )
    return ParsedRequest(model=asked.model, chat=chat, untranslated=asked.untranslated)


def _untranslatable(messages: Sequence[ChatMessage], beginning: str = "") -> Iterator[str]:
    """Names of what only this format can say, of the types that begin so.

    Other models do without what is no more than history: their adapters name it. Files of the user's are more.
    """
    for part in _opaque(messages):
        if part.format is OWN and not _has_tools(part) and part.kind.startswith(beginning):
            kind = part.kind if "type" in part.body else "item_reference"
            yield f"{kind}.file_id" if part.body.get("file_id") is not None else kind


def _said(messages: Sequence[ChatMessage]) -> Iterator[ChatMessage]:
    """The messages without what tells of tools."""
    for message in messages:
        parts = tuple(part for part in message.parts if not _has_tools(part))
        if parts or not message.parts:
            yield message if len(parts) == len(message.parts) else replace(message, parts=parts)


def _wire(
    asked: ResponsesRequest, history: Sequence[ChatMessage], response_id: str, untranslatable: tuple[str, ...]
) -> WireBody:
    body = {name: value for name, value in asked.body.items() if name not in _STATE}
    given = body.get("input")
    namespaces = namespaces_in(asked)
    before = [item for message in history for item in items_of(message, namespaces=namespaces)]
    left_out = unsaid(history)
    if isinstance(given, list):
        now = [own for item in given if (own := own_item(item)) is not None]
        body["input"] = [*before, *now]
        left_out += ("thinking",) if len(now) < len(given) else ()
    elif before:
        now = [] if given is None else [{"role": "user", "content": given}]
        body["input"] = [*before, *now]
    body["store"] = False
    return WireBody(
        format=OWN,
        body=body,
        headers=asked.headers,
        untranslatable=untranslatable,
        left_out=left_out,
        wants_usage=True,
        answered_for={
            "id": response_id,
            "store": asked.store,
            "previous_response_id": asked.previous_response_id,
            "conversation": asked.echo["conversation"],
            "background": asked.background,
            "metadata": asked.echo["metadata"],
        },
    )
