"""Answers that are to be lists, words or numbers, of servers that promise objects alone: they come inside of one."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from src.domain.completion.content import Part, Text
from src.domain.completion.deltas import TextDelta
from src.domain.completion.model import Finished, FinishReason, Reply, UpstreamEvent, UpstreamRequest
from src.domain.completion.ports import ChatModel

_ANSWER = "answer"
_OPENING = re.compile(r'\s*\{\s*"answer"\s*:\s*(?=\S)')
_BARE_OPENING = '{"answer":'
_BLANKS = re.compile(r"\s+")
_BLANK = " \t\r\n"
_CLOSING = _BLANK + "}"
"""What the object may end with."""
_SHARED = ("$defs", "definitions")
"""What references of a schema lead to, from its root."""


class AnswersInObjects(ChatModel):
    """Around a model that gives objects alone. Requests for objects, and for no JSON, pass as they are."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    async def complete(self, request: UpstreamRequest) -> Reply:
        wrapped = _asking_for_an_object(request)
        if wrapped is None:
            return await self._model.complete(request)
        reply = await self._model.complete(wrapped)
        reason = reply.finished.reason
        parts: tuple[Part, ...] = tuple(
            Text(text=_unwrapped(part.text, reason)) if isinstance(part, Text) else part for part in reply.parts
        )
        return replace(reply, text=_unwrapped(reply.text, reason), parts=parts)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        wrapped = _asking_for_an_object(request)
        inside = _Inside()
        async with aclosing(self._model.stream(wrapped or request)) as events:
            async for event in events:
                if wrapped is None or not isinstance(event, TextDelta | Finished):
                    yield event
                    continue
                text = inside.feed(event.text) if isinstance(event, TextDelta) else inside.rest(event.reason)
                if text:
                    yield TextDelta(text)
                if isinstance(event, Finished):
                    yield event


def _asking_for_an_object(request: UpstreamRequest) -> UpstreamRequest | None:
    """The request for an object in which the answer is; None where no other is wanted."""
    wanted = request.chat.parameters.response_format
    if wanted is None or wanted.schema is None or wanted.schema.get("type") == "object":
        return None
    parameters = replace(request.chat.parameters, response_format=replace(wanted, schema=_around(wanted.schema)))
    return replace(request, chat=replace(request.chat, parameters=parameters))


def _around(schema: Mapping[str, Any]) -> dict[str, Any]:
    shared = {name: schema[name] for name in _SHARED if name in schema}
    inner = {name: value for name, value in schema.items() if name not in shared}
    return {
        "type": "object",
        "properties": {_ANSWER: inner},
        "required": [_ANSWER],
        "additionalProperties": False,
        **shared,
    }


def _unwrapped(text: str, reason: FinishReason) -> str:
    inside = _Inside()
    return inside.feed(text) + inside.rest(reason)


class _Inside:
    """What is in the object, out of JSON that comes in pieces. Words that are no such object are told as they are."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._has_begun = False
        self._is_other = False

    def feed(self, piece: str) -> str:
        """More of the JSON; what it adds to the answer."""
        self._kept.append(piece)
        if not self._is_other and not piece.strip(_CLOSING if self._has_begun else _BLANK):
            return ""  # which decides nothing: models that are lost write blanks without an end
        pending = "".join(self._kept)
        if not self._has_begun and not self._is_other:
            pending = self._begun(pending)
        told = pending if self._is_other else pending.rstrip(_CLOSING) if self._has_begun else ""
        self._kept = [pending[len(told) :]]
        return told

    def rest(self, reason: FinishReason) -> str:
        """At the end: what was kept back, without the end of the object, which an answer that was cut has not."""
        kept = "".join(self._kept)
        if not self._has_begun or reason is FinishReason.LENGTH:
            return kept
        return kept.rstrip().removesuffix("}").rstrip()

    def _begun(self, pending: str) -> str:
        """What is left of it, where the object begins with it or is found to be none."""
        if opening := _OPENING.match(pending):
            self._has_begun = True
            return pending[opening.end() :]
        self._is_other = not _BARE_OPENING.startswith(_BLANKS.sub("", pending))
        return pending
