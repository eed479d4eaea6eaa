"""The errors the gateway speaks of. They carry a stable code and never a status number: statuses belong to the API."""

from collections.abc import Mapping
from typing import Any, ClassVar

CONTEXT_TOO_LONG = "context_length_exceeded"
"""The code of a request that is longer than what its model can read, which tells clients to shorten it."""


class GatewayError(Exception):
    """Something a caller is told about.

    `message` is written for the caller and says what to do; it never carries a secret or a stack trace.
    `param` names the offending field, `details` holds machine-readable facts.
    """

    code: ClassVar[str] = "gateway_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.details = dict(details or {})
        self.specific_code = code or self.code


class InvalidRequest(GatewayError):
    """The body or a parameter is wrong; nothing was done."""

    code = "invalid_request"


class MethodNotAllowed(InvalidRequest):
    """The path is served, but not to this method."""

    code = "method_not_allowed"


class MalformedBody(InvalidRequest):
    """The body is not JSON, or not JSON that can be stored (surrogates, NUL, too deep)."""

    code = "malformed_json"


class Unauthenticated(GatewayError):
    """No credentials, or credentials that do not count."""

    code = "invalid_api_key"


class NotAllowed(GatewayError):
    """Known caller, but not for them."""

    code = "forbidden"


class NotFound(GatewayError):
    """Unknown, or somebody else's: the two are never told apart."""

    code = "not_found"


class Conflict(GatewayError):
    """The state of the object forbids it (a name that is taken, for example)."""

    code = "conflict"


class QuotaExceeded(GatewayError):
    """An account cannot pay for the call. `details` holds scope, unit, window, limit, used, held, needed, resets_at."""

    code = "insufficient_quota"


class RateLimited(GatewayError):
    """Too many calls in too little time, or at the same time."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: float, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, details=details)
        self.retry_after_s = retry_after_s


class BodyTooLarge(GatewayError):
    """The body is over the configured limit."""

    code = "request_too_large"


class ProvidersFailed(GatewayError):
    """No model of the chain gave an answer; nothing was charged."""

    code = "provider_failed"

    def __init__(
        self, message: str, *, details: Mapping[str, Any] | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, details=details)
        self.retry_after_s = retry_after_s


class ProvidersTimedOut(ProvidersFailed):
    """The last thing that went wrong upstream was time."""

    code = "provider_timeout"


class ProvidersResting(ProvidersFailed):
    """All deployments have been failing and are not called for a moment; nothing was called or charged."""

    code = "provider_resting"


class Unavailable(GatewayError):
    """The gateway itself cannot serve now (draining, overloaded, or its database is away)."""

    code = "unavailable"


class Misconfigured(Exception):
    """A setting is wrong: the process says this sentence and does not start."""
