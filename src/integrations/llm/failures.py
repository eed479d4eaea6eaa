"""What goes wrong upstream, in the domain's words: statuses, error names and transport errors become UpstreamFailed."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time

import httpx2
from pydantic import ValidationError

from src.domain.completion.model import Failure, UpstreamFailed

MAX_MESSAGE_CHARS = 500
MAX_CAUSES = 8
MAX_RETRY_AFTER_S = 3600.0
"""No provider's word keeps us away for longer."""

EXHAUSTED = "insufficient_quota"
"""OpenAI's word, with the status of a rate limit, for a balance that waiting does not fill."""

_BY_STATUS = {
    400: Failure.CALLER,
    401: Failure.CREDENTIALS,
    402: Failure.CREDENTIALS,
    403: Failure.CREDENTIALS,
    404: Failure.UNKNOWN_MODEL,
    408: Failure.TIMEOUT,
    413: Failure.CALLER,
    422: Failure.CALLER,
    429: Failure.RATE_LIMITED,
    504: Failure.TIMEOUT,
}
"""402 and an exhausted balance are the operator's to mend, like a refused key."""

_BY_NAME = {
    "invalid_request_error": Failure.CALLER,
    "request_too_large": Failure.CALLER,
    "authentication_error": Failure.CREDENTIALS,
    "permission_error": Failure.CREDENTIALS,
    "billing_error": Failure.CREDENTIALS,
    "invalid_api_key": Failure.CREDENTIALS,
    "not_found_error": Failure.UNKNOWN_MODEL,
    "model_not_found": Failure.UNKNOWN_MODEL,
    "rate_limit_error": Failure.RATE_LIMITED,
    "rate_limit_exceeded": Failure.RATE_LIMITED,
    EXHAUSTED: Failure.CREDENTIALS,
    "timeout_error": Failure.TIMEOUT,
}

_SENTENCES = {
    Failure.CONNECT: "The provider could not be reached.",
    Failure.DROPPED: "The connection to the provider was lost.",
    Failure.TIMEOUT: "The provider did not answer in time.",
    Failure.RATE_LIMITED: "The provider is limiting the gateway's rate. Try again later.",
    Failure.SERVER: "The provider failed.",
    Failure.MALFORMED: "The provider's answer could not be read.",
    Failure.CREDENTIALS: "The provider refused the gateway's credentials: an operator must check them.",
    Failure.UNKNOWN_MODEL: "The provider does not know the model.",
    Failure.UNSUPPORTED: "The provider cannot do what was asked.",
    Failure.CONTEXT_WINDOW: "The request is longer than the model's context window.",
    Failure.CALLER: "The provider refused the request.",
}

_FOR_THE_CALLER = (Failure.CALLER, Failure.CONTEXT_WINDOW)
"""What the caller can mend, told in the provider's own words."""

_OPERATORS_FAULT = re.compile(r"API_KEY_INVALID|api key not valid|api key expired|credit balance is too low", re.I)
"""Refusals with status 400 that are no mistake of the caller."""

_CONTEXT_NAMES = frozenset({"context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"})
_CONTEXT_STATUSES = frozenset({None, 200, 400, 413, 422})
_TOO_LONG = re.compile(
    r"maximum (?:context|prompt|model) length|context length of only|prompt is too long|input is too long for"
    r"|(?:exceed(?:s|ed)?|longer than) (?:the |its )?(?:model's |available |max(?:imum)? )*context"
    r"|context (?:window|length|size|limit) (?:is |was )?exceed|token count\b.{0,60}\b(?:exceeds|supports up to)"
    r"|input tokens exceed|exceeded model token limit|total number of tokens in the prompt cannot exceed"
    r"|range of input length|`inputs` tokens|reduce the length of the messages",
    re.I,
)
"""Providers' ways to say that prompt and answer do not fit into the model's context window."""

