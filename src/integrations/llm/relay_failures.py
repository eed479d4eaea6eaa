"""What went wrong at an upstream, in the domain's words. No message holds an address or a secret."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from src.domain.completion.model import Failure, UpstreamFailed

MAX_MESSAGE_CHARS = 500
MAX_RETRY_AFTER_S = 86_400.0

_KINDS = {
    400: Failure.CALLER,
    401: Failure.CREDENTIALS,
    402: Failure.CREDENTIALS,
    403: Failure.CREDENTIALS,
    404: Failure.UNKNOWN_MODEL,
    408: Failure.TIMEOUT,
    413: Failure.CALLER,
    422: Failure.CALLER,
    429: Failure.RATE_LIMITED,
}
_SENTENCES = {
    Failure.CALLER: "The provider refused the request.",
    Failure.CREDENTIALS: "The provider did not accept the gateway's credentials.",
    Failure.UNKNOWN_MODEL: "The provider does not know this model.",
    Failure.TIMEOUT: "The provider took too long.",
    Failure.RATE_LIMITED: "The provider is over its rate limit.",
    Failure.SERVER: "The provider failed.",
    Failure.MALFORMED: "The provider's answer could not be read.",
    Failure.CONNECT: "The provider could not be reached.",
    Failure.DROPPED: "The provider dropped the connection.",
}
_WORDS = {
    "authentication_error": Failure.CREDENTIALS,
    "billing_error": Failure.CREDENTIALS,
    "content_policy_violation": Failure.CALLER,
    "context_length_exceeded": Failure.CALLER,
    "insufficient_quota": Failure.RATE_LIMITED,
    "invalid_api_key": Failure.CREDENTIALS,
    "invalid_request_error": Failure.CALLER,
    "BadRequestError": Failure.CALLER,
    "model_not_found": Failure.UNKNOWN_MODEL,
    "not_found_error": Failure.UNKNOWN_MODEL,
    "permission_error": Failure.CREDENTIALS,
    "rate_limit_error": Failure.RATE_LIMITED,
    "rate_limit_exceeded": Failure.RATE_LIMITED,
    "request_too_large": Failure.CALLER,
    "timeout_error": Failure.TIMEOUT,
}
_WORTH_QUOTING = frozenset({Failure.CALLER, Failure.SERVER})
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_KEY = re.compile(r"\b(?:sk|pk|rk|xai|gsk|key|AIza)[-_]?[A-Za-z0-9*_-]{12,}")


def malformed(message: str, status: int | None = None) -> UpstreamFailed:
    """An answer that is none."""
    return UpstreamFailed(Failure.MALFORMED, message, status=status)


def of_status(status: int, message: str, headers: Mapping[str, str]) -> UpstreamFailed:
    """An error status. Only a refusal of the caller's own request carries the provider's (cleaned) message."""
    kind = _kind_of_status(status)
    sentence = message if kind is Failure.CALLER and message else f"{_SENTENCES[kind]} (status {status})"
    return UpstreamFailed(kind, sentence, status=status, retry_after_s=retry_after_s(headers))


def of_error_object(error: Any) -> UpstreamFailed:
    """A provider's error object, found in a stream or in a body that should have been an answer."""
    fields = error if isinstance(error, dict) else {"message": error}
    kind = _kind_of_fields(fields)
    said = cleaned(fields.get("message")) if kind in _WORTH_QUOTING else ""
    return UpstreamFailed(kind, said or _SENTENCES[kind])


def of_transport(error: Exception) -> UpstreamFailed:
    """What the HTTP client raised."""
    kind = _kind_of_exception(error)
    return UpstreamFailed(kind, _SENTENCES[kind])


def message_in(body: Any, secrets: tuple[str, ...]) -> str:
    """The provider's own words in an error body, cleaned; empty where there are none."""
    if not isinstance(body, dict):
        return ""
    error = body.get("error", body)
    said = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return cleaned(said, secrets)


def cleaned(message: Any, secrets: tuple[str, ...] = ()) -> str:
    """Without addresses and keys, on one line, cut to a bearable length."""
    if not isinstance(message, str):
        return ""
    text = message[: 4 * MAX_MESSAGE_CHARS]
    for secret in secrets:
        text = text.replace(secret, "[redacted]")
    text = _KEY.sub("[redacted]", _ADDRESS.sub("[address]", text))
    return " ".join(text.split())[:MAX_MESSAGE_CHARS]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds the provider asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date); at most a day."""
    wait_ms = _number(headers.get("retry-after-ms"))
    if wait_ms is not None:
        return _bounded(wait_ms / 1000)
    said = headers.get("retry-after")
    seconds = _number(said)
    if seconds is None and said:
        seconds = _seconds_until(said)
    return None if seconds is None else _bounded(seconds)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _seconds_until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime.now(UTC)).total_seconds()


def _kind_of_status(status: int) -> Failure:
    """A status with no meaning of its own is a technical failure: another model may do better."""
    if 300 <= status < 400 or 200 <= status < 300:
        return Failure.MALFORMED
    return _KINDS.get(status, Failure.SERVER)


def _kind_of_fields(fields: Mapping[str, Any]) -> Failure:
    for name in ("code", "status", "status_code"):
        value = fields.get(name)
        if isinstance(value, int) and 400 <= value < 600:
            return _kind_of_status(value)
    for name in ("code", "type"):
        value = fields.get(name)
        if isinstance(value, str) and value in _WORDS:
            return _WORDS[value]
    return Failure.SERVER


def _kind_of_exception(error: Exception) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure.TIMEOUT
    if isinstance(error, aiohttp.ClientConnectorError):
        return Failure.CONNECT
    if isinstance(error, aiohttp.ClientPayloadError):
        # The client wraps both a cut body and one that cannot be decompressed; only the cause tells them apart.
        undecodable = isinstance(error.__cause__, aiohttp.http_exceptions.ContentEncodingError)
        return Failure.MALFORMED if undecodable else Failure.DROPPED
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return Failure.DROPPED
    return Failure.MALFORMED
