"""Tools that take free text, for models that know none: they become functions with one argument, and calls of them
become free text again.
"""

import json
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson

from src.domain.completion.content import Part, ToolCall
from src.domain.completion.deltas import ToolCallDelta
from src.domain.completion.model import ChatMessage, Finished, Reply, UpstreamEvent, UpstreamRequest
from src.domain.completion.ports import ChatModel
from src.domain.completion.tools import Tool
from src.integrations.llm.failures import told

ARGUMENT = "input"

_SCHEMA = {
    "type": "object",
    "properties": {ARGUMENT: {"type": "string", "description": "The whole input, as free text."}},
    "required": [ARGUMENT],
    "additionalProperties": False,
}
_OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_CHARS = re.compile(r'(?:[^"\\]|\\(?:u[0-9a-fA-F]{4}|[^u]))*')
_HALF_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")


class CustomToolsAsFunctions(ChatModel):
    """Around a model of a provider that knows functions alone. Requests without custom tools pass as they are."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    async def complete(self, request: UpstreamRequest) -> Reply:
        names = custom_names(request)
        if not names:
            return await self._model.complete(request)
        reply = await self._model.complete(with_functions(request))
        finished = replace(reply.finished, parts=_with_custom_calls(reply.finished.parts, names))
        return replace(reply, parts=_with_custom_calls(reply.parts, names), finished=finished)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        names = custom_names(request)
        calls = _CallsInText(names)
        async with aclosing(self._model.stream(with_functions(request) if names else request)) as events:
            async for event in events:
                if not names or not isinstance(event, ToolCallDelta | Finished):
                    yield event
                elif isinstance(event, ToolCallDelta):
                    yield calls.text_of(event)
                else:
                    for rest in calls.rest():
                        yield rest
                    yield replace(event, parts=_with_custom_calls(event.parts, names))


def custom_names(request: UpstreamRequest) -> frozenset[str]:
    """The names of tools that take free text, be they offered or called before."""
    offered = (tool.name for tool in request.chat.tools if tool.is_custom)
    parts = (part for message in request.chat.messages for part in message.parts)
    called = (part.name for part in parts if isinstance(part, ToolCall) and part.is_custom)
    return frozenset((*offered, *called))


def with_functions(request: UpstreamRequest) -> UpstreamRequest:
    """The same with every custom tool and call as a function's."""
    chat = request.chat
    messages = tuple(_message_with_functions(message) for message in chat.messages)
    return replace(request, chat=replace(chat, messages=messages, tools=tuple(map(_function, chat.tools))))


def _function(tool: Tool) -> Tool:
    return replace(tool, schema=_SCHEMA, is_custom=False) if tool.is_custom else tool


def _message_with_functions(message: ChatMessage) -> ChatMessage:
    if not any(isinstance(part, ToolCall) and part.is_custom for part in message.parts):
        return message
    return replace(message, parts=tuple(map(_function_call, message.parts)))


def _function_call(part: Part) -> Part:
    if not isinstance(part, ToolCall) or not part.is_custom:
        return part
    return replace(part, arguments=orjson.dumps({ARGUMENT: part.arguments}).decode(), is_custom=False)


def _with_custom_calls(parts: Sequence[Part], names: frozenset[str]) -> tuple[Part, ...]:
    return tuple(
        replace(part, arguments=free_text(part.arguments), is_custom=True)
        if isinstance(part, ToolCall) and part.name in names
        else part
        for part in parts
    )


def free_text(arguments: str) -> str:
    """What a function was called with as free text. A model that did not write the argument has meant it all."""
    text = _FreeText()
    return text.feed(arguments) + text.rest()


class _CallsInText:
    """A stream's calls of custom tools, whose text is told as it comes."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._texts: dict[int, _FreeText] = {}

    def text_of(self, delta: ToolCallDelta) -> ToolCallDelta:
        """The same piece of a call in free text, often less of it."""
        if delta.name in self._names:
            self._texts.setdefault(delta.index, _FreeText())
        text = self._texts.get(delta.index)
        if text is None:
            return delta
        return replace(delta, arguments=text.feed(delta.arguments), is_custom=True)

    def rest(self) -> Iterator[ToolCallDelta]:
        """What was kept back."""
        for index, text in self._texts.items():
            if left := text.rest():
                yield ToolCallDelta(index, arguments=left, is_custom=True)


class _FreeText:
    """The text of the one argument, out of JSON that comes in pieces. What does not look like it waits for the end."""

    def __init__(self) -> None:
        self._pending = ""
        self._has_begun = False
        self._has_ended = False

    def feed(self, piece: str) -> str:
        """More of the JSON; what it adds to the text."""
        if self._has_ended:
            return ""
        self._pending += piece
        # Blanks begin nothing: models that are lost write them without an end.
        if not self._has_begun and (piece.isspace() or not self._begin()):
            return ""
        whole = _CHARS.match(self._pending)
        chars = whole[0] if whole else ""
        left = self._pending[len(chars) :]
        self._has_ended = left.startswith('"')
        if (half := _HALF_PAIR.search(chars)) is not None and not self._has_ended:
            chars, left = chars[: half.start()], chars[half.start() :] + left
        self._pending = left
        return _unescaped(chars)

    def rest(self) -> str:
        """At the end: everything, where it was no such argument; nothing where all of it was told."""
        return "" if self._has_begun else _meant(self._pending)

    def _begin(self) -> bool:
        opening = _OPENING.match(self._pending)
        if opening is not None:
            self._has_begun = True
            self._pending = self._pending[opening.end() :]
        return opening is not None


def _meant(arguments: str) -> str:
    """The text in arguments that have another shape."""
    try:
        value: Any = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    found = value.get(ARGUMENT) if isinstance(value, dict) else None
    return told(found) if isinstance(found, str) else arguments


def _unescaped(chars: str) -> str:
    """The characters of a JSON string."""
    try:
        return told(json.loads(f'"{chars}"', strict=False))
    except ValueError:
        return told(chars)