_SECRET_OR_ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]*://\S+|\b(?:sk|pk|rk|gsk|xai)-[\w*.-]{6,}|\bAIza[\w-]{10,}|\bBearer\s+\S+", re.I
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a provider said instead of an answer. `names` are its own words for it: error types and codes.

    `code` and `param`: what it calls the fault and the field, where its caller speaks its format.
    """

    status: int | None
    message: str
    names: tuple[str, ...] = ()
    headers: Mapping[str, str] | None = None
    code: str | None = None
    param: str | None = None


ReadRefusal = Callable[[Exception], Refusal | None]
"""Finds the refusal in an SDK's exception; None where the exception is none of the SDK's refusals."""


@contextmanager
def upstream_errors(read_refusal: ReadRefusal) -> Iterator[None]:
    """Every exception inside becomes an UpstreamFailed, whose cause it is."""
    try:
        yield
    except UpstreamFailed:
        raise
    except Exception as error:
        refusal = read_refusal(error)
        raise (refused(refusal) if refusal is not None else _failure_in(error)) from error


def failed_with(kind: Failure, *, status: int | None = None, retry_after_s: float | None = None) -> UpstreamFailed:
    """A failure with the standing sentence for its kind."""
    return UpstreamFailed(kind, _SENTENCES[kind], status=status, retry_after_s=retry_after_s)


def refused(refusal: Refusal) -> UpstreamFailed:
    """The failure a refusal stands for. Only what the caller can mend is told in the provider's words."""
    kind = _kind_of_refusal(refusal)
    status = refusal.status if refusal.status != 200 else None
    if kind in _FOR_THE_CALLER:
        message = public_message(refusal.message) or _SENTENCES[kind]
        return UpstreamFailed(kind, message, status=status, code=refusal.code, param=refusal.param)
    return failed_with(kind, status=status, retry_after_s=retry_after_s(refusal.headers or {}))


def public_message(text: str) -> str:
    """A provider's message fit for callers: one line, without keys and addresses, at most 500 characters."""
    line = " ".join(_SECRET_OR_ADDRESS.sub("[...]", told(text[: 8 * MAX_MESSAGE_CHARS])).split())
    return line if len(line) <= MAX_MESSAGE_CHARS else line[: MAX_MESSAGE_CHARS - 3] + "..."


def told(value: object) -> str:
    """A provider's text, fit to be stored and sent on; "" for None. Raises UpstreamFailed (malformed) for no text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise failed_with(Failure.MALFORMED)
    text = value if value.isascii() else value.encode(errors="replace").decode()
    return text.replace("\0", "\ufffd")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, an hour at most, as the headers say; None where they do not.

    They say retry-after-ms, or retry-after as seconds or as a date.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, MAX_RETRY_AFTER_S)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is None and value is not None:
        seconds = _seconds_until(value)
    return None if seconds is None else min(seconds, MAX_RETRY_AFTER_S)


def _seconds_until(date: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time())
    except (ValueError, OverflowError, OSError):
        return None


def _number(value: str | None) -> float | None:
    """A finite number that is not negative."""
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _kind_of_refusal(refusal: Refusal) -> Failure:
    if refusal.status == 400 and _OPERATORS_FAULT.search(" ".join((refusal.message, *refusal.names))):
        return Failure.CREDENTIALS
    if refusal.status == 429 and EXHAUSTED in refusal.names:
        return Failure.CREDENTIALS
    if _is_about_the_context(refusal):
        return Failure.CONTEXT_WINDOW
    if refusal.status is None or refusal.status < 300:
        named = (kind for name in refusal.names if (kind := _BY_NAME.get(name)) is not None)
        return next(named, Failure.SERVER)
    if refusal.status >= 500:
        return _BY_STATUS.get(refusal.status, Failure.SERVER)
    # Redirects and the rarer refusals (405, 406, 415) come from addresses that are not the API they should be.
    return _BY_STATUS.get(refusal.status, Failure.MALFORMED)


def _is_about_the_context(refusal: Refusal) -> bool:
    if refusal.status not in _CONTEXT_STATUSES:
        return False
    return not _CONTEXT_NAMES.isdisjoint(refusal.names) or _TOO_LONG.search(refusal.message) is not None


def _failure_in(error: BaseException) -> UpstreamFailed:
    """What the first cause we know stands for; SDKs wrap what their transport raised."""
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None:
            break
        if isinstance(cause, UpstreamFailed):
            return UpstreamFailed(cause.kind, cause.message)
        kind = _kind_of_one(cause)
        if kind is not None:
            return failed_with(kind)
        cause = cause.__cause__ or cause.__context__
    return failed_with(Failure.MALFORMED)


def _kind_of_one(error: BaseException) -> Failure | None:
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.ProxyError() | httpx2.UnsupportedProtocol():
            return Failure.CONNECT
        case httpx2.TimeoutException() | TimeoutError():
            return Failure.TIMEOUT
        case httpx2.DecodingError() | json.JSONDecodeError() | UnicodeDecodeError() | ValidationError():
            return Failure.MALFORMED
        case httpx2.TransportError() | ConnectionError():
            return Failure.DROPPED
        case _:
            return None
