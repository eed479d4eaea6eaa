"""The connections to providers: SDK clients and HTTP sessions, made once at first use and shared."""

import asyncio
from collections.abc import Awaitable, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import httpx2

from src.integrations.llm.guarded_client import GuardedClient

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from google.genai import Client as GoogleClient
    from openai import AsyncOpenAI

Client = TypeVar("Client")

MAX_CONNECTIONS = 1000
KEEPALIVE_S = 30.0
NO_KEY = "none"
"""Sent where a server needs no key. Given nothing, the SDKs would take some other server's from the environment."""


class ProviderClients:
    """One SDK client per address and key, over one connection pool; one aiohttp session for what is relayed.

    The SDKs are imported in a thread when they are first needed: they take up to a second and tens of MiB.
    """

    def __init__(self, *, connect_timeout_s: float, read_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._http: GuardedClient | None = None
        self._session: aiohttp.ClientSession | None = None
        self._made: dict[tuple[str, ...], Any] = {}
        self._making = asyncio.Lock()

    def openai(self, base_url: str, api_key: str | None) -> "Callable[[], Awaitable[AsyncOpenAI]]":
        """A function that gives the client for a server compatible with OpenAI's."""

        def make() -> "AsyncOpenAI":
            from openai import AsyncOpenAI

            return AsyncOpenAI(
                base_url=base_url,
                api_key=api_key or NO_KEY,
                max_retries=0,
                http_client=self._http_client(),
            )

        return lambda: self._once(("openai", base_url, api_key or ""), make)

    def anthropic(self, base_url: str, api_key: str | None) -> "Callable[[], Awaitable[AsyncAnthropic]]":
        """A function that gives the client for a server compatible with Anthropic's."""

        def make() -> "AsyncAnthropic":
            from anthropic import AsyncAnthropic

            return AsyncAnthropic(
                base_url=base_url,
                api_key=api_key or NO_KEY,
                max_retries=0,
                http_client=self._http_client(),
            )

        return lambda: self._once(("anthropic", base_url, api_key or ""), make)

    def google(self, base_url: str, api_key: str | None) -> "Callable[[], Awaitable[GoogleClient]]":
        """A function that gives the client for Google's API."""

        def make() -> "GoogleClient":
            from google import genai

            options = genai.types.HttpOptions(base_url=base_url, httpx_async_client=self._http_client())
            return genai.Client(vertexai=False, api_key=api_key or NO_KEY, http_options=options)

        return lambda: self._once(("google", base_url, api_key or ""), make)

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session for relayed calls; made inside the running loop, without a timeout of its own."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=60),
                # Cookies would be carried from one tenant's call to another's.
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=True,
            )
        return self._session

    async def close(self) -> None:
        """Close every connection. Nothing can be called afterwards."""
        # The SDK clients own nothing but the shared HTTP client, and closing one of them would close it for all.
        self._made.clear()
        if self._http is not None:
            await self._http.aclose()
        if self._session is not None:
            await self._session.close()

    async def _once(self, key: tuple[str, ...], make: Callable[[], Client]) -> Client:
        if key not in self._made:
            async with self._making:
                if key not in self._made:
                    self._made[key] = await asyncio.to_thread(make)
        client: Client = self._made[key]
        return client

    def _http_client(self) -> GuardedClient:
        if self._http is None:
            self._http = GuardedClient(
                connect_timeout_s=self._connect_timeout_s,
                patience_s=self._read_timeout_s,
                limits=httpx2.Limits(
                    max_connections=MAX_CONNECTIONS, max_keepalive_connections=200, keepalive_expiry=KEEPALIVE_S
                ),
                cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            )
        return self._http
