"""A scripted provider: one loopback HTTP server that speaks OpenAI's, Anthropic's and Google's formats.

    async with Upstream() as up:
        up.script(Fail(status=503), Answer(text="hello"))     # one after the other, then the default again
        up.always(Hang(5), model="gpt-4o")                    # the default for one model
        client = AsyncOpenAI(base_url=up.openai_base_url, api_key="any")

Unscripted, it answers `"echo: " + the last user text`; under `up.always(Mind())` by what is asked. Requests are read as
strictly as the providers read them: what breaks a rule is refused in the provider's own words, unknown fields too, but
for those that begin with one of `ALLOWED_PREFIXES`. Tokens are whitespace-separated words: input counts those of
the system prompt, of every text part of every message and of tool results, output those of the answer, of the thinking
and, for a tool call, of its name and of its arguments as compact JSON; `n` choices multiply the output. So "one two"
costs 2 in and 3 out.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import Self

from aiohttp import web
from multidict import CIMultiDict, MultiDict

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
    Mind,
    NoUsage,
    ResetBeforeAnswer,
    ToolCall,
    Usage,
    gzip_bomb,
    signature_of,
)
from tests.support.recording import Recorded
from tests.support.upstream_anthropic import AnthropicMessages
from tests.support.upstream_embeddings import GoogleEmbeddings, OpenAIEmbeddings, embedding_of
from tests.support.upstream_google import GoogleArray, GoogleGenerate
from tests.support.upstream_http import catalog_for, json_response, key_in, parsed, refusal_response
from tests.support.upstream_memory import ALLOWED_PREFIXES, Memory
from tests.support.upstream_openai import OpenAIChat
from tests.support.upstream_perform import EVENT_STREAM, JSON, Performance
from tests.support.upstream_plan import Asked, Dialect, Refusal, Refused, words
from tests.support.upstream_responses import OpenAIResponses

__all__ = [
    "ALLOWED_PREFIXES",
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
    "Mind",
    "NoUsage",
    "Recorded",
    "ResetBeforeAnswer",
    "ToolCall",
    "Upstream",
    "Usage",
    "embedding_of",
    "gzip_bomb",
    "signature_of",
]

MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-5", "gemini-2.5-flash")
MAX_BODY_BYTES = 64 * 1024 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_GENERATING = ("generateContent", "streamGenerateContent")
_EMBEDDING = ("embedContent", "batchEmbedContents")
_UNREADABLE = (KeyError, TypeError, AttributeError, IndexError, ValueError)
"""What reading a body raises that has another form than any rule speaks of."""


class Upstream:
    """Requests need a key as the provider takes it (any, or one of `keys`), unless `require_key` is false.

    A `lenient` one accepts every unknown field, as many compatible servers do; every other rule holds.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        models: tuple[str, ...] = MODELS,
        require_key: bool = True,
        keys: Collection[str] | None = None,
        lenient: bool = False,
    ) -> None:
        self.requests: list[Recorded] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.models = models
        self.host = host
        self.port = port
        self._require_key = require_key
        self._keys = keys
        self.memory = Memory(lenient=lenient)
        self._chat = OpenAIChat(self.memory)
        self._messages = AnthropicMessages(self.memory)
        self._google = GoogleGenerate(self.memory)
        self._google_array = GoogleArray(self.memory)
        self._google_embeddings = GoogleEmbeddings(self.memory)
        self._scripts: defaultdict[str | None, deque[Behaviour]] = defaultdict(deque)
        self._defaults: dict[str | None, Behaviour] = {}
        self._changed = asyncio.Event()
        self.lacking: set[str] = set()
        """Paths of endpoints that this server does not have."""
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
        self.lacking.clear()
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
                web.post("/v1/chat/completions", self._generation(self._chat)),
                web.post("/v1/responses", self._generation(OpenAIResponses(self.memory))),
                web.post("/v1/embeddings", self._generation(OpenAIEmbeddings(self.memory))),
                web.post("/v1/messages", self._generation(self._messages)),
                web.post("/v1/messages/count_tokens", self._count_tokens),
                web.post(r"/{version:v1|v1beta}/models/{target:.+}", self._google_call),
                web.get(r"/{version:v1|v1beta}/models", self._models),
                web.get(r"/{version:v1|v1beta}/models/{target:.+}", self._models),
                web.get("/", self._root),
                web.route("*", "/{rest:.*}", self._unknown),
            ]
        )
        return app

    def _generation(self, dialect: Dialect) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if request.path in self.lacking:
                return await self._unknown(request)
            return await self._generate(request, dialect, "", "")

        return handle

    async def _google_call(self, request: web.Request) -> web.StreamResponse:
        model, _, verb = request.match_info["target"].rpartition(":")
        if verb == "countTokens":
            return await self._count_tokens(request)
        if verb in _EMBEDDING:
            return await self._generate(request, self._google_embeddings, model, verb)
        if verb not in _GENERATING:
            return await self._unknown(request)
        as_array = verb == "streamGenerateContent" and request.query.get("alt") != "sse"
        return await self._generate(request, self._google_array if as_array else self._google, model, verb)

    async def _generate(
        self, request: web.Request, dialect: Dialect, path_model: str, path_verb: str
    ) -> web.StreamResponse:
        recorded = await self._record(request, dialect.name)
        asked = self._admit(request, recorded, dialect, path_model, path_verb)
        if isinstance(asked, web.Response):
            recorded.finished.set()
            return asked
        recorded.model = asked.model
        stream_type = JSON if dialect is self._google_array else EVENT_STREAM
        performance = Performance(
            request=request,
            recorded=recorded,
            dialect=dialect,
            asked=asked,
            stream_type=stream_type,
            on_progress=self._announce,
            on_plan=self.memory.note,
        )
        return await self._watched(performance)

    def _admit(
        self, request: web.Request, recorded: Recorded, dialect: Dialect, path_model: str, path_verb: str
    ) -> Asked | web.Response:
        refused = self._refuse_credentials(request, dialect)
        if refused is not None:
            return refused
        asked = _read(dialect, recorded, path_model, path_verb)
        return refusal_response(dialect, asked) if isinstance(asked, Refusal) else asked

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
            json=parsed(body),
            provider=provider,
        )
        self.requests.append(recorded)
        self._announce()
        return recorded

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _refuse_credentials(self, request: web.Request, dialect: Dialect) -> web.Response | None:
        key = key_in(request)
        if not self._require_key or (key and (self._keys is None or key in self._keys)):
            return None
        if dialect.name == "google":
            message = (
                "API key not valid. Please pass a valid API key."
                if key
                else "Method doesn't allow unregistered callers"
            )
            return refusal_response(dialect, Refusal(status=400 if key else 403, message=message))
        return refusal_response(dialect, Refusal(status=401, message="Incorrect API key provided"))

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        is_google = "models/" in request.path
        dialect: Dialect = self._google if is_google else self._messages
        recorded = await self._record(request, dialect.name)
        refused = self._refuse_credentials(request, dialect)
        if refused is not None:
            return refused
        asked = _read(dialect, recorded, "", "countTokens" if is_google else "count_tokens")
        if isinstance(asked, Refusal):
            return refusal_response(dialect, asked)
        count = sum(map(words, asked.texts))
        return json_response({"totalTokens": count} if is_google else {"input_tokens": count})

    async def _models(self, request: web.Request) -> web.StreamResponse:
        kind, catalog = catalog_for(request)
        dialect: Dialect = kind(self.memory)
        await self._record(request, dialect.name)
        refused = self._refuse_credentials(request, dialect)
        if refused is not None:
            return refused
        name = request.match_info.get("target")
        if name is None:
            return json_response(catalog.models_json(self.models))
        if name not in self.models:
            return refusal_response(dialect, Refusal(status=404, message=f"The model '{name}' does not exist"))
        return json_response(catalog.model_json(name))

    async def _root(self, request: web.Request) -> web.StreamResponse:
        return json_response({"status": "ok"})

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        await self._record(request, "")
        message = f"Unknown request URL: {request.method} {request.path}"
        return refusal_response(self._chat, Refusal(status=404, message=message, code="unknown_url"))


def _read(dialect: Dialect, recorded: Recorded, path_model: str, path_verb: str) -> Asked | Refusal:
    if not isinstance(recorded.json, dict):
        return Refusal(message="the body is not a JSON object")
    try:
        return dialect.read(recorded.json, recorded.headers, path_model, path_verb)
    except Refused as refused:
        return refused.refusal
    except _UNREADABLE as error:
        return Refusal(message=f"The request cannot be read: {error!r}")


if __name__ == "__main__":
    from tests.support.upstream_process import main

    main()
