"""OpenAI's responses, as the relay lane reads and changes them.

The gateway keeps responses itself: what it has its own values for is replaced in the response object, and items get
ids that lead back to the message that is stored here.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from src.domain.catalog.model import ReasoningStyle, Usage
from src.domain.completion.content import Opaque, Part, ToolCall, answer_text
from src.domain.completion.deltas import PartDelta
from src.domain.completion.model import (
    Delivered,
    Finished,
    FinishReason,
    Reply,
    UpstreamFailed,
    UpstreamRequest,
    WireBody,
)
from src.integrations.llm import relay_failures
from src.integrations.llm.openai.responses_parts import pieces_of, read_output
from src.integrations.llm.reasoning import style_of
from src.integrations.llm.sse_bytes import TailReader, parsed, payloads_of

CAP_FIELD = "max_output_tokens"
ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

_ENDED = ("completed", "incomplete")
_REASONS = {"max_output_tokens": FinishReason.LENGTH, "content_filter": FinishReason.CONTENT_FILTER}
_PROVIDERS_FAULTS = frozenset({"server_error", "rate_limit_exceeded", "vector_store_timeout", "insufficient_quota"})
"""Codes of failed responses that are no fault of the request."""
_OUR_ID = re.compile(r"resp_([0-9a-f]{32})")
_ITEM_ID = re.compile(r"([a-z]{1,16})_[A-Za-z0-9_-]{4,}")


def body_for(request: UpstreamRequest, wire_body: Mapping[str, Any], cap_field: str) -> dict[str, Any]:
    """The client's body with the model and the output cap changed; the client's own is untouched.

    What is not stored upstream must come back whole: thoughts are asked for in the form that can be handed back.
    """
    body = {**wire_body, "model": request.model.upstream}
    if request.output_cap is not None:
        limit = max(1, min(request.output_cap, request.model.max_output))
        wish = body.get(CAP_FIELD)
        body[CAP_FIELD] = min(wish, limit) if isinstance(wish, int) and wish > 0 else limit
    if body.get("store") is False and style_of(request.model) is not ReasoningStyle.NONE:
        include = body.get("include")
        wanted = include if isinstance(include, list) else []
        body["include"] = wanted if ENCRYPTED in wanted else [*wanted, ENCRYPTED]
    return body


def read_reply(data: bytes) -> Reply:
    """A whole answer. Raises UpstreamFailed where the body is none."""
    body = parsed(data)
    if not isinstance(body, dict):
        raise relay_failures.malformed("The provider's answer is not JSON.")
    if body.get("error"):
        raise _failure(body["error"])
    if not isinstance(body.get("output"), list):
        raise relay_failures.malformed("The provider's answer has no output.")
    if body.get("status") not in _ENDED:
        raise relay_failures.malformed("The provider's answer ended without a reason.")
    finished = replace(_finished(body), wire=data)
    return Reply(text=answer_text(finished.parts), parts=finished.parts, finished=finished)


def answered_by_us(reply: Reply, wire: WireBody) -> Reply:
    """The same with the gateway's own values in the body, and with the logprobs that the client asked for."""
    body = parsed(reply.finished.wire or b"")
    if not isinstance(body, dict):
        return reply
    parts = read_output(body.get("output"), logprobs=True) if wants_logprobs(wire) else reply.parts
    finished = replace(reply.finished, wire=_dumped(_Ours(wire).response(body)), parts=parts)
    return replace(reply, finished=finished, parts=parts)


def read_usage(value: Any) -> Usage | None:
    """Reported tokens, unchecked; None where they are missing or no numbers."""
    if not isinstance(value, dict):
        return None
    input_tokens, output_tokens = value.get("input_tokens"), value.get("output_tokens")
    if not isinstance(input_tokens, int) or not isinstance(output_tokens, int):
        return None
    cached, thought = (_dict(value.get(f"{side}_tokens_details")) for side in ("input", "output"))
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=_count(cached.get("cached_tokens")),
        cache_write_tokens=_count(cached.get("cache_write_tokens")),
        reasoning_tokens=_count(thought.get("reasoning_tokens")),
    )


def wants_logprobs(wire: WireBody) -> bool:
    """Whether the client asked for them: they are kept for it alone, since they are many times their text."""
    include = wire.body.get("include")
    return isinstance(include, list) and LOGPROBS in include


def reading_delivered(wire: WireBody) -> Callable[[bytes], Delivered]:
    """What reads the events that such a client is sent."""
    return partial(read_delivered, logprobs=wants_logprobs(wire))


def read_delivered(data: bytes, *, logprobs: bool = False) -> Delivered:
    """Everything generated in some events: text, refusals, thoughts and what tools are called with."""
    texts: list[str] = []
    pieces: list[PartDelta] = []
    usage: Usage | None = None
    for payload in payloads_of(data):
        if str(payload.get("type")).endswith(".delta"):
            texts.append(_text(payload.get("delta")))
        with suppress(UpstreamFailed):  # what cannot be read is left out: what was delivered must be charged
            pieces.extend(pieces_of(payload, logprobs=logprobs))
        usage = read_usage(_dict(payload.get("response")).get("usage")) or usage
    return Delivered("".join(texts), usage, tuple(pieces))


