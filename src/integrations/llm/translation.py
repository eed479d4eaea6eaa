"""What every translation has in common: what it must refuse, and what it leaves out and says so."""

import hashlib
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, replace

from src.domain.catalog.model import WireFormat
from src.domain.completion.abilities import beyond
from src.domain.completion.content import Opaque, Part, ToolCall
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    Failure,
    Parameters,
    UpstreamFailed,
    UpstreamRequest,
)
from src.domain.completion.tools import ToolUse

SAMPLING = frozenset({"temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty"})

OPENING = "(The conversation begins with the assistant.)"
"""Said first, where a history must begin with the user."""

_NOT_SET = (None, ())
_CALL_ID = re.compile(r"[A-Za-z0-9_-]+")


def refuse_untranslatable(request: UpstreamRequest) -> None:
    """Raises UpstreamFailed (unsupported) for what cannot be said to the model, whatever its format."""
    wire, name = request.chat.wire, request.model.name
    if wire is not None and wire.untranslatable:
        carried = ", ".join(wire.untranslatable)
        raise UpstreamFailed(
            Failure.UNSUPPORTED,
            f"Parts of the request cannot be translated for the model {name}: {carried}; "
            "use a model whose provider speaks this dialect.",
        )
    if missing := beyond(request.model.capabilities, request.chat):
        raise UpstreamFailed(Failure.UNSUPPORTED, f"The model {name} does not do this: {', '.join(missing)}.")
    _refuse_unknown_choice(request.chat)


def _refuse_unknown_choice(chat: ChatRequest) -> None:
    """Raises UpstreamFailed (unsupported) where one of some tools must be called, and none of them is there."""
    wanted, offered = chat.tool_choice.names, {tool.name for tool in chat.tools}
    if chat.tool_choice.use is ToolUse.REQUIRED and wanted and offered and offered.isdisjoint(wanted):
        named = ", ".join(wanted)[:200]
        raise UpstreamFailed(Failure.UNSUPPORTED, f"A tool must be called that is not among the tools: {named}.")


def sayable(request: UpstreamRequest, own: WireFormat) -> tuple[UpstreamRequest, tuple[str, ...]]:
    """The request without what only formats other than `own` can say of its history, and the names of that.

    Raises UpstreamFailed (unsupported) for what cannot be said to the model, and must not go missing.
    """
    refuse_untranslatable(request)
    messages = request.chat.messages
    foreign = [part for message in messages for part in message.parts if _is_foreign(part, own)]
    if not foreign:
        return request, ()
    left = (
        replace(message, parts=tuple(part for part in message.parts if not _is_foreign(part, own)))
        for message in messages
    )
    kept = tuple(message for message, before in zip(left, messages, strict=True) if message.parts or not before.parts)
    names = tuple(dict.fromkeys(f"items[{part.kind}]" for part in foreign if isinstance(part, Opaque)))
    return replace(request, chat=replace(request.chat, messages=kept)), names


def _is_foreign(part: Part, own: WireFormat) -> bool:
    return isinstance(part, Opaque) and part.format is not own


def refuse_many_stops(request: UpstreamRequest, most: int) -> None:
    """Raises UpstreamFailed (unsupported) for more stop sequences than the provider takes: each changes the answer."""
    if (given := len(request.chat.parameters.stop)) > most:
        raise UpstreamFailed(
            Failure.UNSUPPORTED,
            f"The provider of the model {request.model.name} takes at most {most} stop sequences: there are {given}.",
        )


def strict_left_out(chat: ChatRequest) -> tuple[str, ...]:
    """The name for that schemas of tools are kept to exactly, where it is wished and the format cannot say it."""
    return ("tools.strict",) if any(tool.strict for tool in chat.tools) else ()


def idle_choice(chat: ChatRequest) -> tuple[str, ...]:
    """The name for that a tool must be called, where there is none: providers refuse that, and it is not said."""
    return ("tool_choice",) if not chat.tools and chat.tool_choice.use is ToolUse.REQUIRED else ()


def left_out(request: UpstreamRequest, taken: Set[str]) -> tuple[str, ...]:
    """Names of parameters that the request sets and the model is not told: its format takes only those of `taken`."""
    parameters = request.chat.parameters
    if not request.model.capabilities.sampling:
        taken = taken - SAMPLING
    known = {"max_output_tokens", "choices", *taken}
    return tuple(
        field.name
        for field in fields(Parameters)
        if field.name not in known and getattr(parameters, field.name) not in _NOT_SET
    )


def refuse_choices(request: UpstreamRequest) -> None:
    """Raises UpstreamFailed (unsupported) where several answers at once are wanted."""
    if request.chat.parameters.choices > 1:
        raise UpstreamFailed(
            Failure.UNSUPPORTED,
            f"The model {request.model.name} gives one answer at a time through this dialect: leave out n.",
        )


def safe_call_id(call_id: str, longest: int = 40) -> str:
    """The id of a tool call as every provider takes it; the same for the same, so that results find their calls."""
    if len(call_id) <= longest and _CALL_ID.fullmatch(call_id):
        return call_id
    return "call_" + hashlib.sha256(call_id.encode(errors="replace")).hexdigest()[:24]


def system_text(messages: Sequence[ChatMessage]) -> str:
    """All system messages as one."""
    return "\n\n".join(message.text for message in messages if message.role is ChatRole.SYSTEM and message.text)


def called_names(messages: Sequence[ChatMessage]) -> Mapping[str, str]:
    """The names of the tools that were called, by the ids of the calls."""
    parts = (part for message in messages for part in message.parts)
    return {part.id: part.name for part in parts if isinstance(part, ToolCall)}
