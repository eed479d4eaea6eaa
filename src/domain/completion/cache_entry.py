"""Which answers may be kept, under which key, and in which form they are."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any

from src.domain.catalog.model import CachePolicy, Usage
from src.domain.completion.content import Part, Text, part_body, part_from
from src.domain.completion.deltas import TextDelta, deltas_of
from src.domain.completion.model import (
    CacheUse,
    Call,
    ChatRequest,
    Delivered,
    Delta,
    FinishReason,
    Outcome,
    Parameters,
    WireBody,
    WireChunk,
)
from src.domain.ledger.model import CallStatus
from src.shared.ids import new_id
from src.shared.money import MicroDollars

MAX_ENTRY_BYTES = 1024 * 1024
FORM = 3
"""Raised whenever entries or keys change: what was kept before is not found any more."""

_WITHOUT_MEANING = frozenset({"user", "metadata", "labels", "safety_identifier", "prompt_cache_key"})
"""Fields that say who asks, and change nothing in the answer."""

_ACTING = ("tools", "functions", "mcp_servers", "web_search_options", "plugins", "container", "store")
"""Fields by which an answer does, looks up or leaves behind something elsewhere."""


def policy_of(call: Call, default: CachePolicy) -> CachePolicy | None:
    """How long the call's answer may be kept, for whom and for which questions; None where the cache is off for it.

    It is on where every model that may answer has a policy, or where the request wishes it. Never for requests that act
    elsewhere, nor for several choices, which end each for a reason of its own.
    """
    wish, models = call.cache, call.route.models
    if wish.on is False or call.chat.parameters.choices > 1 or _acts(call.chat):
        return None
    if not wish.on and any(model.cache is None for model in models):
        return None
    policies = [model.cache or default for model in models]
    similarities = [policy.similarity for policy in policies if policy.similarity is not None]
    return CachePolicy(
        ttl_s=min(policy.ttl_s for policy in policies),
        per_user=any(policy.per_user for policy in policies),
        similarity=max(similarities) if len(similarities) == len(policies) else None,
    )


def _acts(chat: ChatRequest) -> bool:
    return bool(chat.tools) or (chat.wire is not None and any(chat.wire.body.get(name) for name in _ACTING))


def cache_key(call: Call, policy: CachePolicy) -> str:
    """The same for the same request only: whose it is, the models behind the name, and everything that was asked.

    Requests in a dialect whose upstream may speak it too are told apart by all their fields and forwarded headers.
    """
    principal, chat = call.principal, call.chat
    canonical = json.dumps(
        {
            "form": FORM,
            "user": str(principal.user_id) if policy.per_user else None,
            "route": call.route.name,
            "models": [[model.name, model.provider, model.upstream] for model in call.route.models],
            "asked": _words(chat) if chat.wire is None else _wire(chat.wire, stream=chat.stream),
        },
        ensure_ascii=False,
        separators=(",", ":"),
        sort_keys=True,
    )
    return f"{principal.tenant_id}:{hashlib.sha256(canonical.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _words(chat: ChatRequest) -> Mapping[str, Any]:
    return {
        "messages": [[message.role, [part_body(part) for part in message.all_parts]] for message in chat.messages],
        "parameters": {field.name: _plain(getattr(chat.parameters, field.name)) for field in fields(Parameters)},
    }


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _wire(wire: WireBody, *, stream: bool) -> Mapping[str, Any]:
    return {
        "format": wire.format,
        "stream": stream,
        "headers": {name.lower(): text for name, text in wire.headers.items()},
        "body": {name: value for name, value in wire.body.items() if name not in _WITHOUT_MEANING},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An answer as it is kept: its words or vectors, or what was relayed, `chunks` of a stream and its last bytes.

    `parts` where it is more than one text.
    """

    model: str
    upstream_model: str | None
    finish_reason: FinishReason
    text: str = ""
    parts: tuple[Part, ...] = ()
    dropped: tuple[str, ...] = ()
    chunks: bytes = b""
    wire: bytes | None = None
    vectors: tuple[bytes, ...] = ()

    def packed(self) -> bytes:
        """As bytes, for a cache."""
        pieces = (self.text.encode("utf-8", "surrogatepass"), self.chunks, self.wire, *self.vectors)
        head = {
            "form": FORM,
            "model": self.model,
            "upstream_model": self.upstream_model,
            "finish_reason": self.finish_reason,
            "parts": [part_body(part) for part in self.parts],
            "dropped": self.dropped,
            "sizes": [None if piece is None else len(piece) for piece in pieces],
        }
        return b"".join((json.dumps(head).encode(), b"\n", *(piece or b"" for piece in pieces)))

    def outcome(self, call: Call, use: CacheUse, now: datetime) -> Outcome:
        """The end of a call that is given this answer: it used nothing and costs nothing."""
        return Outcome(
            id=call.answer_id or new_id(),
            status=CallStatus.COMPLETED,
            text=self.text,
            finish_reason=self.finish_reason,
            usage=Usage(),
            cost_micro_usd=MicroDollars(0),
            model=next((model for model in call.route.models if model.name == self.model), None),
            upstream_model=self.upstream_model,
            attempts=(),
            ended_at=now,
            wire=self.wire,
            deltas=self._deltas(),
            dropped=self.dropped,
            cache=use,
            vectors=self.vectors,
        )

    def _deltas(self) -> tuple[Delta, ...]:
        if self.chunks:
            return (WireChunk(self.chunks, _read_already),)
        if self.parts:
            return deltas_of(self.parts)
        return (TextDelta(self.text),) if self.text else ()


