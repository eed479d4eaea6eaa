"""What the scripted provider does with aiohttp's requests and responses, whatever the dialect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import orjson
from aiohttp import web

from tests.support import upstream_anthropic, upstream_google, upstream_openai
from tests.support.upstream_memory import Memory
from tests.support.upstream_perform import JSON
from tests.support.upstream_plan import Dialect, Refusal


def catalog_for(request: web.Request) -> tuple[Callable[[Memory], Dialect], ModuleType]:
    """Whose list of models is asked for: one path serves three dialects."""
    if "anthropic-version" in request.headers:
        return upstream_anthropic.AnthropicMessages, upstream_anthropic
    if "x-goog-api-key" in request.headers or request.match_info["version"] == "v1beta":
        return upstream_google.GoogleGenerate, upstream_google
    return upstream_openai.OpenAIChat, upstream_openai


def key_in(request: web.Request) -> str:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    headers: Mapping[str, str] = request.headers
    return bearer or headers.get("x-api-key") or headers.get("x-goog-api-key") or request.query.get("key") or ""


def parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def json_response(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type=JSON)


def refusal_response(dialect: Dialect, refusal: Refusal) -> web.Response:
    error = dialect.error(refusal.status, refusal.message, refusal.code, refusal.param)
    return json_response(error, refusal.status)
