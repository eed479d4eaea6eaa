"""The model that runs on this machine, through both stock clients: no provider, no key, no network."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from anthropic.types import Usage

from tests.sdk.conftest import Scene
from tests.support.gateway import gateway_environment, running_gateway, sqlite_url
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "smollm2-135m"
CREDIT = 100_000
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]


def tokens_of(usage: Usage) -> int:
    """All of them: this dialect counts cached ones apart."""
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + usage.output_tokens


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A gateway without any provider."""
    url = sqlite_url(tmp_path_factory.mktemp("local"))
    async with running_gateway(gateway_environment(url)) as gateway:
        made = Scene(gateway=gateway, upstream=Upstream())
        async with made.stack:
            yield made


async def test_the_openai_client_gets_an_answer_and_pays_for_it(local: Scene) -> None:
    person = await local.person(credit=CREDIT)
    client = await local.openai(person)
    completion = await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=12)
    assert completion.choices[0].message.content
    assert completion.usage is not None
    assert 0 < completion.usage.completion_tokens <= 12
    assert await local.standing(person) == (CREDIT - completion.usage.total_tokens, 0)


async def test_the_openai_client_streams_it(local: Scene) -> None:
    person = await local.person(credit=CREDIT)
    client = await local.openai(person)
    stream = await client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 1
    usage = chunks[-1].usage
    assert usage is not None
    assert await local.standing(person) == (CREDIT - usage.total_tokens, 0)


async def test_the_openai_client_streams_it_without_usage_that_was_not_asked_for(local: Scene) -> None:
    client = await local.openai()
    stream = await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=12, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] in ("stop", "length")


async def test_the_anthropic_client_gets_an_answer_and_pays_for_it(local: Scene) -> None:
    person = await local.person(credit=CREDIT)
    client = await local.anthropic(person, _strict_response_validation=True)
    message = await client.messages.create(model=MODEL, max_tokens=12, system="Be brief.", messages=HELLO)
    assert message.content[0].type == "text"
    assert message.content[0].text
    assert await local.standing(person) == (CREDIT - tokens_of(message.usage), 0)


async def test_the_anthropic_client_streams_it(local: Scene) -> None:
    person = await local.person(credit=CREDIT)
    client = await local.anthropic(person, _strict_response_validation=True)
    async with client.messages.stream(model=MODEL, max_tokens=12, messages=HELLO) as stream:
        texts = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert len(texts) > 1
    assert message.content[0].type == "text"
    assert message.content[0].text == "".join(texts)
    assert await local.standing(person) == (CREDIT - tokens_of(message.usage), 0)


async def test_only_the_local_model_is_listed_where_no_provider_is_configured(local: Scene) -> None:
    client = await local.openai()
    assert [model.id async for model in client.models.list()] == [MODEL]
