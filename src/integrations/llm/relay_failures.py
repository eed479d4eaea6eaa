"""What goes wrong in the relay lane: from raw answers and the HTTP client's exceptions to UpstreamFailed."""

from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError

from src.domain.completion.model import Failure, UpstreamFailed
from src.integrations.llm.failures import Refusal, failed_with, public_message, refused

MAX_WORD_CHARS = 100
MOST_FAULTS = 5
_SAYING = ("message", "detail", "msg", "error")
"""Names of what an error says, or has inside of it."""


def malformed(message: str, status: int | None = None) -> UpstreamFailed:
    """An answer that is none."""
    return UpstreamFailed(Failure.MALFORMED, message, status=status)


def of_answer(status: int, body: Any, headers: Mapping[str, str], secrets: tuple[str, ...]) -> UpstreamFailed:
    """Instead of an answer. A provider may repeat the key it was sent: no message quotes `secrets`."""
    error = _error_in(body)
    message = message_in(error)
    for secret in secrets:
        message = message.replace(secret, "[...]")
    if "retry-after" not in headers:
        headers = delay_in(error) or headers
    code, param = (_word(error, name, secrets) for name in ("code", "param"))
    names = _names_in(error)
    return refused(Refusal(status=status, message=message, names=names, headers=headers, code=code, param=param))


def _error_in(body: Any) -> Any:
    """What is said to be wrong; Google's server for OpenAI's clients says it in a list."""
    told = body[0] if isinstance(body, list) and body else body
    fields = told if isinstance(told, dict) else {}
    return fields.get("error") or fields.get("detail") or fields


def _word(error: Any, name: str, secrets: tuple[str, ...]) -> str | None:
    """What a provider calls something, where that is fit for callers and short."""
    value = error.get(name) if isinstance(error, dict) else None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_WORD_CHARS:
        return None
    return value if public_message(value) == value and not any(secret in value for secret in secrets) else None


def delay_in(error: Any) -> dict[str, str]:
    """The header that says what Google says in a detail of its error, where it is written "34.5s"."""
    found = [detail["retryDelay"] for detail in _details(error) if "retryDelay" in detail]
    return {"retry-after": str(found[0]).removesuffix("s")} if found else {}


def reasons_in(error: Any) -> tuple[str, ...]:
    """Google's names for what is wrong."""
    return tuple(str(detail["reason"]) for detail in _details(error) if "reason" in detail)


def _details(error: Any) -> list[dict[str, Any]]:
    details = error.get("details") if isinstance(error, dict) else None
    return [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []


def of_error_object(error: Any) -> UpstreamFailed:
    """A provider's error object, found in a stream or in a body that should have been an answer."""
    return refused(Refusal(status=_status_in(error), message=message_in(error), names=_names_in(error)))


def of_transport(error: Exception) -> UpstreamFailed:
    """What the HTTP client raised."""
    return failed_with(_kind_of(error))


def message_in(error: Any, depth: int = 5) -> str:
    """What an error says: it has a message, is one, or is a list of what is wrong with which field."""
    match error:
        case str():
            return error
        case dict() if depth:
            return message_in(next((error[name] for name in _SAYING if error.get(name)), None), depth - 1)
        case list() if depth:
            said = ((_place_of(each), message_in(each, depth - 1)) for each in error[:MOST_FAULTS])
            return "; ".join(place + words for place, words in said if words)
    return ""


def _place_of(fault: Any) -> str:
    """Where in the body it is, for servers that say so."""
    place = fault.get("loc") if isinstance(fault, dict) else None
    names = [str(name) for name in place if name != "body"] if isinstance(place, list) else []
    return f"{'.'.join(names)}: " if names else ""


def _names_in(error: Any) -> tuple[str, ...]:
    if not isinstance(error, dict):
        return ()
    names = (name for key in ("code", "type") if isinstance(name := error.get(key), str))
    return (*names, *reasons_in(error))


def _status_in(error: Any) -> int | None:
    """Servers without error types put an HTTP status into the object."""
    for key in ("code", "status", "status_code"):
        value = error.get(key) if isinstance(error, dict) else None
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _kind_of(error: Exception) -> Failure:
    match error:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return Failure.CONNECT
        case TimeoutError():
            return Failure.TIMEOUT
        case aiohttp.ClientPayloadError() if isinstance(error.__cause__, ContentEncodingError):
            # The client wraps a cut body and one that cannot be decompressed alike; the cause tells them apart.
            return Failure.MALFORMED
        case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError() | OSError():
            return Failure.DROPPED
        case _:
            return Failure.MALFORMED