def _read_already(_: bytes) -> Delivered:
    """What was kept is counted no more."""
    return Delivered("")


def unpacked(data: bytes) -> Entry | None:
    """The entry; None for bytes that are none."""
    head, _, body = data.partition(b"\n")
    try:
        told = json.loads(head)
        if told["form"] != FORM or len(body) != sum(size or 0 for size in told["sizes"]):
            return None
        text, chunks, wire, *vectors = _cut(body, told["sizes"])
        return Entry(
            model=told["model"],
            upstream_model=told["upstream_model"],
            finish_reason=FinishReason(told["finish_reason"]),
            text=(text or b"").decode("utf-8", "surrogatepass"),
            parts=tuple(part_from(part) for part in told["parts"]),
            dropped=tuple(told["dropped"]),
            chunks=chunks or b"",
            wire=wire,
            vectors=tuple(vector or b"" for vector in vectors),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _cut(body: bytes, sizes: Sequence[int | None]) -> Iterator[bytes | None]:
    start = 0
    for size in sizes:
        yield None if size is None else body[start : start + size]
        start += size or 0


def entry_of(call: Call, outcome: Outcome) -> Entry | None:
    """What is kept of an ended call; None where its answer is not whole, or whole only for this caller."""
    if outcome.status is not CallStatus.COMPLETED or outcome.model is None or not _is_its_own_end(call, outcome):
        return None
    chunks = b"".join(delta.data for delta in outcome.deltas if isinstance(delta, WireChunk))
    entry = Entry(
        model=outcome.model.name,
        upstream_model=outcome.upstream_model,
        finish_reason=outcome.finish_reason,
        text=outcome.text if outcome.wire is None else "",
        parts=_more_than_text(outcome) if outcome.wire is None else (),
        dropped=outcome.dropped,
        chunks=chunks,
        wire=outcome.wire,
        vectors=outcome.vectors,
    )
    return entry if len(entry.packed()) <= MAX_ENTRY_BYTES else None


def _more_than_text(outcome: Outcome) -> tuple[Part, ...]:
    parts = outcome.parts
    return () if all(isinstance(part, Text) for part in parts) else parts


def _is_its_own_end(call: Call, outcome: Outcome) -> bool:
    """Whether it ended because all was said, or at the length that was asked for; not where a quota made it shorter."""
    if outcome.output_cap is not None:
        return False
    if outcome.finish_reason is FinishReason.LENGTH:
        return call.chat.parameters.max_output_tokens is not None
    return outcome.finish_reason is FinishReason.STOP
