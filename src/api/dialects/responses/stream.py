"""OpenAI responses, outwards: for answers that were translated (relayed ones go out nearly as they came)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import orjson

from src.api.dialects.request import ParsedRequest
from src.api.dialects.responses.content import item_besides
from src.api.dialects.responses.cut import Relayed
from src.api.dialects.responses.items import Namespaces, item_id, model_item, prefix_of
from src.api.dialects.responses.kept import output_items
from src.api.dialects.responses.open import Event, OpenCall, OpenItem, OpenMessage, OpenThought
from src.api.dialects.responses.reply import response_body, status_of, usage_body
from src.api.dialects.responses.tools import namespaces_of
from src.api.sse import event
from src.domain.completion.content import Media, Part, Refusal, Text, ToolResult
from src.domain.completion.deltas import (
    OpaqueDelta,
    PartDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    deltas_of,
)
from src.domain.completion.model import Outcome
from src.domain.dialogs.removing import Entry, Removed

_ERROR_CODES = frozenset({"server_error", "rate_limit_exceeded", "invalid_prompt"})


class ResponsesWriter:
    """Writes one answer, whole or as a stream of events.

    Events are numbered by a counter that grows by 1 for an event of structure and by the characters of a delta: the
    same answer, however it is cut into pieces, has the same numbers at the same characters. `namespaces` are those of
    the tools, where they are not those that `echo` tells.
    """

    tells_prompt: ClassVar[bool] = False

    def __init__(
        self,
        parsed: ParsedRequest,
        answer_id: UUID,
        *,
        echo: Mapping[str, Any],
        response_id: str,
        created_at: datetime,
        namespaces: Namespaces | None = None,
    ) -> None:
        self._answer_id = answer_id
        self._echo = echo
        self._response_id = response_id
        self._created_at = created_at
        self._model = parsed.model
        self._namespaces = namespaces_of(echo.get("tools") or ()) if namespaces is None else namespaces
        self._number: int | None = None
        self._open: OpenMessage | OpenThought | None = None
        self._calls: dict[int, OpenCall] = {}
        self._output: list[dict[str, Any]] = []
        self._holes: set[int] = set()

    def whole(self, outcome: Outcome, model: str) -> dict[str, Any]:
        """A response."""
        self._model = model
        items = output_items(outcome.parts, self._answer_id, status=_item_status(outcome), namespaces=self._namespaces)
        return self._ended(outcome, items)

    def first(self, model: str, prompt_tokens: int) -> bytes:
        """The start of a stream: it was created (queued, in the background) and is in progress."""
        self._model = model
        self._number = -1
        status = "queued" if self._echo.get("background") else "in_progress"
        told = [("response.created", {"response": self._body(status=status, output=[])})]
        if status == "queued":
            told.append(("response.queued", {"response": self._body(status=status, output=[])}))
        told.append(("response.in_progress", {"response": self._body(status="in_progress", output=[])}))
        return self._numbered(told)

    def delta(self, delta: PartDelta) -> bytes:
        """Some more of the answer."""
        return self._numbered(self._events_of(delta))

    def kept(self, item: Sequence[Entry]) -> bytes:
        """A whole item as it is kept; of one that was taken out only the numbers are spent."""
        return self._numbered(self._kept(item))

    def last(self, outcome: Outcome) -> bytes:
        """The end of what is open, and of the response."""
        ended = self._numbered(self._end_all(_item_status(outcome)))
        return ended + self._numbered([_last_word(self._ended(outcome, self._told()))])

    def cut(self, outcome: Outcome, relayed: bytes) -> bytes:
        """The same for a relayed stream that was stopped: what is open ends, then the response."""
        told = Relayed(relayed)
        self._number = told.number
        ended = self._numbered(told.end())
        status, reason = status_of(outcome.status, outcome.finish_reason)
        changed = {
            "status": status,
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": told.output,
            "usage": usage_body(outcome.usage),
        }
        body = {**self._body(status=status, output=[]), **told.response, **changed}
        return ended + self._numbered([_last_word(body)])

    def error(self, body: dict[str, Any], relayed: bytes = b"") -> bytes:
        """A failure in the middle of a stream, told as the end of the response as far as it has come."""
        error = body.get("error") or {}
        code = error.get("code")
        told = {"code": code if code in _ERROR_CODES else "server_error", "message": str(error.get("message"))}
        open_items: list[OpenItem] = [*self._calls.values(), *([self._open] if self._open is not None else [])]
        for item in open_items:
            self._output[item.index] = item.item("incomplete")
        failed = self._body(status="failed", output=self._told(), error=told)
        if relayed:
            heard = Relayed(relayed)
            self._number = heard.number
            failed |= heard.response | {"status": "failed", "error": told, "output": heard.output}
        return self._numbered([("response.failed", {"response": failed})])

    def _body(self, *, status: str, output: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return response_body(
            response_id=self._response_id,
            created_at=self._created_at,
            model=self._model,
            echo=self._echo,
            status=status,
            output=output,
            **more,
        )

    def _ended(self, outcome: Outcome, output: list[dict[str, Any]]) -> dict[str, Any]:
        status, reason = status_of(outcome.status, outcome.finish_reason)
        return self._body(
            status=status,
            output=output,
            usage=outcome.usage,
            incomplete_reason=reason,
            completed_at=outcome.ended_at if status == "completed" else None,
        )

    def _numbered(self, events: Iterable[Event]) -> bytes:
        number = -1 if self._number is None else self._number
        told: list[bytes] = []
        for name, fields in events:
            number += len(fields["delta"]) if "delta" in fields else 1
            if fields.get("output_index") not in self._holes:
                told.append(event({"type": name, "sequence_number": number, **fields}, name=name))
        self._number = number
        return b"".join(told)

    def _told(self) -> list[dict[str, Any]]:
        return [item for index, item in enumerate(self._output) if index not in self._holes]

    def _kept(self, item: Sequence[Entry]) -> Iterator[Event]:
        yield from self._end_open()
        if any(isinstance(entry, Removed) for entry in item):
            self._holes.add(len(self._output))
        parts = [part for entry in item for part in (entry.shape if isinstance(entry, Removed) else (entry,))]
        if said := [part for part in parts if isinstance(part, Text | Refusal)]:
            yield from self._message(said)
            return
        for part in parts:
            if isinstance(part, Media | ToolResult):  # of an answer that a client told us
                yield from self._put(part)
                continue
            for delta in deltas_of((part,)):
                own = replace(delta, index=len(self._calls)) if isinstance(delta, ToolCallDelta) else delta
                yield from self._events_of(own)

    def _message(self, said: Sequence[Text | Refusal]) -> Iterator[Event]:
        """A message, which is an item though it says nothing, where its provider made it one."""
        self._open = OpenMessage(self._answer_id, self._next_index(), item_besides(said))
        yield from self._open.begin()
        for part in said:
            yield from self._open.add_whole(part)

    def _events_of(self, delta: PartDelta) -> Iterator[Event]:
        match delta:
            case TextDelta(text=text):
                if text:
                    yield from self._say(Text, text)
            case RefusalDelta(text=text):
                yield from self._say(Refusal, text)
            case ThinkingDelta():
                yield from self._think(delta)
            case ToolCallDelta():
                yield from self._call(delta)
            case OpaqueDelta():
                yield from self._put(delta.part)

    def _say(self, kind: type[Text] | type[Refusal], text: str) -> Iterator[Event]:
        if not isinstance(self._open, OpenMessage) or not self._open.takes(kind):
            yield from self._end_open()
            self._open = OpenMessage(self._answer_id, self._next_index(), {})
            yield from self._open.begin()
        yield from self._open.add(kind, text)

    def _think(self, delta: ThinkingDelta) -> Iterator[Event]:
        if not isinstance(self._open, OpenThought) or delta.redacted:
            yield from self._end_open()
            self._open = OpenThought(self._answer_id, self._next_index())
            yield from self._open.begin()
        yield from self._open.add(delta)
        if self._open.has_ended:
            yield from self._end_open()

    def _call(self, delta: ToolCallDelta) -> Iterator[Event]:
        """Calls stay open until the end: their pieces may come mixed."""
        call = self._calls.get(delta.index)
        if call is None:
            yield from self._end_open()
            call = self._calls[delta.index] = OpenCall(self._answer_id, self._next_index(), delta, self._namespaces)
            yield from call.begin()
        yield from call.add(delta)

    def _put(self, part: Part) -> Iterator[Event]:
        for told in model_item(part, self._namespaces):
            yield from self._end_open()
            index = self._next_index()
            item = {**told, "id": item_id(prefix_of(told), self._answer_id, index)}
            self._output[index] = item
            yield "response.output_item.added", {"output_index": index, "item": item}
            yield "response.output_item.done", {"output_index": index, "item": item}

    def _next_index(self) -> int:
        self._output.append({})
        return len(self._output) - 1

    def _end_open(self, status: str = "completed") -> Iterator[Event]:
        if self._open is not None:
            yield from self._end(self._open, status)
            self._open = None

    def _end(self, item: OpenItem, status: str) -> Iterator[Event]:
        self._output[item.index] = item.item(status)
        yield from item.end(status)

    def _end_all(self, status: str) -> Iterator[Event]:
        """Only the last item of an answer that was broken off is not whole; calls are open beside it."""
        last = len(self._output) - 1
        yield from self._end_open(status)
        for call in self._calls.values():
            yield from self._end(call, status if call.index == last else "completed")


def _item_status(outcome: Outcome) -> str:
    status, _ = status_of(outcome.status, outcome.finish_reason)
    return "completed" if status == "completed" else "incomplete"


def _last_word(body: dict[str, Any]) -> Event:
    """There is no event for a cancelled response: it is incomplete, and its status says why."""
    status = body["status"]
    name = status if status in ("completed", "failed") else "incomplete"
    return f"response.{name}", {"response": body}


def after(events: Iterable[bytes], starting_after: int) -> Iterator[bytes]:
    """What comes after a sequence number, of a stream from its beginning; a delta is cut in its middle where needed.

    `events` are whole events, one or several at once, of a ResponsesWriter.
    """
    for data in events:
        kept = b"".join(_left_of(each, starting_after) for each in data.split(b"\n\n") if each)
        if kept:
            yield kept


def end_after(data: bytes, starting_after: int) -> bytes:
    """The same for the end of a stream, whose last event is told in any case.

    Who has heard more than was kept, of a gateway that died, hears how it ended.
    """
    left = b"".join(after([data], starting_after))
    if left:
        return left
    _, _, last = data.removesuffix(b"\n\n").rpartition(b"data: ")
    payload = {**orjson.loads(last), "sequence_number": starting_after + 1}
    return event(payload, name=payload["type"])


def _left_of(told: bytes, starting_after: int) -> bytes:
    """One event, or what is left of it."""
    _, _, data = told.partition(b"data: ")
    payload = orjson.loads(data)
    number, delta = payload["sequence_number"], payload.get("delta")
    if number <= starting_after:
        return b""
    if isinstance(delta, str) and number - len(delta) < starting_after:
        payload["delta"] = delta[starting_after - number :]
        return event(payload, name=payload["type"])
    return told + b"\n\n"
