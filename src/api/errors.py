"""The one table from what went wrong to what a client is told, in the dialect the client speaks."""

import math
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from starlette.responses import Response

from src.api.json import dumps
from src.api.rate_headers import rate_headers
from src.domain.completion.idempotency import KeyReused
from src.domain.completion.model import Failure
from src.domain.limits.model import LimitName, LimitReached
from src.shared.errors import (
    BodyTooLarge,
    Conflict,
    GatewayError,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NotAllowed,
    NotFound,
    ProvidersFailed,
    ProvidersResting,
    ProvidersTimedOut,
    QuotaExceeded,
    RateLimited,
    Unauthenticated,
    Unavailable,
)


class Dialect(StrEnum):
    """The wire format a client speaks, told by the path it calls."""

    NATIVE = "native"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


@dataclass(frozen=True, slots=True)
class Told:
    """Status and words for one error class. `openai` and `anthropic` are (status, type); Gemini has OpenAI's status."""

    native: int
    openai: tuple[int, str]
    anthropic: tuple[int, str]
    openai_code: str | None = None


_TABLE: tuple[tuple[type[GatewayError], Told], ...] = (
    (MethodNotAllowed, Told(405, (405, "invalid_request_error"), (405, "invalid_request_error"))),
    (MalformedBody, Told(400, (400, "invalid_request_error"), (400, "invalid_request_error"))),
    (KeyReused, Told(422, (422, "idempotency_error"), (422, "invalid_request_error"))),
    (InvalidRequest, Told(422, (400, "invalid_request_error"), (400, "invalid_request_error"))),
    (Unauthenticated, Told(401, (401, "invalid_request_error"), (401, "authentication_error"), "invalid_api_key")),
    (NotAllowed, Told(403, (403, "permission_error"), (403, "permission_error"))),
    (NotFound, Told(404, (404, "invalid_request_error"), (404, "not_found_error"))),
    (Conflict, Told(409, (409, "conflict_error"), (409, "conflict_error"))),
    (QuotaExceeded, Told(402, (429, "insufficient_quota"), (402, "billing_error"), "insufficient_quota")),
    (RateLimited, Told(429, (429, "rate_limit_error"), (429, "rate_limit_error"), "rate_limit_exceeded")),
    (BodyTooLarge, Told(413, (413, "invalid_request_error"), (413, "request_too_large"))),
    (ProvidersResting, Told(503, (503, "api_error"), (529, "overloaded_error"))),
    (ProvidersTimedOut, Told(504, (504, "api_error"), (504, "timeout_error"))),
    (ProvidersFailed, Told(502, (502, "api_error"), (502, "api_error"))),
    (Unavailable, Told(503, (503, "api_error"), (529, "overloaded_error"))),
)

_INTERNAL = Told(500, (500, "api_error"), (500, "api_error"))

_GOOGLE_RPC = "type.googleapis.com/google.rpc."
_GEMINI_VERB = re.compile(r":[a-z]+[A-Z][A-Za-z]*$")
"""What ends the path of a call to a model, as in /v1/models/gemini-2.5-flash:generateContent; `:free` ends a name."""

_GEMINI_WORDS = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_REPEATS_EVERY_429 = re.compile(r"\b(?:ai-sdk[-/]|langchain-google-genai/)")
"""User agents of clients that repeat every 429, whatever its headers say."""

_NEVER_RETRY = (QuotaExceeded, Conflict)
_OPERATORS_TO_MEND = frozenset({Failure.CREDENTIALS, Failure.UNKNOWN_MODEL})
"""Why providers failed, where they will fail again until somebody changes the settings."""


def dialect_of(path: str, headers: Container[str] = (), query: Container[str] = ()) -> Dialect:
    """Which dialect a request is made in: told by its path, and where several share a path by how a key is sent."""
    if path.startswith(("/v1beta/", "/v1/tunedModels/")):
        return Dialect.GEMINI
    if path.startswith("/v1/models"):
        if "anthropic-version" in headers:
            return Dialect.ANTHROPIC
        has_googles_key = "x-goog-api-key" in headers or ("key" in query and "authorization" not in headers)
        return Dialect.GEMINI if has_googles_key or _GEMINI_VERB.search(path) else Dialect.OPENAI
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI if path.startswith("/v1/") else Dialect.NATIVE


