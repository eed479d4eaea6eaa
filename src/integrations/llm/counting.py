"""Providers' own counts of prompts, asked for in the client's own words."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from src.domain.catalog.model import WireFormat
from src.domain.completion.model import Failure, ToldCount, UpstreamFailed, UpstreamRequest
from src.integrations.llm import relay_failures
from src.integrations.llm.anthropic.relay import in_its_own_words
from src.integrations.llm.google.relay import resource
from src.integrations.llm.relay import DEFAULT_ANTHROPIC_VERSION
from src.integrations.llm.sse_bytes import parsed

COUNT_TIMEOUT_S = 5.0
"""In all: our own estimate is as good as a late answer."""
MAX_COUNT_BYTES = 64 * 1024
MOST_TOKENS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CountFormat:
    """How a wire format asks: where (below the base URL), in which body, and where the answer says it.

    `key_header` takes the provider's key, `version` are headers for clients that send none of their own.
    """

    path: Callable[[str], str]
    body: Callable[[Mapping[str, Any], str], dict[str, Any]]
    field: str
    key_header: str
    version: Mapping[str, str]


def _google_body(body: Mapping[str, Any], upstream: str) -> dict[str, Any]:
    """A whole request inside of it names its model too."""
    renamed = {name: value for name, value in body.items() if name != "model"}
    for name in ("generateContentRequest", "generate_content_request"):
        if isinstance(inner := renamed.get(name), dict):
            renamed[name] = {**inner, "model": resource(upstream)}
    return renamed


_FORMATS = {
    WireFormat.MESSAGES: CountFormat(
        path=lambda _: "/v1/messages/count_tokens",
        body=in_its_own_words,
        field="input_tokens",
        key_header="x-api-key",
        version={"anthropic-version": DEFAULT_ANTHROPIC_VERSION},
    ),
    WireFormat.GENERATE_CONTENT: CountFormat(
        path=lambda upstream: f"/v1beta/{resource(upstream)}:countTokens",
        body=_google_body,
        field="totalTokens",
        key_header="x-goog-api-key",
        version={},
    ),
}


async def asked_count(
    session: aiohttp.ClientSession, base_url: str, api_key: str | None, request: UpstreamRequest
) -> ToldCount:
    """Ask the provider at that address. Raises UpstreamFailed."""
    wire = request.chat.wire
    asking = None if wire is None else _FORMATS.get(wire.format)
    if wire is None or asking is None:
        raise UpstreamFailed(Failure.UNSUPPORTED, "The provider does not count prompts in this format.")
    upstream = request.model.upstream
    headers = {**asking.version, **wire.headers, "content-type": "application/json"}
    if api_key:
        headers[asking.key_header] = api_key
    try:
        async with asyncio.timeout(COUNT_TIMEOUT_S):
            data = await _answer(session, base_url + asking.path(upstream), headers, asking.body(wire.body, upstream))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise relay_failures.of_transport(error) from error
    body = parsed(data)
    count = body.get(asking.field) if isinstance(body, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST_TOKENS:
        raise relay_failures.malformed("The provider's answer has no count.")
    return ToldCount(input_tokens=count, body=body)


async def _answer(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], body: Mapping[str, Any]
) -> bytes:
    async with session.post(url, data=orjson.dumps(body), headers=headers, allow_redirects=False) as response:
        if response.status != 200:
            raise relay_failures.malformed("The provider did not count.", response.status)
        data = bytearray()
        while piece := await response.content.readany():
            data += piece
            if len(data) > MAX_COUNT_BYTES:
                raise relay_failures.malformed("The provider's answer is too large.", response.status)
        return bytes(data)
