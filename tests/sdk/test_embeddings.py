"""Stock clients get vectors of every model of embeddings, in the form that each of them asks for."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio
from google.genai import errors, types
from google.genai.client import AsyncClient, Client
from langchain_openai import OpenAIEmbeddings
from openai import AsyncOpenAI

from src.shared.vectors import unpacked
from tests.sdk.conftest import Scene
from tests.support.gateway import ADMIN_KEY
from tests.support.upstream import embedding_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL, GOOGLE = "text-embedding-3-small", "gemini-embedding-001"
TEXTS = ["one two", "three"]

every_model = pytest.mark.parametrize("model", [SMALL, GOOGLE])


@pytest_asyncio.fixture(loop_scope="module")
async def client(scene: Scene) -> AsyncOpenAI:
    return await scene.openai(max_retries=0)


@pytest_asyncio.fixture(loop_scope="module")
async def strict(scene: Scene) -> AsyncOpenAI:
    """It takes no base64, which the client itself reads before it looks at the answer's form."""
    return await scene.openai(max_retries=0, _strict_response_validation=True)


@pytest_asyncio.fixture(loop_scope="module")
async def google(scene: Scene) -> AsyncIterator[AsyncClient]:
    async with httpx2.AsyncClient(timeout=30, verify=False) as http:
        options = types.HttpOptions(base_url=scene.gateway.url, httpx_async_client=http)
        yield Client(api_key=ADMIN_KEY, http_options=options).aio


@every_model
async def test_openais_client_reads_base64_which_it_asks_for_by_itself(
    scene: Scene, client: AsyncOpenAI, model: str
) -> None:
    answer = await client.embeddings.create(model=model, input=TEXTS)
    assert [each.embedding for each in answer.data] == [embedding_of(text) for text in TEXTS]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
    assert b'"encoding_format":"base64"' in scene.sent[-1].content


@every_model
async def test_numbers_and_base64_are_the_same_vector(strict: AsyncOpenAI, client: AsyncOpenAI, model: str) -> None:
    numbers = await strict.embeddings.create(model=model, input="one two", encoding_format="float")
    encoded = await client.embeddings.create(model=model, input="one two", encoding_format="base64")
    written: Any = encoded.data[0].embedding
    assert list(unpacked(base64.b64decode(written))) == numbers.data[0].embedding == embedding_of("one two")
    assert numbers.object == "list"
    assert [each.index for each in numbers.data] == [0]


@every_model
async def test_a_vector_is_as_long_as_was_asked(strict: AsyncOpenAI, model: str) -> None:
    answer = await strict.embeddings.create(model=model, input=TEXTS[0], dimensions=3, encoding_format="float")
    assert answer.data[0].embedding == embedding_of(TEXTS[0], 3)


@pytest.mark.parametrize(("tokens", "counted"), [([1, 2, 3], 3), ([[1, 2, 3], [4]], 4)])
async def test_openais_client_sends_tokens(client: AsyncOpenAI, tokens: Any, counted: int) -> None:
    answer = await client.embeddings.create(model=SMALL, input=tokens)
    assert answer.data[0].embedding == embedding_of("[1,2,3]")
    assert answer.usage.prompt_tokens == counted
    with pytest.raises(openai.BadRequestError, match="tokens as input"):
        await client.embeddings.create(model=GOOGLE, input=tokens)


async def test_openais_client_is_told_what_is_wrong(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model=SMALL, input=[])
    assert (caught.value.param, caught.value.type) == ("input", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="makes vectors"):
        await client.chat.completions.create(model=SMALL, messages=[{"role": "user", "content": "hi"}])


async def test_a_call_that_cannot_be_paid_is_asked_once(scene: Scene) -> None:
    person = await scene.person(credit=2)
    client = await scene.openai(person)
    with pytest.raises(openai.RateLimitError) as caught:
        await client.embeddings.create(model=SMALL, input="one two three")
    assert caught.value.code == "insufficient_quota"
    assert len(scene.sent) == 1
    assert await scene.standing(person) == (2, 0)


@every_model
async def test_googles_client_gets_a_vector_of_each_content(google: AsyncClient, model: str) -> None:
    answer = await google.models.embed_content(model=model, contents=TEXTS)
    assert answer.embeddings is not None
    assert [each.values for each in answer.embeddings] == [embedding_of(text) for text in TEXTS]
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.prompt_token_count == 3


@every_model
async def test_googles_client_says_what_they_are_for(scene: Scene, google: AsyncClient, model: str) -> None:
    config = types.EmbedContentConfig(task_type="RETRIEVAL_DOCUMENT", title="t", output_dimensionality=3)
    answer = await google.models.embed_content(model=model, contents=TEXTS[0], config=config)
    assert answer.embeddings is not None
    assert answer.embeddings[0].values == embedding_of(TEXTS[0], 3)
    told = scene.upstream.requests[-1].json
    if model == GOOGLE:
        (request,) = told["requests"]
        assert (request["taskType"], request["title"], request["outputDimensionality"]) == (
            "RETRIEVAL_DOCUMENT",
            "t",
            3,
        )
    else:
        assert told["dimensions"] == 3


async def test_googles_client_is_told_what_is_wrong(google: AsyncClient) -> None:
    with pytest.raises(errors.ClientError, match="makes no vectors") as caught:
        await google.models.embed_content(model="gpt-4o", contents="x")
    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")
    picture = types.Part.from_bytes(data=b"123", mime_type="image/png")
    with pytest.raises(errors.ClientError, match="image"):
        await google.models.embed_content(model=SMALL, contents=[picture])


@every_model
async def test_langchain_gets_vectors(scene: Scene, model: str) -> None:
    """Told not to cut texts into tokens of OpenAI's first, for which it would need their tables."""
    options: dict[str, Any] = {"api_key": ADMIN_KEY, "base_url": f"{scene.gateway.url}/v1"}
    async with httpx2.AsyncClient(timeout=30, verify=False) as http:
        client = OpenAIEmbeddings(model=model, check_embedding_ctx_length=False, http_async_client=http, **options)
        assert await client.aembed_documents(TEXTS) == [embedding_of(text) for text in TEXTS]
        assert await client.aembed_query("one two") == embedding_of("one two")
