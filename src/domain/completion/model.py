"""What is asked of a model, what it streams back, and how a call ends."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from src.domain.catalog.model import Model, Route, Usage, WireFormat
from src.domain.completion.content import Part, Text, answer_text
from src.domain.completion.deltas import PartDelta, TextDelta, deltas_of, parts_of
from src.domain.completion.tools import Reasoning, ResponseFormat, Tool, ToolChoice
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
    """One utterance. Where it is more than one plain text, `parts` are all of it, and `text` is their words.

    `by_developer`: so its client calls who said it for the system.
    """

    role: ChatRole
    text: str = ""
    parts: tuple[Part, ...] = ()
    by_developer: bool = False

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """Its parts; plain text is one text part, nothing is none."""
        return self.parts or ((Text(text=self.text),) if self.text else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How to answer. None leaves it to the model. Of `choices` above one, each has its own output.

    `logprobs` is how many alternatives of each token are wanted with their odds, 0 for the odds of the tokens alone.
    """

    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    choices: int = 1
    logprobs: int | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    response_format: ResponseFormat | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WireBody:
    """A client's body in its own format, for an upstream that speaks the same: forwarded with every field it has.

    `untranslatable` names what the body carries that cannot be said in another format; models of other formats refuse.
    `wants_usage`: the client asked for usage in its stream. `answered_for`: fields of the upstream's answer that the
    gateway has its own values for, like ids of what it stores itself. `left_out` names what the client's body said and
    this one does not.
    """

    format: WireFormat
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    untranslatable: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    wants_usage: bool = False
    answered_for: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingWish:
    """Vectors are wanted instead of an answer, one for each message. `dimensions` None: as many as the model has.

    `tokens` are those of inputs that came as tokens instead of text, `titles` those of documents, which are read too.
    """

    dimensions: int | None = None
    tokens: int = 0
    titles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation to continue, or inputs of which to make vectors.

    Where `wire` is there, the rest is the same request in our words.
    """

    messages: tuple[ChatMessage, ...]
    parameters: Parameters = Parameters()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    stream: bool = False
    wire: WireBody | None = None
    embedding: EmbeddingWish | None = None

    @property
    def prompts(self) -> int:
        """How many texts a model reads, each of which must fit into its window."""
        return 1 if self.embedding is None else len(self.messages)

    @property
    def is_plain(self) -> bool:
        """Whether it is text alone."""
        return not self.tools and not any(message.parts for message in self.messages)


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
class Dropped:
    """Names of what the model is not told: what a translation or a relay left out, told before its answer."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WireChunk:
    """Bytes of the upstream's own stream, complete events only, to be handed on untouched.

    `read` finds what such bytes tell, all of an answer's chunks joined; it is asked only where we must count ourselves.
    """

    data: bytes
    read: Callable[[bytes], "Delivered"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a cut-off stream has told: everything generated, and the newest usage it named, unchecked and not final.

    `pieces` are the same in our words, of formats whose answers are stored.
    """

    text: str
    usage: Usage | None = None
    pieces: tuple[PartDelta, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the pieces add up to."""
        return parts_of(self.pieces)

    @property
    def words(self) -> str:
        """The words of the answer; of formats whose pieces are not known, everything."""
        return answer_text(self.parts) if self.pieces else self.text


Delta = PartDelta | WireChunk
"""A piece of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The upstream's last word. `usage` is None where it reported none, and unchecked: providers lie.

    `wire` holds the bytes to hand on once the call is settled: the whole body, or a stream's last events. `parts` is
    the whole answer in our words, where wire chunks were handed on and somebody will want to store it.
    `stop_sequence`: the one that it stopped at, where that is known. `vectors`: see Outcome. `readings`: how often a
    prompt was read for it, which is again after each tool that the provider ran by itself.
    """

    reason: FinishReason
    usage: Usage | None = None
    upstream_model: str | None = None
    wire: bytes | None = None
    parts: tuple[Part, ...] = ()
    stop_sequence: str | None = None
    vectors: tuple[bytes, ...] = ()
    readings: int = 1


UpstreamEvent = Dropped | Delta | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer at once. Where it is more than plain text, `parts` are all of it. `dropped`: see Dropped."""

    text: str = ""
    finished: Finished
    parts: tuple[Part, ...] = ()
    dropped: tuple[str, ...] = ()

    def events(self) -> Iterator[UpstreamEvent]:
        """The same as a stream would tell it."""
        if self.dropped:
            yield Dropped(self.dropped)
        if self.parts:
            yield from deltas_of(self.parts)
        elif self.text:
            yield TextDelta(self.text)
        yield self.finished


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldCount:
    """A provider's own count of a prompt. `body` is its whole answer, in the format that it was asked in."""

    input_tokens: int
    body: Mapping[str, Any]


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
    """An upstream call failed. The message may be shown to the caller: it holds no secret and no upstream address.

    `code` and `param` are the provider's own words for what is wrong and where, if they are the caller's too.
    """

    def __init__(
        self,
        kind: Failure,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.code = code
        self.param = param


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

    `deltas` are the pieces in which it was delivered, `id` is what its client knows it by. `output_cap` is what the
    quota shrank the output to, `prompt_estimate` our own count of the prompt, where the call was to keep it. `cache` is
    None where the response cache was off. `dropped` names parameters that a translation left out. `told_parts`: see
    Finished.parts. `vectors` are those that were asked for, in the order of their inputs: float32, little-endian.
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
    dropped: tuple[str, ...] = ()
    stop_sequence: str | None = None
    told_parts: tuple[Part, ...] = ()
    vectors: tuple[bytes, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The answer's parts: as its upstream told them, else what its pieces add up to."""
        return self.told_parts or parts_of(delta for delta in self.deltas if not isinstance(delta, WireChunk))


def no_records(_: Outcome) -> Sequence[Record]:
    """For calls that keep no messages."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One completion to be made, and the rows that belong to it.

    `opening` commits with the hold, `noting` with each note of its progress, `closing` with the settlement. A detached
    call goes on when nobody listens. With `keeps_prompt_estimate`, the outcome tells what listeners were told of the
    prompt before its usage was known. `answer_id` is what its client knows the answer by, where that is not the id of
    its hold. `cache_use` is set where the response cache is on and had no answer. `permit` is
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
    answer_id: UUID | None = None
    detached: bool = False
    keeps_prompt_estimate: bool = False
    cache: CacheWish = CacheWish()
    cache_use: CacheUse | None = None
    permit: Permit = UNLIMITED
