"""The one table from what went wrong to what a client is told."""

import json
from typing import Any

import pytest

from src.api.errors import Dialect, dialect_of, error_body, error_headers, error_response, status_of, told
from src.shared.errors import (
    BodyTooLarge,
    Conflict,
    GatewayError,
    InvalidRequest,
    MalformedBody,
    NotAllowed,
    NotFound,
    ProvidersFailed,
    ProvidersTimedOut,
    QuotaExceeded,
    RateLimited,
    Unauthenticated,
    Unavailable,
)

UNKNOWN_MODEL = NotFound("No such model.", param="model", code="model_not_found")
EXHAUSTED = QuotaExceeded("Nothing left.", details={"unit": "tokens", "limit": 5, "needed": 9})
LIMITED = RateLimited("Slow down.", retry_after_s=1.2)
FAILED = ProvidersFailed("It failed.", details={"attempts": 2, "reason": "server_error"})

TABLE: list[tuple[GatewayError, tuple[int, str], tuple[int, str], tuple[int, str]]] = [
    (
        MalformedBody("Not JSON."),
        (400, "malformed_json"),
        (400, "invalid_request_error"),
        (400, "invalid_request_error"),
    ),
    (InvalidRequest("Bad."), (422, "invalid_request"), (400, "invalid_request_error"), (400, "invalid_request_error")),
    (Unauthenticated("Who?"), (401, "invalid_api_key"), (401, "invalid_request_error"), (401, "authentication_error")),
    (NotAllowed("No."), (403, "forbidden"), (403, "permission_error"), (403, "permission_error")),
    (NotFound("No such dialog."), (404, "not_found"), (404, "invalid_request_error"), (404, "not_found_error")),
    (UNKNOWN_MODEL, (404, "model_not_found"), (404, "invalid_request_error"), (404, "not_found_error")),
    (Conflict("Taken."), (409, "conflict"), (409, "conflict_error"), (409, "conflict_error")),
    (EXHAUSTED, (402, "insufficient_quota"), (429, "insufficient_quota"), (402, "billing_error")),
    (LIMITED, (429, "rate_limit_exceeded"), (429, "rate_limit_error"), (429, "rate_limit_error")),
    (
        BodyTooLarge("Too large."),
        (413, "request_too_large"),
        (413, "invalid_request_error"),
        (413, "request_too_large"),
    ),
    (FAILED, (502, "provider_failed"), (502, "api_error"), (502, "api_error")),
    (ProvidersTimedOut("Late."), (504, "provider_timeout"), (504, "api_error"), (504, "timeout_error")),
    (Unavailable("Draining."), (503, "unavailable"), (503, "api_error"), (529, "overloaded_error")),
    (GatewayError("Oops.", code="internal_error"), (500, "internal_error"), (500, "api_error"), (500, "api_error")),
]
NAMES = [f"{type(row[0]).__name__}-{row[0].specific_code}" for row in TABLE]


@pytest.mark.parametrize(("error", "native", "openai", "anthropic"), TABLE, ids=NAMES)
def test_every_error_has_its_status_and_type(
    error: GatewayError, native: tuple[int, str], openai: tuple[int, str], anthropic: tuple[int, str]
) -> None:
    bodies = {dialect: error_body(error, dialect, "req-1") for dialect in Dialect}
    assert (status_of(error, Dialect.NATIVE), bodies[Dialect.NATIVE]["error"]["code"]) == native
    assert (status_of(error, Dialect.OPENAI), bodies[Dialect.OPENAI]["error"]["type"]) == openai
    assert (status_of(error, Dialect.ANTHROPIC), bodies[Dialect.ANTHROPIC]["error"]["type"]) == anthropic
    assert {body["error"]["message"] for body in bodies.values()} == {error.message}


