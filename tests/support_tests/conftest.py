"""The stock SDKs on the scripted provider itself, as strict about answers as they can be."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import httpx2
import openai
import pytest_asyncio
from google import genai
from google.genai import types as google_types

from tests.support.upstream import Upstream


@pytest_asyncio.fixture
async def openai_client(upstream: Upstream) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=upstream.openai_base_url, api_key="sk", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest_asyncio.fixture
async def anthropic_client(upstream: Upstream) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=upstream.anthropic_base_url, api_key="sk", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest_asyncio.fixture
async def google_client(upstream: Upstream) -> AsyncIterator[genai.Client]:
    async with httpx2.AsyncClient() as http:
        options = google_types.HttpOptions(base_url=upstream.google_base_url, httpx_async_client=http)
        yield genai.Client(api_key="sk", http_options=options)


@pytest_asyncio.fixture
async def http(upstream: Upstream) -> AsyncIterator[httpx2.AsyncClient]:
    """No SDK, with the keys and the versions of all of them."""
    headers = {"authorization": "Bearer sk", "x-goog-api-key": "sk", "anthropic-version": "2023-06-01"}
    async with httpx2.AsyncClient(base_url=upstream.url, headers=headers) as client:
        yield client