def _finished(response: Mapping[str, Any], *, logprobs: bool = False) -> Finished:
    parts = read_output(response.get("output"), logprobs=logprobs)
    return Finished(
        reason=_reason(response, parts),
        usage=read_usage(response.get("usage")),
        upstream_model=_text(response.get("model")) or None,
        parts=parts,
        readings=1 + sum(isinstance(part, Opaque) and part.kind.endswith("_call") for part in parts),
    )


def _reason(response: Mapping[str, Any], parts: tuple[Part, ...]) -> FinishReason:
    if response.get("status") == "incomplete":
        return _REASONS.get(_text(_dict(response.get("incomplete_details")).get("reason")), FinishReason.LENGTH)
    return FinishReason.TOOL_CALLS if any(isinstance(part, ToolCall) for part in parts) else FinishReason.STOP


def _failure(error: Any) -> UpstreamFailed:
    """A failed response names no status; most of its codes say what is wrong with the request."""
    found = _dict(error)
    if found.get("type") is None and isinstance(found.get("code"), str) and found["code"] not in _PROVIDERS_FAULTS:
        return relay_failures.of_error_object({**found, "type": "invalid_request_error"})
    return relay_failures.of_error_object(error)


class _Ours:
    """Puts the gateway's own values into an answer: `answered_for`, and ids of items that lead to what is stored."""

    def __init__(self, wire: WireBody) -> None:
        self._values = dict(wire.answered_for)
        ours = _OUR_ID.fullmatch(str(self._values.get("id")))
        self._hex = None if ours is None else ours[1]
        self._renamed: dict[bytes, bytes] = {}

    def response(self, response: dict[str, Any]) -> dict[str, Any]:
        """The response object."""
        output = response.get("output")
        if isinstance(output, list):
            response = {**response, "output": [self.item(item, place) for place, item in enumerate(output)]}
        return {**response, **self._values}

    def item(self, item: Any, place: Any) -> Any:
        """An item at a place of the output."""
        known = _ITEM_ID.fullmatch(_text(_dict(item).get("id")))
        if self._hex is None or known is None or not isinstance(place, int):
            return item
        ours = f"{known[1]}_{self._hex}" + (f"_{place}" if place else "")
        for mark in (b'"item_id":"%s"', b'"item_id": "%s"'):
            self._renamed[mark % known[0].encode()] = mark % ours.encode()
        return {**item, "id": ours}

    def events(self, data: bytes) -> bytes:
        """Events that only name an item."""
        for theirs, ours in self._renamed.items():
            data = data.replace(theirs, ours)
        return data


class ResponsesReader(TailReader):
    """Passes everything on up to the end of the response; rewrites only events that hold the response or an item."""

    marks = (b'"response":', b'"response.output_item.', b'"error"', b"[DONE]")

    def __init__(self, wire: WireBody) -> None:
        super().__init__()
        self._ours = _Ours(wire)
        self._logprobs = wants_logprobs(wire)
        self._rewritten: bytes | None = None
        self._items: dict[int, Any] = {}
        self._finished: Finished | None = None

    def read(self, events: bytes) -> bytes:
        return self._ours.events(super().read(events))

    def look(self, payload: dict[str, Any]) -> bool:
        kind, response = payload.get("type"), payload.get("response")
        if kind == "error" or payload.get("error"):
            self.failure = _failure(payload.get("error") or {**payload, "type": None})
        elif kind == "response.failed":
            self.failure = _failure(_dict(response).get("error"))
        elif isinstance(response, dict):
            self._rewrite({**payload, "response": self._ours.response(response)})
            if kind in ("response.completed", "response.incomplete"):
                self._end(response)
        elif "item" in payload:
            self._rewrite({**payload, "item": self._ours.item(payload["item"], payload.get("output_index"))})
            if kind == "response.output_item.done":
                self._items[_count(payload.get("output_index"))] = payload["item"]
        return True

    def outgoing(self, event: bytes) -> bytes:
        changed, self._rewritten = self._rewritten, None
        return event if changed is None else changed

    def _end(self, response: dict[str, Any]) -> None:
        """Some servers' last response has no output: the items were told before."""
        told_before = [self._items[place] for place in sorted(self._items)]
        whole = response if response.get("output") else {**response, "output": told_before}
        self._finished = _finished(whole, logprobs=self._logprobs)
        self.is_over = True
        self.hold()

    def _rewrite(self, payload: dict[str, Any]) -> None:
        kind = _text(payload.get("type")).encode()
        self._rewritten = b"event: %s\ndata: %s\n\n" % (kind, _dumped(payload))

    @property
    def is_complete(self) -> bool:
        return self._finished is not None

    @property
    def is_settled(self) -> bool:
        return self._finished is not None

    def finished(self) -> Finished:
        return replace(self._finished or Finished(reason=FinishReason.STOP), wire=self.held)


def _dumped(body: Mapping[str, Any]) -> bytes:
    """Raises UpstreamFailed for what nests deeper than can be written again."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise relay_failures.malformed("The provider's answer nests too deep.") from error


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
