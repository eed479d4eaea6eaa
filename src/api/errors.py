"""The one table from what went wrong to what a client is told, in the dialect the client speaks."""

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from starlette.responses import Response

from src.api.json import dumps
from src.api.rate_headers import rate_headers
from src.domain.completion.idempotency import KeyReused
from src.domain.limits.model import LimitName, LimitReached
from src.shared.errors import (
    BodyTooLarge,
    Conflict,
    GatewayError,
    InvalidRequest,
    MalformedBody,
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


@dataclass(frozen=True, slots=True)
class Told:
    """Status and words for one error class. `openai` and `anthropic` are (status, type)."""

    native: int
    openai: tuple[int, str]
    anthropic: tuple[int, str]
    openai_code: str | None = None


_TABLE: tuple[tuple[type[GatewayError], Told], ...] = (
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

_NEVER_RETRY = (QuotaExceeded, Conflict)


def dialect_of(path: str, headers: Container[str] = ()) -> Dialect:
    """Which dialect a request is made in: told by its path, and where two share a path by a header."""
    if path.startswith("/v1/messages") or (path.startswith("/v1/models") and "anthropic-version" in headers):
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
        case Dialect.OPENAI:
            return row.openai[0]
        case Dialect.ANTHROPIC:
            return row.anthropic[0]
        case Dialect.NATIVE:
            return row.native


def _openai_type(error: GatewayError) -> str:
    """OpenAI's type of a rate limit is what is limited."""
    if isinstance(error, LimitReached):
        return "tokens" if error.bucket.name is LimitName.TOKENS else "requests"
    return told(error).openai[1]


def error_headers(error: GatewayError, dialect: Dialect = Dialect.NATIVE) -> Mapping[str, str]:
    """Whether and when to come back: SDKs retry 409, 429 and 5xx by themselves unless told not to."""
    if isinstance(error, _NEVER_RETRY):
        return {"x-should-retry": "false"}
    if not isinstance(error, RateLimited | ProvidersFailed) or error.retry_after_s is None:
        return {}
    wait_ms = max(1, math.ceil(error.retry_after_s * 1000))
    headers = {"retry-after": str(math.ceil(wait_ms / 1000)), "retry-after-ms": str(wait_ms)}
    if isinstance(error, LimitReached):
        headers |= rate_headers(error.levels, anthropic=dialect is Dialect.ANTHROPIC)
    return headers


def error_response(error: GatewayError, dialect: Dialect, request_id: str) -> Response:
    """The whole answer to a failed request."""
    return Response(
        dumps(error_body(error, dialect, request_id)),
        status_code=status_of(error, dialect),
        media_type="application/json",
        headers=dict(error_headers(error, dialect)),
    )