def test_every_kind_of_error_has_a_row() -> None:
    internal = told(GatewayError("Oops."))
    for kind in (*GatewayError.__subclasses__(), MalformedBody, ProvidersTimedOut):
        given: dict[str, Any] = {"retry_after_s": 1} if kind is RateLimited else {}
        assert told(kind("x", **given)) is not internal


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unauthenticated("Who?"), "invalid_api_key"),
        (UNKNOWN_MODEL, "model_not_found"),
        (EXHAUSTED, "insufficient_quota"),
        (LIMITED, "rate_limit_exceeded"),
        (InvalidRequest("Too long.", code="context_length_exceeded"), "context_length_exceeded"),
    ],
)
def test_openai_clients_get_the_codes_they_know(error: GatewayError, code: str) -> None:
    assert error_body(error, Dialect.OPENAI, "req-1")["error"]["code"] == code


def test_the_native_envelope_is_complete() -> None:
    assert error_body(UNKNOWN_MODEL, Dialect.NATIVE, "req-1") == {
        "error": {
            "code": "model_not_found",
            "type": "not_found",
            "message": "No such model.",
            "param": "model",
            "details": {},
            "request_id": "req-1",
        }
    }


def test_the_anthropic_envelope_is_complete() -> None:
    assert error_body(EXHAUSTED, Dialect.ANTHROPIC, "req-1") == {
        "type": "error",
        "error": {
            "type": "billing_error",
            "message": "Nothing left.",
            "details": {"error_code": "insufficient_quota", "unit": "tokens", "limit": 5, "needed": 9},
        },
        "request_id": "req-1",
    }


def test_details_stand_where_the_openai_sdk_shows_them() -> None:
    assert error_body(EXHAUSTED, Dialect.OPENAI, "req-1")["error"]["details"] == EXHAUSTED.details
    assert "details" not in error_body(UNKNOWN_MODEL, Dialect.OPENAI, "req-1")["error"]


@pytest.mark.parametrize("error", [EXHAUSTED, Conflict("Taken.")])
def test_what_a_retry_cannot_mend_is_not_retried(error: GatewayError) -> None:
    assert error_headers(error) == {"x-should-retry": "false"}


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"),
    [(0, "1", "1"), (0.2, "1", "200"), (1.0, "1", "1000"), (1.2, "2", "1200"), (59.0101, "60", "59011")],
)
def test_a_rate_limit_says_when_it_is_worth_to_come_back(wait_s: float, seconds: str, milliseconds: str) -> None:
    error = RateLimited("Slow down.", retry_after_s=wait_s)
    assert error_headers(error) == {"retry-after": seconds, "retry-after-ms": milliseconds}


@pytest.mark.parametrize("error", [FAILED, UNKNOWN_MODEL, Unavailable("Draining.")])
def test_other_errors_leave_retrying_to_the_client(error: GatewayError) -> None:
    assert error_headers(error) == {}


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", Dialect.OPENAI),
        ("/v1/models/a/b", Dialect.OPENAI),
        ("/v1/messages", Dialect.ANTHROPIC),
        ("/v1/messages/count_tokens", Dialect.ANTHROPIC),
        ("/api/v1/dialogs", Dialect.NATIVE),
        ("/chat", Dialect.NATIVE),
        ("/", Dialect.NATIVE),
        ("", Dialect.NATIVE),
    ],
)
def test_the_path_tells_the_dialect(path: str, dialect: Dialect) -> None:
    assert dialect_of(path) is dialect


def test_the_whole_answer_is_json_with_status_and_headers() -> None:
    response = error_response(EXHAUSTED, Dialect.OPENAI, "req-1")
    assert (response.status_code, response.media_type) == (429, "application/json")
    assert response.headers["x-should-retry"] == "false"
    assert json.loads(bytes(response.body)) == error_body(EXHAUSTED, Dialect.OPENAI, "req-1")


def test_an_error_says_more_than_its_class_only_where_it_is_told_to() -> None:
    error = InvalidRequest("Bad.")
    assert (error.code, error.specific_code, error.param, error.details) == ("invalid_request",) * 2 + (None, {})
    assert str(error) == "Bad."
