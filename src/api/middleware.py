"""What surrounds every request: its id, its log line, its body limit, and the last net for faults. Pure ASGI."""

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.api.errors import dialect_of, error_response
from src.shared.errors import BodyTooLarge, GatewayError, NotFound
from src.shared.ids import new_id

log = structlog.get_logger("gateway.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_LENGTH = re.compile(r"[0-9]+")
MAX_DIGITS = 18


class RequestScope:
    """Gives each request an id (the caller's own where it is sane), logs it, limits its body, catches what is left."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self._max_body_bytes)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request.id)
        try:
            request.check()
            await self._app(scope, request.receive, request.send)
        except GatewayError as error:
            await request.fail(error)
        except ClientDisconnect:
            pass
        except Exception:
            log.exception("unhandled_error", path=scope["path"])
            await request.fail(GatewayError(_INTERNAL, code="internal_error"))
        finally:
            request.log()


_INTERNAL = "Something went wrong in the gateway; the request id helps its operator to find out what."


class _Request:
    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._left_bytes = max_body_bytes
        self._max_body_bytes = max_body_bytes
        self._started_s = time.perf_counter()
        self._status = 0
        self._headers = Headers(scope=scope)
        self.id = self._own_or_new_id()
        scope.setdefault("state", {})["request_id"] = self.id

    def _own_or_new_id(self) -> str:
        given = self._headers.get("x-request-id", "")
        return given if _REQUEST_ID.fullmatch(given) else str(new_id())

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._max_body_bytes} bytes.")

    def check(self) -> None:
        """Refuse by the path and the announced length before reading anything."""
        if "\x00" in self._scope["path"]:
            raise NotFound("There is nothing at this path.")
        length = self._headers.get("content-length", "")
        if _LENGTH.fullmatch(length) and (len(length) > MAX_DIGITS or int(length) > self._max_body_bytes):
            raise self._too_large()

    async def receive(self) -> Message:
        """Hand the body on, up to the limit."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._left_bytes -= len(message.get("body", b""))
            if self._left_bytes < 0:
                raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """Add the request's id to the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            headers["request-id"] = self.id
        await self._send(message)

    async def fail(self, error: GatewayError) -> None:
        """Answer with an error, where the answer has not begun."""
        if self._status == 0:
            response = error_response(error, dialect_of(self._scope["path"], self._headers), self.id)
            await response(self._scope, self._receive, self.send)

    def log(self) -> None:
        """One line and one count a request, without query string, headers or body."""
        duration_s = time.perf_counter() - self._started_s
        gateway = getattr(getattr(self._scope.get("app"), "state", None), "gateway", None)
        if gateway is not None:
            route = self._scope.get("route")
            gateway.metrics.request(getattr(route, "path", "none"), self._status or 499, duration_s)
        log.info(
            "request",
            method=self._scope["method"],
            path=self._scope["path"],
            status=self._status or 499,
            duration_ms=round(duration_s * 1000, 1),
        )
