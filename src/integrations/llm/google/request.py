"""A request as the arguments of Google's SDK."""

import base64
import binascii
import mimetypes
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from src.domain.catalog.model import Model, ReasoningStyle, WireFormat
from src.domain.completion.content import Media, MediaKind, Opaque, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.model import ChatRole, Failure, UpstreamFailed, UpstreamRequest
from src.domain.completion.tools import Reasoning, Tool, ToolUse
from src.integrations.llm.reasoning import budget_of, effort_of, style_of
from src.integrations.llm.translation import (
    OPENING,
    called_names,
    idle_choice,
    left_out,
    refuse_choices,
    refuse_many_stops,
    safe_call_id,
    sayable,
    strict_left_out,
    system_text,
)

UNSIGNED = b"skip_thought_signature_validator"
"""Stands in for the signature of a call that no model of Google's made, or that its client has lost."""

_OWN = WireFormat.GENERATE_CONTENT
_TAKEN = frozenset(
    {
        *("temperature", "top_p", "top_k", "stop", "presence_penalty", "frequency_penalty", "seed"),
        *("reasoning", "response_format"),
    }
)
"""Parameters that the format can say."""

_MOST_STOPS = 5
_ROLES = {ChatRole.USER: "user", ChatRole.ASSISTANT: "model"}
_SIGNING = re.compile(r"gemini-([3-9]|\d\d|[a-z-]+-latest)")
"""Models that refuse calls of the current turn without a signature."""
_LEVELS = {
    "none": "MINIMAL",
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
_BUDGETS = (
    (re.compile(r".*pro"), 128, 128, 32768),
    (re.compile(r".*lite"), 0, 512, 24576),
    (re.compile(""), 0, 0, 24576),
)
"""By a model's name: what stands for no thinking, and the least and the most that it may think."""
_MEDIA_TYPES = {
    MediaKind.IMAGE: "image/png",
    MediaKind.DOCUMENT: "application/pdf",
    MediaKind.AUDIO: "audio/wav",
    MediaKind.VIDEO: "video/mp4",
}
_MOST_LEVELS = 64
"""Of objects in objects, in what tools are called with and give back: Google reads a hundred, the body's included."""
_FILES_API = ("gs://", "https://generativelanguage.googleapis.com/")
"""Addresses of files whose type Google knows itself."""


def request_arguments(request: UpstreamRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The SDK's arguments for a request, and the names of what they leave out. Raises UpstreamFailed (unsupported)."""
    request, items = sayable(request, _OWN)
    refuse_choices(request)
    refuse_many_stops(request, _MOST_STOPS)
    config = {
        "system_instruction": system_text(request.chat.messages) or None,
        "max_output_tokens": request.max_output_tokens,
        "automatic_function_calling": {"disable": True},
        **_sampling(request),
        **_tools(request),
        **_answer_format(request),
        "thinking_config": _thinking(request),
    }
    arguments = {
        "model": request.model.upstream,
        "contents": _contents(request),
        "config": {name: value for name, value in config.items() if value is not None},
    }
    return arguments, (*_dropped(request), *items)


def _dropped(request: UpstreamRequest) -> tuple[str, ...]:
    thinks = style_of(request.model) is not ReasoningStyle.NONE
    parameters = left_out(request, _TAKEN if thinks else _TAKEN - {"reasoning"})
    parts = (part for message in request.chat.messages for part in message.parts)
    missing = sorted({name for part in parts if (name := _left_of(part)) is not None})
    return (*parameters, *strict_left_out(request.chat), *idle_choice(request.chat), *missing)


def _left_of(part: Part) -> str | None:
    """The name of what a part says, and the model is not told, of thoughts and of how closely to look."""
    match part:
        case Thinking(origin=origin) if origin is not _OWN:
            return "thinking"
        case Media(detail=detail) if detail not in (None, "auto"):
            return "detail"
    return None


def _sampling(request: UpstreamRequest) -> dict[str, Any]:
    wished = request.chat.parameters
    common = {"stop_sequences": list(wished.stop) or None, "seed": wished.seed}
    if not request.model.capabilities.sampling:
        return common
    names = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty")
    return common | {name: getattr(wished, name) for name in names}


def _tools(request: UpstreamRequest) -> dict[str, Any]:
    chat = request.chat
    if not chat.tools:
        return {}
    declared = [_declared(tool) for tool in chat.tools]
    calling: dict[str, Any] = {}
    match chat.tool_choice.use:
        case ToolUse.NONE:
            calling = {"mode": "NONE"}
        case ToolUse.REQUIRED:
            calling = {"mode": "ANY"}
        case ToolUse.AUTO if chat.tool_choice.names:
            calling = {"mode": "VALIDATED"}
    if calling and chat.tool_choice.names and chat.tool_choice.use is not ToolUse.NONE:
        calling["allowed_function_names"] = list(chat.tool_choice.names)
    return {
        "tools": [{"function_declarations": declared}],
        "tool_config": {"function_calling_config": calling} if calling else None,
    }


def _declared(tool: Tool) -> dict[str, Any]:
    """A function; one without a schema has no parameters, and a schema must say that it is an object's."""
    schema = {"parameters_json_schema": {"type": "object", **tool.schema}} if tool.schema else {}
    return {"name": tool.name, "description": tool.description or "", **schema}


def _answer_format(request: UpstreamRequest) -> dict[str, Any]:
    wanted = request.chat.parameters.response_format
    if wanted is None:
        return {}
    schema = None if wanted.schema is None else dict(wanted.schema)
    return {"response_mime_type": "application/json", "response_json_schema": schema}


def _thinking(request: UpstreamRequest) -> dict[str, Any] | None:
    wished, style = request.chat.parameters.reasoning, style_of(request.model)
    if wished is None or style is ReasoningStyle.NONE:
        return None
    how = _budget(wished, request) if style is ReasoningStyle.BUDGET else _level(wished, request.model)
    shown = {"include_thoughts": True} if wished.shown else {}
    return {**how, **shown} or None


def _level(wished: Reasoning, model: Model) -> dict[str, Any]:
    effort = effort_of(wished)
    if effort is None:
        return {}
    level = _LEVELS[effort]
    return {"thinking_level": "LOW" if level == "MINIMAL" and "pro" in model.upstream else level}


def _budget(wished: Reasoning, request: UpstreamRequest) -> dict[str, Any]:
    """Thoughts are part of the maximum: of a budget that leaves nothing of it, a quarter is kept for the answer."""
    budget, cap = budget_of(wished), request.max_output_tokens
    if budget is None:
        return {}
    nothing, least, most = next(tuple(bounds) for pattern, *bounds in _BUDGETS if pattern.match(request.model.upstream))
    if budget <= 0:
        return {"thinking_budget": nothing}
    budget = min(max(budget, least), most)
    if cap is not None and budget >= cap:
        budget = max(least, cap - cap // 4)
    return {"thinking_budget": budget}


def _contents(request: UpstreamRequest) -> list[dict[str, Any]]:
    """The turns, with all results of one turn's calls together: so Google wants them. The user must begin."""
    messages = request.chat.messages
    names = called_names(messages)
    contents: list[dict[str, Any]] = []
    turn_begins, has_used_tools = 0, False
    for message in messages:
        if message.role is ChatRole.SYSTEM:
            continue
        parts = [said for part in message.all_parts for said in _said(part, names)]
        if not parts:
            continue
        role, uses_tools = _ROLES[message.role], any(map(_is_of_tools, parts))
        if contents and contents[-1]["role"] == role and (has_used_tools or uses_tools):
            contents[-1]["parts"] += parts
            has_used_tools = True
            continue
        contents.append({"role": role, "parts": parts})
        has_used_tools = uses_tools
        if message.role is ChatRole.USER and not uses_tools:
            turn_begins = len(contents)
    if _SIGNING.match(request.model.upstream.rpartition("/")[2]):
        _stand_in(contents[turn_begins:])
    if not contents or contents[0]["role"] != "user":
        contents.insert(0, {"role": "user", "parts": [{"text": OPENING}]})
    return contents


def _is_of_tools(part: Mapping[str, Any]) -> bool:
    return "function_call" in part or "function_response" in part


def _stand_in(contents: Sequence[Mapping[str, Any]]) -> None:
    """The first call of each step of the current turn must be signed."""
    for content in contents:
        first = next((part for part in content["parts"] if "function_call" in part), None)
        if first is not None:
            first.setdefault("thought_signature", UNSIGNED)


def _said(part: Part, names: Mapping[str, str]) -> list[dict[str, Any]]:
    match part:
        case Text(text=text) | Refusal(text=text):
            return [{"text": text}] if text.strip() else []
        case Media():
            return [_file(part)]
        case Thinking():
            return [_thought(part)] if part.origin is _OWN and (part.text or part.signature) else []
        case ToolCall():
            return [_call(part)]
        case ToolResult():
            return _result(part, names)
        case Opaque(body=body):
            return [_opaque(body)]


def _thought(part: Thinking) -> dict[str, Any]:
    signature = {"thought_signature": _decoded(part.signature, "A thought's signature")} if part.signature else {}
    return {"text": part.text, "thought": True, **signature}


def _call(part: ToolCall) -> dict[str, Any]:
    signature = {"thought_signature": _decoded(part.signature, "A tool call's signature")} if part.signature else {}
    return {
        "function_call": {"id": safe_call_id(part.id), "name": part.name, "args": _object(part.arguments, "input")},
        **signature,
    }


def _result(part: ToolResult, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """A result's words as an object, and what else it shows in parts of their own behind it."""
    response = {
        "id": safe_call_id(part.call_id),
        "name": part.name or names.get(part.call_id) or part.call_id,
        "response": {"error": part.text} if part.is_error else _object(part.text, "output"),
    }
    return [{"function_response": response}, *(_file(each) for each in part.content if isinstance(each, Media))]


def _object(text: str, otherwise: str) -> dict[str, Any]:
    """The JSON object that the text is, or one that holds it. NaN, halves of characters and the like are no JSON."""
    try:
        found = orjson.loads(text) if text.strip() else {}
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) and not _is_deep(found) else {otherwise: text}


def _is_deep(value: Any, levels: int = _MOST_LEVELS) -> bool:
    """Whether it has more levels than Google reads."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not levels or any(_is_deep(each, levels - 1) for each in inner)


def _file(part: Media) -> dict[str, Any]:
    guessed = mimetypes.guess_type(part.name or (part.url or "").partition("?")[0])[0]
    media_type = part.media_type or guessed
    if part.data is not None:
        data = _decoded(part.data, f"The {part.kind.value}")
        return {"inline_data": {"data": data, "mime_type": media_type or _MEDIA_TYPES[part.kind]}}
    url = part.url or ""
    if media_type is None and not url.startswith(_FILES_API):
        raise UpstreamFailed(
            Failure.UNSUPPORTED,
            f"Google's models must be told the type of a file that is given by its address: send the {part.kind.value} "
            "as base64 data, or with an address that ends like .png or .pdf.",
        )
    return {"file_data": {"file_uri": url, **({"mime_type": media_type} if media_type else {})}}


def _opaque(body: Mapping[str, Any]) -> dict[str, Any]:
    """A part as it came: what is bytes to the SDK is base64 in JSON."""
    said = dict(body)
    if isinstance(signature := said.pop("thoughtSignature", None), str):
        said["thought_signature"] = _decoded(signature, "A thought's signature")
    if isinstance(blob := said.pop("inlineData", None), Mapping):
        data = _decoded(str(blob.get("data", "")), "A file")
        said["inline_data"] = {"data": data, "mime_type": blob.get("mimeType")}
    return said


def _decoded(data: str, what: str) -> bytes:
    """The bytes of base64, whichever its alphabet. Raises UpstreamFailed (the caller's fault)."""
    try:
        standard = data.replace("-", "+").replace("_", "/")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UpstreamFailed(Failure.UNSUPPORTED, f"{what} is not valid base64.") from error
