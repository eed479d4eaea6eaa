"""A scripted provider: one loopback HTTP server that speaks OpenAI's, Anthropic's and Google's formats.

    async with Upstream() as up:
        up.script(Fail(status=503), Answer(text="hello"))     # one after the other, then the default again
        up.always(Hang(5), model="gpt-4o")                    # the default for one model
        client = AsyncOpenAI(base_url=up.openai_base_url, api_key="any")

Unscripted, it answers `"echo: " + the last user text`. Tokens are whitespace-separated words: input counts those of
the system prompt and of every text part of every message, output those of the answer plus, for a tool call, those of
its name and of its arguments as compact JSON; `n` choices multiply the output. So "one two" costs 2 in and 3 out.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import ModuleType, TracebackType
from typing import Any, Self

import orjson
from aiohttp import web
from multidict import CIMultiDict, MultiDict

from tests.support import upstream_anthropic, upstream_google, upstream_openai
from tests.support.behaviours import (
    Answer,
    Behaviour,
    CutAfter,
    Drip,
    ErrorEvent,
    Fail,
    Garbage,
    Hang,
    Interject,
    LyingLength,
    MalformedChunk,
    NoUsage,
    ResetBeforeAnswer,
    ToolCall,
    Usage,
    gzip_bomb,
)
from tests.support.recording import Recorded
from tests.support.upstream_perform import EVENT_STREAM, JSON, Performance
from tests.support.upstream_plan import Asked, Dialect, Refusal, words

__all__ = [
    "Answer",
    "Behaviour",
    "CutAfter",
    "Drip",
    "ErrorEvent",
    "Fail",
    "Garbage",
    "Hang",
    "Interject",
    "LyingLength",
    "MalformedChunk",
    "NoUsage",
    "Recorded",
    "ResetBeforeAnswer",
    "ToolCall",
    "Upstream",
    "Usage",
    "gzip_bomb",
]

MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-5", "gemini-2.5-flash")
MAX_BODY_BYTES = 64 * 1024 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CHAT = upstream_openai.OpenAIChat()
_EMBEDDINGS = upstream_openai.OpenAIEmbeddings()
_MESSAGES = upstream_anthropic.AnthropicMessages()
_GENERATE = upstream_google.GoogleGenerate()
_GENERATE_ARRAY = upstream_google.GoogleArray()


class Upstream:
    """Requests need a key as the provider takes it (any, or one of `keys`), unless `require_key` is false."""

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        models: tuple[str, ...] = MODELS,
        require_key: bool = True,
        keys: Collection[str] | None = None,
    ) -> None:
        self.requests: list[Recorded] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.models = models
        self.host = host
        self.port = port
        self._require_key = require_key
        self._keys = keys
        self._scripts: defaultdict[str | None, deque[Behaviour]] = defaultdict(deque)
        self._defaults: dict[str | None, Behaviour] = {}
        self._changed = asyncio.Event()
        self._closing = False
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(
            self._application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.05
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def openai_base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        return self.url

    @property
    def google_base_url(self) -> str:
        return self.url

    def script(self, *behaviours: Behaviour, model: str | None = None) -> None:
        """Queue behaviours for the next requests (of `model`); a model's own queue is used up before the common one."""
        self._scripts[model].extend(behaviours)

    def always(self, behaviour: Behaviour, model: str | None = None) -> None:
        """Answer so (for `model`) whenever nothing is queued."""
        self._defaults[model] = behaviour

    def reset(self) -> None:
        """Forget every script and record."""
        self._scripts.clear()
        self._defaults.clear()
        self.requests.clear()
        self.max_in_flight = self.in_flight

    def requests_for(self, model: str) -> list[Recorded]:
        return [recorded for recorded in self.requests if recorded.model == model]

    async def wait_until(self, condition: Callable[[Upstream], bool], timeout_s: float = 5.0) -> None:
        """Wait until `condition` holds; it is looked at whenever a request comes, moves on or ends."""
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                await self._changed.wait()

    async def wait_in_flight(self, count: int, timeout_s: float = 5.0) -> None:
        await self.wait_until(lambda up: up.in_flight >= count, timeout_s)

    def _next_behaviour(self, model: str) -> Behaviour:
        for queue in (self._scripts[model], self._scripts[None]):
            if queue:
                return queue.popleft()
        return self._defaults.get(model) or self._defaults.get(None) or Answer()

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._generation(_CHAT)),
                web.post("/v1/embeddings", self._generation(_EMBEDDINGS)),
                web.post("/v1/messages", self._generation(_MESSAGES)),
                web.post("/v1/messages/count_tokens", self._count_tokens),
                web.post(r"/{version:v1|v1beta}/models/{target:.+}", self._google),
                web.get(r"/{version:v1|v1beta}/models", self._models),
                web.get(r"/{version:v1|v1beta}/models/{target:.+}", self._models),
                web.get("/", self._root),
                web.route("*", "/{rest:.*}", self._unknown),
            ]
        )
        return app

    def _generation(self, dialect: Dialect) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._generate(request, dialect, "", "")

        return handle

    async def _google(self, request: web.Request) -> web.StreamResponse:
        model, _, verb = request.match_info["target"].rpartition(":")
        if verb == "countTokens":
            return await self._count_tokens(request)
        if verb not in ("generateContent", "streamGenerateContent"):
            return await self._unknown(request)
        as_array = verb == "streamGenerateContent" and request.query.get("alt") != "sse"
        return await self._generate(request, _GENERATE_ARRAY if as_array else _GENERATE, model, verb)

    async def _generate(
        self, request: web.Request, dialect: Dialect, path_model: str, path_verb: str
    ) -> web.StreamResponse:
        recorded = await self._record(request, dialect.name)
        asked = self._admit(request, recorded, dialect, path_model, path_verb)
        if isinstance(asked, web.Response):
            recorded.finished.set()
            return asked
        recorded.model = asked.model
        stream_type = JSON if dialect is _GENERATE_ARRAY else EVENT_STREAM
        performance = Performance(
            request=request,
            recorded=recorded,
            dialect=dialect,
            asked=asked,
            stream_type=stream_type,
            on_progress=self._announce,
        )
        return await self._watched(performance)

    def _admit(
        self, request: web.Request, recorded: Recorded, dialect: Dialect, path_model: str, path_verb: str
    ) -> Asked | web.Response:
        refused = self._refuse_credentials(request, dialect)
        if refused is not None:
            return refused
        if not isinstance(recorded.json, dict):
            return _refusal(dialect, Refusal(status=400, message="the body is not a JSON object"))
        asked = dialect.read(recorded.json, recorded.headers, path_model, path_verb)
        return _refusal(dialect, asked) if isinstance(asked, Refusal) else asked

    async def _watched(self, performance: Performance) -> web.StreamResponse:
        """Perform, counting the request in and noting who ended it."""
        recorded = performance.recorded
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self._announce()
        try:
            return await performance.perform(self._next_behaviour(performance.asked.model))
        except (asyncio.CancelledError, ConnectionError):
            if not (self._closing or recorded.dropped or recorded.finished.is_set()):
                recorded.hung_up.set()
            raise
        finally:
            self.in_flight -= 1
            self._announce()

    async def _record(self, request: web.Request, provider: str) -> Recorded:
        body = await request.read()
        recorded = Recorded(
            method=request.method,
            path=request.path,
            query=MultiDict(request.query),
            headers=CIMultiDict(request.headers),
            body=body,
            json=_parsed(body),
            provider=provider,
        )
        self.requests.append(recorded)
        self._announce()
        return recorded

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _refuse_credentials(self, request: web.Request, dialect: Dialect) -> web.Response | None:
        key = _key_in(request)
        if not self._require_key or (key and (self._keys is None or key in self._keys)):
            return None
        if dialect.name == "google":
            message = (
                "API key not valid. Please pass a valid API key."
                if key
                else "Method doesn't allow unregistered callers"
            )
            return _refusal(dialect, Refusal(status=400 if key else 403, message=message))
        return _refusal(dialect, Refusal(status=401, message="Incorrect API key provided"))

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        is_google = "models/" in request.path
        dialect: Dialect = _GENERATE if is_google else _MESSAGES
        recorded = await self._record(request, dialect.name)
        refused = self._refuse_credentials(request, dialect)
        if refused is not None:
            return refused
        asked = dialect.read(recorded.json or {}, recorded.headers, "", "count_tokens")
        if isinstance(asked, Refusal):
            return _refusal(dialect, asked)
        count = sum(map(words, asked.texts))
        return _json({"totalTokens": count} if is_google else {"input_tokens": count})

    async def _models(self, request: web.Request) -> web.StreamResponse:
        dialect, catalog = _catalog_for(request)
        await self._record(request, dialect.name)
        refused = self._refuse_credentials(request, dialect)
        if refused is not None:
            return refused
        name = request.match_info.get("target")
        if name is None:
            return _json(catalog.models_json(self.models))
        if name not in self.models:
            return _refusal(dialect, Refusal(status=404, message=f"The model '{name}' does not exist"))
        return _json(catalog.model_json(name))

    async def _root(self, request: web.Request) -> web.StreamResponse:
        return _json({"status": "ok"})

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        await self._record(request, "")
        message = f"Unknown request URL: {request.method} {request.path}"
        return _refusal(_CHAT, Refusal(status=404, message=message, code="unknown_url"))


def _catalog_for(request: web.Request) -> tuple[Dialect, ModuleType]:
    if "anthropic-version" in request.headers:
        return _MESSAGES, upstream_anthropic
    if "x-goog-api-key" in request.headers or request.match_info["version"] == "v1beta":
        return _GENERATE, upstream_google
    return _CHAT, upstream_openai


def _key_in(request: web.Request) -> str:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    headers: Mapping[str, str] = request.headers
    return bearer or headers.get("x-api-key") or headers.get("x-goog-api-key") or request.query.get("key") or ""


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type=JSON)


def _refusal(dialect: Dialect, refusal: Refusal) -> web.Response:
    return _json(dialect.error(refusal.status, refusal.message, refusal.code), refusal.status)


if __name__ == "__main__":
    from tests.support.upstream_process import main

    main()
