"""What is asked of a model, what it streams back, and how a call ends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from src.domain.catalog.model import Model, ProviderKind, Route, Usage
from src.domain.identity.model import Principal
from src.domain.ledger.model import Attempt, CallStatus, Record
from src.domain.limits.limiter import UNLIMITED, Permit
from src.shared.errors import GatewayError
from src.shared.money import MicroDollars


class ChatRole(StrEnum):
    """Who said it."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One utterance, as plain text."""

    role: ChatRole
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How to answer. None leaves it to the model. Of `choices` above one, each has its own output."""

    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    choices: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WireBody:
    """A client's body in its own dialect, for an upstream that speaks the same: forwarded with every field it has.

    `same_dialect_only` names what the body carries that cannot be translated; an upstream of another dialect refuses.
    `wants_usage`: the client asked for usage in its stream.
    """

    dialect: ProviderKind
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    same_dialect_only: tuple[str, ...] = ()
    wants_usage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation to continue. Where `wire` is there, `messages` is the same conversation in our words."""

    messages: tuple[ChatMessage, ...]
    parameters: Parameters = Parameters()
    stream: bool = False
    wire: WireBody | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """A chat request for one model. A non-None `output_cap` must be sent upstream: the hold covers no more."""

    model: Model
    chat: ChatRequest
    output_cap: int | None = None

    @property
    def max_output_tokens(self) -> int | None:
        """The limit to send: the hold's cap, never above the model's own maximum, else the client's own wish."""
        if self.output_cap is None:
            return self.chat.parameters.max_output_tokens
        return min(self.output_cap, self.model.max_output)


class FinishReason(StrEnum):
    """Why a model stopped."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Some more of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class WireChunk:
    """Bytes of the upstream's own stream, complete events only, to be handed on untouched.

    `read` finds what such bytes tell, all of an answer's chunks joined; it is asked only where we must count ourselves.
    """

    data: bytes
    read: Callable[[bytes], "Delivered"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a cut-off stream has told: everything generated, and the newest usage it named, unchecked and not final."""

    text: str
    usage: Usage | None = None


Delta = TextDelta | WireChunk
"""A piece of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The upstream's last word. `usage` is None where it reported none, and unchecked: providers lie.

    `wire` holds the bytes to hand on once the call is settled: the whole body, or a stream's last events.
    """

    reason: FinishReason
    usage: Usage | None = None
    upstream_model: str | None = None
    wire: bytes | None = None


UpstreamEvent = TextDelta | WireChunk | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer at once."""

    text: str
    finished: Finished


class Failure(StrEnum):
    """What went wrong upstream, in one word; stored with the attempt."""

    CONNECT = "connect"
    DROPPED = "dropped"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    SERVER = "server_error"
    MALFORMED = "malformed"
    CREDENTIALS = "credentials"
    UNKNOWN_MODEL = "unknown_model"
    UNSUPPORTED = "unsupported"
    CONTEXT_WINDOW = "context_window"
    RESTING = "resting"
    CALLER = "bad_request"


class UpstreamFailed(Exception):
    """An upstream call failed. The message may be shown to the caller: it holds no secret and no upstream address."""

    def __init__(
        self, kind: Failure, message: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s


class CacheUse(StrEnum):
    """What the response cache had: the answer, that of an identical call under way, that of a similar one, or none."""

    HIT = "hit"
    JOINED = "joined"
    SEMANTIC = "semantic"
    MISS = "miss"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheWish:
    """What a request wishes of the response cache. `on` None leaves it to the model.

    With `fresh`, what is kept is replaced and not given.
    """

    on: bool | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended, as it was settled. `error` is set where the caller gets no (whole) answer.

    `deltas` are the pieces in which it was delivered, `id` is its hold's. `output_cap` is what the quota shrank the
    output to, `prompt_estimate` our own count of the prompt, where the call was to keep it. `cache` is None where the
    response cache was off.
    """

    id: UUID
    status: CallStatus
    text: str
    finish_reason: FinishReason
    usage: Usage
    cost_micro_usd: MicroDollars
    model: Model | None
    upstream_model: str | None
    attempts: Sequence[Attempt]
    ended_at: datetime
    wire: bytes | None = None
    error: GatewayError | None = None
    flags: tuple[str, ...] = ()
    deltas: Sequence[Delta] = ()
    output_cap: int | None = None
    prompt_estimate: int | None = None
    cache: CacheUse | None = None


def no_records(_: Outcome) -> Sequence[Record]:
    """For calls that keep no messages."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One completion to be made, and the rows that belong to it.

    `opening` commits with the hold, `noting` with each note of its progress, `closing` with the settlement. A detached
    call goes on when nobody listens. With `keeps_prompt_estimate`, the outcome tells what listeners were told of the
    prompt before its usage was known. `cache_use` is set where the response cache is on and had no answer. `permit` is
    its place in the rate limits, which it is given as it begins.
    """

    principal: Principal
    route: Route
    chat: ChatRequest
    endpoint: str
    request_id: str
    opening: Sequence[Record] = ()
    noting: Callable[[Outcome], Sequence[Record]] = no_records
    closing: Callable[[Outcome], Sequence[Record]] = no_records
    dialog_id: UUID | None = None
    message_id: UUID | None = None
    detached: bool = False
    keeps_prompt_estimate: bool = False
    cache: CacheWish = CacheWish()
    cache_use: CacheUse | None = None
    permit: Permit = UNLIMITED
