"""The application. `uvicorn src.api.main:app` serves it."""

import asyncio
import gc
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from src.api.bootstrap import VERSION, open_gateway
from src.api.container import Gateway
from src.api.errors import dialect_of, error_response
from src.api.middleware import RequestScope
from src.api.openapi import add_openapi
from src.api.routes import (
    admin,
    auth,
    catalog_admin,
    chat,
    compatible,
    conversations,
    dialogs,
    embeddings,
    estimates,
    gemini,
    health,
    models,
    quotas,
    rate_limits,
    responses,
    tokens,
)
from src.domain.completion.use_cases import TaskKeeper
from src.shared.errors import (
    GatewayError,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from src.shared.logging import configure_logging
from src.shared.settings import Settings, load_settings

API_PREFIX = "/api/v1"

OpenGateway = Callable[[Settings], AbstractAsyncContextManager[Gateway]]


def create_app(settings: Settings | None = None, open_gateway: OpenGateway = open_gateway) -> FastAPI:
    """The application with everything it serves. Raises Misconfigured where a setting is wrong."""
    settings = settings or load_settings()
    configure_logging(settings.log_level)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_gateway(settings) as gateway:
            app.state.gateway = gateway
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 50, 100)
            with _draining_on_signals(gateway.completions.keeper, settings.drain_timeout_s):
                yield
            gc.unfreeze()  # in a process that goes on, what this application leaves is garbage like any other

    app = FastAPI(title="LLM Gateway", version=VERSION, lifespan=lifespan, redirect_slashes=False)
    for router in (
        health.router,
        chat.router,
        compatible.router,
        responses.router,
        conversations.router,
        embeddings.router,
        gemini.router,
        models.gemini,
        models.compatible,
    ):
        app.include_router(router)
    for router in (
        auth.router,
        dialogs.router,
        estimates.router,
        models.native,
        tokens.router,
        admin.router,
        quotas.router,
        rate_limits.router,
        catalog_admin.router,
    ):
        app.include_router(router, prefix=API_PREFIX)
    _add_error_handlers(app)
    add_openapi(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(RequestScope, max_body_bytes=settings.max_body_bytes)
    return app


@contextmanager
def _draining_on_signals(keeper: TaskKeeper, timeout_s: float) -> Iterator[None]:
    """Drain from the signal on: the server waits for its connections before it ends the lifespan."""
    loop = asyncio.get_running_loop()
    servers_own: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        keeper.stop_admitting()
        loop.call_soon_threadsafe(keeper.begin_drain, timeout_s)
        servers_own[number](number, frame)

    # Elsewhere than in the main thread whoever runs us there handles signals.
    is_ours = threading.current_thread() is threading.main_thread()
    for number in (signal.SIGTERM, signal.SIGINT) if is_ours else ():
        handler = signal.getsignal(number)
        if callable(handler) and handler is not signal.default_int_handler:
            servers_own[number] = handler
            signal.signal(number, stop)
    try:
        yield
    finally:
        for taken, handler in servers_own.items():
            signal.signal(taken, handler)


def _respond(request: Request, error: GatewayError) -> Response:
    dialect = dialect_of(request.scope["path"], request.headers, request.query_params)
    user_agent = request.headers.get("user-agent", "")
    return error_response(error, dialect, request.state.request_id, user_agent)


def _add_error_handlers(app: FastAPI) -> None:
    async def gateway_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)  # noqa: S101
        return _respond(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return _respond(request, _first_fault(error))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        cause = error.__cause__
        if isinstance(cause, GatewayError):
            return _respond(request, cause)
        response = _respond(request, _from_status(error, request.scope["path"]))
        response.status_code = error.status_code
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(GatewayError, gateway_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)


def _first_fault(error: RequestValidationError) -> InvalidRequest:
    """The first thing wrong as the message and the param, all of them in the details; never the values."""
    faults = [{"param": _where(each["loc"]), "message": _told(each)} for each in error.errors()[:20]]
    first = faults[0]
    return InvalidRequest(f"{first['param']}: {first['message']}", param=first["param"], details={"errors": faults})


_NO_OBJECT = ("missing", "model_type", "model_attributes_type", "dict_type")


def _told(fault: Mapping[str, Any]) -> str:
    """What is wrong, in words for somebody who does not know what the body is checked with."""
    if tuple(fault["loc"]) == ("body",) and fault["type"] in _NO_OBJECT:
        return "must be a JSON object, sent with content-type: application/json"
    match fault["type"]:
        case "extra_forbidden":
            return "there is no such field here"
        case "string_pattern_mismatch" if fault.get("ctx", {}).get("pattern") == r"\S":
            return "must not be blank"
        case _:
            return str(fault["msg"]).removeprefix("Value error, ")


def _where(location: tuple[Any, ...]) -> str:
    parts = [str(part) for part in location if part not in ("body", "query", "path")]
    return ".".join(parts)[:200] or "body"


_BASE_URLS = " Check the base URL: OpenAI's clients want it with /v1 at its end, Anthropic's and Google's without."
_CLIENTS_PATHS = ("/chat/completions", "/responses", "/embeddings", "/conversations", "/messages", "enerateContent")


def _from_status(error: HTTPException, path: str) -> GatewayError:
    match error.status_code:
        case 400:
            return MalformedBody("The body cannot be read as JSON.")
        case 401:
            return Unauthenticated("Send a credential.")
        case 404:
            hint = _BASE_URLS if path.endswith(_CLIENTS_PATHS) else ""
            return NotFound(f"There is nothing at this path.{hint}")
        case 405:
            return MethodNotAllowed("This path does not take that method.")
        case 503:
            return Unavailable("Try again in a moment.")
        case _:
            return InvalidRequest(str(error.detail)[:200])


def __getattr__(name: str) -> FastAPI:
    """`app`, made when a server asks for it: importing this module reads no settings."""
    if name == "app":
        return create_app()
    raise AttributeError(name)
