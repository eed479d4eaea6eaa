"""Names of tools that a provider refuses, which another takes: it is told others, and its calls bear the own ones."""

import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Set
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256

from src.domain.completion.content import Part, ToolCall, ToolResult
from src.domain.completion.deltas import ToolCallDelta
from src.domain.completion.model import ChatRequest, Finished, Reply, UpstreamEvent, UpstreamRequest
from src.domain.completion.ports import ChatModel
from src.domain.completion.tools import MAX_TOOL_NAME

OPENAIS = re.compile(r"[a-zA-Z0-9_-]{1,64}")
ANTHROPICS = re.compile(r"[a-zA-Z0-9_-]{1,128}")
GOOGLES = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")

_UNFIT = re.compile(r"[^a-zA-Z0-9_-]")
_BEGINNING = re.compile(r"[a-zA-Z_]")
_MARK_CHARS = 8


class FittingToolNames(ChatModel):
    """Around a model that takes names of the form `fitting`. Requests with such names alone pass as they are."""

    def __init__(self, model: ChatModel, fitting: re.Pattern[str]) -> None:
        self._model = model
        self._fitting = fitting

    async def complete(self, request: UpstreamRequest) -> Reply:
        made = self._made_for(request.chat)
        reply = await self._model.complete(_renamed(request, made))
        if not made:
            return reply
        own = _back(made)
        finished = replace(reply.finished, parts=_parts(reply.finished.parts, own))
        return replace(reply, parts=_parts(reply.parts, own), finished=finished)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        made = self._made_for(request.chat)
        own = _back(made)
        async with aclosing(self._model.stream(_renamed(request, made))) as events:
            async for event in events:
                match event:
                    case ToolCallDelta(name=str(name)) if made:
                        yield replace(event, name=own(name))
                    case Finished(parts=parts) if made and parts:
                        yield replace(event, parts=_parts(parts, own))
                    case _:
                        yield event

    def _made_for(self, chat: ChatRequest) -> Mapping[str, str]:
        """The names to be told, by those that the provider does not take."""
        names = dict.fromkeys(_names_in(chat))
        unfit = [name for name in names if name and not self._fitting.fullmatch(name)]
        taken = names.keys() - unfit
        made: dict[str, str] = {}
        for name in unfit:
            made[name] = _fitting_name(name, taken)
            taken.add(made[name])
        return made


def _fitting_name(name: str, taken: Set[str]) -> str:
    """A name that every provider takes, no longer than the own one, unless that would be one of those taken."""
    readable = _UNFIT.sub("_", name)
    begun = readable if _BEGINNING.match(readable) else f"_{readable}"
    if len(begun) <= MAX_TOOL_NAME and begun not in taken:
        return begun
    mark = sha256(name.encode(errors="replace")).hexdigest()[:_MARK_CHARS]
    return f"{begun[: MAX_TOOL_NAME - _MARK_CHARS - 1]}_{mark}"


def _names_in(chat: ChatRequest) -> Iterator[str]:
    yield from (tool.name for tool in chat.tools)
    yield from chat.tool_choice.names
    for message in chat.messages:
        for part in message.parts:
            if isinstance(part, ToolCall | ToolResult) and part.name:
                yield part.name


def _back(made: Mapping[str, str]) -> Callable[[str], str]:
    own = {told: name for name, told in made.items()}
    return lambda name: own.get(name, name)


def _renamed(request: UpstreamRequest, made: Mapping[str, str]) -> UpstreamRequest:
    """The same with other names."""
    if not made:
        return request

    def told(name: str) -> str:
        return made.get(name, name)

    chat = request.chat
    named = replace(
        chat,
        tools=tuple(replace(tool, name=told(tool.name)) for tool in chat.tools),
        tool_choice=replace(chat.tool_choice, names=tuple(map(told, chat.tool_choice.names))),
        messages=tuple(replace(message, parts=_parts(message.parts, told)) for message in chat.messages),
    )
    return replace(request, chat=named)


def _parts(parts: tuple[Part, ...], said: Callable[[str], str]) -> tuple[Part, ...]:
    return tuple(
        replace(part, name=said(part.name)) if isinstance(part, ToolCall | ToolResult) and part.name else part
        for part in parts
    )