def told(error: GatewayError) -> Told:
    """The row of the table for an error."""
    return next((row for kind, row in _TABLE if isinstance(error, kind)), _INTERNAL)


def error_body(error: GatewayError, dialect: Dialect, request_id: str) -> dict[str, Any]:
    """The envelope of the dialect."""
    row = told(error)
    match dialect:
        case Dialect.OPENAI:
            code = row.openai_code or error.specific_code
            told_more = {"details": error.details} if error.details else {}
            words = {"message": error.message, "type": _openai_type(error), "param": error.param, "code": code}
            return {"error": words | told_more}
        case Dialect.ANTHROPIC:
            inner = {"type": row.anthropic[1], "message": error.message}
            details = {"error_code": error.specific_code, **error.details}
            return {"type": "error", "error": {**inner, "details": details}, "request_id": request_id}
        case Dialect.GEMINI:
            return {"error": _gemini_error(error)}
        case Dialect.NATIVE:
            return {
                "error": {
                    "code": error.specific_code,
                    "type": error.code,
                    "message": error.message,
                    "param": error.param,
                    "details": error.details,
                    "request_id": request_id,
                }
            }


def status_of(error: GatewayError, dialect: Dialect) -> int:
    """The status of the dialect."""
    row = told(error)
    match dialect:
        case Dialect.OPENAI | Dialect.GEMINI:
            return row.openai[0]
        case Dialect.ANTHROPIC:
            return row.anthropic[0]
        case Dialect.NATIVE:
            return row.native


def _gemini_error(error: GatewayError) -> dict[str, Any]:
    """Google's shape: the reason in an ErrorInfo, a time to wait in a RetryInfo."""
    status = told(error).openai[0]
    more = {name: str(value) for name, value in error.details.items() if value is not None}
    info = {
        "@type": _GOOGLE_RPC + "ErrorInfo",
        "reason": error.specific_code,
        "domain": "llm-gateway",
        "metadata": more,
    }
    details: list[dict[str, Any]] = [info]
    if isinstance(error, RateLimited | ProvidersFailed) and error.retry_after_s is not None:
        details.append({"@type": _GOOGLE_RPC + "RetryInfo", "retryDelay": f"{math.ceil(error.retry_after_s)}s"})
    word = _GEMINI_WORDS.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    return {"code": status, "message": error.message, "status": word, "details": details}


def _openai_type(error: GatewayError) -> str:
    """OpenAI's type of a rate limit is what is limited."""
    if isinstance(error, LimitReached):
        return "tokens" if error.bucket.name is LimitName.TOKENS else "requests"
    return told(error).openai[1]


def error_headers(error: GatewayError, dialect: Dialect = Dialect.NATIVE) -> Mapping[str, str]:
    """Whether and when to come back: SDKs retry 409, 429 and 5xx by themselves unless told not to."""
    if isinstance(error, _NEVER_RETRY) or error.details.get("reason") in _OPERATORS_TO_MEND:
        return {"x-should-retry": "false"}
    if not isinstance(error, RateLimited | ProvidersFailed) or error.retry_after_s is None:
        return {}
    wait_ms = max(1, math.ceil(error.retry_after_s * 1000))
    headers = {"retry-after": str(math.ceil(wait_ms / 1000)), "retry-after-ms": str(wait_ms)}
    if isinstance(error, LimitReached):
        headers |= rate_headers(error.levels, anthropic=dialect is Dialect.ANTHROPIC)
    return headers


def error_response(error: GatewayError, dialect: Dialect, request_id: str, user_agent: str = "") -> Response:
    """The whole answer to a failed request.

    An exhausted quota is a 402 to clients that would repeat a 429.
    """
    is_deaf = isinstance(error, QuotaExceeded) and _REPEATS_EVERY_429.search(user_agent) is not None
    return Response(
        dumps(error_body(error, dialect, request_id)),
        status_code=402 if is_deaf else status_of(error, dialect),
        media_type="application/json",
        headers=dict(error_headers(error, dialect)),
    )
