"""Models of embeddings at their providers: relayed where the client speaks their format, translated elsewhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from src.domain.catalog.model import Capabilities, Model, Provider, ProviderKind, Usage, WireFormat
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    EmbeddingWish,
    Failure,
    Finished,
    FinishReason,
    Reply,
    UpstreamFailed,
    UpstreamRequest,
    WireBody,
)
from src.integrations.llm.build import ProviderModels
from src.integrations.llm.compatible_servers import STANDARD_PROVIDERS
from src.shared.vectors import packed
from tests.support.upstream import (
    Answer,
    Behaviour,
    CutAfter,
    Fail,
    Garbage,
    Hang,
    NoUsage,
    ResetBeforeAnswer,
    Upstream,
    embedding_of,
)

KEY = "sk-secret-of-the-operator"
OWN = {"openai": WireFormat.EMBEDDINGS, "my-vllm": WireFormat.EMBEDDINGS, "google": WireFormat.BATCH_EMBED_CONTENTS}
OTHER = {
    "openai": WireFormat.BATCH_EMBED_CONTENTS,
    "my-vllm": WireFormat.EMBED_CONTENT,
    "google": WireFormat.EMBEDDINGS,
}
PROVIDERS = tuple(OWN)

every_provider = pytest.mark.parametrize("provider", PROVIDERS)


class Providers:
    """All of them at one scripted upstream."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.models = ProviderModels(
            secrets={"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "GOOGLE_API_KEY": KEY},
            base_urls={
                "OPENAI_BASE_URL": upstream.openai_base_url,
                "ANTHROPIC_BASE_URL": upstream.anthropic_base_url,
                "GOOGLE_GEMINI_BASE_URL": upstream.google_base_url,
            },
            connect_timeout_s=1.0,
            read_timeout_s=0.4,
        )
        self._rows = {each.name: each for each in STANDARD_PROVIDERS} | {
            "my-vllm": Provider(
                name="my-vllm",
                kind=ProviderKind.OPENAI,
                base_url=f"{upstream.openai_base_url}/",
                api_key_env="OPENAI_API_KEY",
            )
        }

    async def asked(self, provider: str, chat: ChatRequest) -> Reply:
        model = Model(
            name="public",
            provider=provider,
            upstream="their-name",
            context_window=8192,
            max_output=0,
            capabilities=Capabilities(embeddings=True),
        )
        upstream = self.models.chat_model(model, self._rows[provider])
        return await upstream.complete(UpstreamRequest(model=model, chat=chat))

    async def failure(self, provider: str, chat: ChatRequest) -> UpstreamFailed:
        with pytest.raises(UpstreamFailed) as caught:
            await self.asked(provider, chat)
        assert KEY not in caught.value.message
        return caught.value


@pytest_asyncio.fixture
async def providers(upstream: Upstream) -> AsyncIterator[Providers]:
    made = Providers(upstream)
    yield made
    await made.models.close()


def wanted(kind: WireFormat, *texts: str, dimensions: int | None = None, **fields: Any) -> ChatRequest:
    """What a client of that format asks, in its words and in ours."""
    body: dict[str, Any]
    size = {} if dimensions is None else {"outputDimensionality": dimensions}
    requests = [{"model": "models/public", "content": {"parts": [{"text": text}]}, **size, **fields} for text in texts]
    match kind:
        case WireFormat.EMBEDDINGS:
            body = {"model": "public", "input": list(texts), **fields}
            body |= {} if dimensions is None else {"dimensions": dimensions}
        case WireFormat.EMBED_CONTENT:
            body = requests[0]
        case _:
            body = {"requests": requests}
    return ChatRequest(
        messages=tuple(ChatMessage(role=ChatRole.USER, text=text) for text in texts),
        embedding=EmbeddingWish(dimensions=dimensions),
        wire=WireBody(format=kind, body=body),
    )


def vectors_of(*texts: str, size: int = 8) -> tuple[bytes, ...]:
    return tuple(packed(embedding_of(text, size)) for text in texts)


class TestRelay:
    async def test_of_openais_body_only_the_model_changes(self, providers: Providers) -> None:
        chat = wanted(WireFormat.EMBEDDINGS, "one two", "three", dimensions=3, encoding_format="base64", user="u")
        finished = (await providers.asked("openai", chat)).finished
        (sent,) = providers.upstream.requests
        assert chat.wire is not None
        assert (sent.path, sent.json) == ("/v1/embeddings", {**chat.wire.body, "model": "their-name"})
        assert sent.headers["authorization"] == f"Bearer {KEY}"
        assert finished.wire is not None
        assert [row["index"] for row in json.loads(finished.wire)["data"]] == [0, 1]
        assert (finished.usage, finished.upstream_model) == (Usage(input_tokens=3), "their-name")
        assert (finished.reason, finished.vectors) == (FinishReason.STOP, ())

    async def test_tokens_go_on_to_openai(self, providers: Providers) -> None:
        body = {"model": "public", "input": [[1, 2], [3]]}
        wire = WireBody(format=WireFormat.EMBEDDINGS, body=body, untranslatable=("tokens as input",))
        chat = ChatRequest(messages=(), embedding=EmbeddingWish(tokens=3), wire=wire)
        assert (await providers.asked("openai", chat)).finished.usage == Usage(input_tokens=3)
        assert providers.upstream.requests[0].json["input"] == [[1, 2], [3]]

    @pytest.mark.parametrize("kind", [WireFormat.EMBED_CONTENT, WireFormat.BATCH_EMBED_CONTENTS])
    async def test_of_googles_bodies_only_the_model_changes(self, providers: Providers, kind: WireFormat) -> None:
        chat = wanted(kind, "one two", dimensions=3, taskType="CLUSTERING", title="t")
        finished = (await providers.asked("google", chat)).finished
        (sent,) = providers.upstream.requests
        assert chat.wire is not None
        verb = "embedContent" if kind is WireFormat.EMBED_CONTENT else "batchEmbedContents"
        expected = json.loads(json.dumps(chat.wire.body).replace("models/public", "models/their-name"))
        assert (sent.path, sent.json) == (f"/v1beta/models/their-name:{verb}", expected)
        assert sent.headers["x-goog-api-key"] == KEY
        assert finished.usage == Usage(input_tokens=2)
        assert b"values" in (finished.wire or b"")

    async def test_a_body_that_names_no_model_names_none(self, providers: Providers) -> None:
        wire = WireBody(format=WireFormat.EMBED_CONTENT, body={"content": {"parts": [{"text": "x"}]}})
        await providers.asked("google", ChatRequest(messages=(), embedding=EmbeddingWish(), wire=wire))
        assert providers.upstream.requests[0].json == wire.body


class TestTranslation:
    @every_provider
    @pytest.mark.parametrize("dimensions", [None, 3])
    async def test_vectors_are_those_of_the_provider(
        self, providers: Providers, provider: str, dimensions: int | None
    ) -> None:
        texts = ("one two", "three")[: 1 if OTHER[provider] is WireFormat.EMBED_CONTENT else 2]
        finished = (await providers.asked(provider, wanted(OTHER[provider], *texts, dimensions=dimensions))).finished
        assert finished.vectors == vectors_of(*texts, size=dimensions or 8)
        assert finished.usage == Usage(input_tokens=sum(len(text.split()) for text in texts))
        assert finished.wire is None
        assert finished.reason is FinishReason.STOP

    async def test_openai_is_asked_for_base64(self, providers: Providers) -> None:
        await providers.asked("openai", wanted(WireFormat.BATCH_EMBED_CONTENTS, "x", dimensions=4))
        expected = {"model": "their-name", "input": ["x"], "encoding_format": "base64", "dimensions": 4}
        assert providers.upstream.requests[0].json == expected

    async def test_numbers_will_do(self, providers: Providers) -> None:
        body = {"data": [{"embedding": [0.5, 1]}], "usage": {"total_tokens": 4}}
        providers.upstream.script(Garbage(json.dumps(body).encode(), content_type="application/json"))
        finished = (await providers.asked("my-vllm", wanted(WireFormat.EMBED_CONTENT, "x"))).finished
        assert (finished.vectors, finished.usage) == ((packed([0.5, 1.0]),), Usage(input_tokens=4))

    async def test_google_is_asked_in_batches(self, providers: Providers) -> None:
        texts = [f"text {number}" for number in range(250)]
        finished = (await providers.asked("google", wanted(WireFormat.EMBEDDINGS, *texts))).finished
        sent = [request.json["requests"] for request in providers.upstream.requests]
        assert [len(batch) for batch in sent] == [100, 100, 50]
        assert {each["model"] for batch in sent for each in batch} == {"models/their-name"}
        assert finished.vectors == vectors_of(*texts)
        assert finished.usage == Usage(input_tokens=500)

    async def test_usage_that_one_batch_does_not_tell_is_unknown(self, providers: Providers) -> None:
        providers.upstream.script(Answer(), NoUsage())
        finished = (await providers.asked("google", wanted(WireFormat.EMBEDDINGS, *["x"] * 101))).finished
        assert (finished.usage, len(finished.vectors)) == (None, 101)

    async def test_what_others_cannot_be_told_is_refused(self, providers: Providers) -> None:
        wire = WireBody(format=WireFormat.EMBEDDINGS, body={"input": [1, 2]}, untranslatable=("tokens as input",))
        chat = ChatRequest(messages=(), embedding=EmbeddingWish(tokens=2), wire=wire)
        failure = await providers.failure("google", chat)
        assert failure.kind is Failure.UNSUPPORTED
        assert "tokens as input" in failure.message
        assert not providers.upstream.requests

    @pytest.mark.parametrize("provider", ["openai", "google"])
    async def test_a_vector_too_few_is_no_answer(self, providers: Providers, provider: str) -> None:
        body = {"data": [{"embedding": [1.0]}], "embeddings": [{"values": [1.0]}]}
        providers.upstream.always(Garbage(json.dumps(body).encode(), content_type="application/json"))
        failure = await providers.failure(provider, wanted(OTHER[provider], "one", "two"))
        assert failure.kind is Failure.MALFORMED

    async def test_asked_for_a_stream_they_come_at_once(self, providers: Providers) -> None:
        provider = next(each for each in STANDARD_PROVIDERS if each.name == "google")
        model = Model(
            name="m",
            provider="google",
            upstream="u",
            context_window=9,
            max_output=0,
            capabilities=Capabilities(embeddings=True),
        )
        request = UpstreamRequest(model=model, chat=wanted(WireFormat.EMBEDDINGS, "x"))
        events = [event async for event in providers.models.chat_model(model, provider).stream(request)]
        (finished,) = events
        assert isinstance(finished, Finished)
        assert finished.vectors == vectors_of("x")


WEATHER: tuple[tuple[Behaviour, Failure], ...] = (
    (Fail(status=400, message="bad dimensions"), Failure.CALLER),
    (Fail(status=400, message="This model's maximum context length is 8192 tokens"), Failure.CONTEXT_WINDOW),
    (Fail(status=401), Failure.CREDENTIALS),
    (Fail(status=404), Failure.UNKNOWN_MODEL),
    (Fail(status=429), Failure.RATE_LIMITED),
    (Fail(status=500), Failure.SERVER),
    (Garbage(), Failure.MALFORMED),
    (Garbage(b"{}", content_type="application/json"), Failure.MALFORMED),
    (CutAfter(), Failure.DROPPED),
    (ResetBeforeAnswer(), Failure.DROPPED),
    (Hang(5), Failure.TIMEOUT),
)


class TestFailures:
    @every_provider
    @pytest.mark.parametrize("formats", [OWN, OTHER], ids=["relayed", "translated"])
    @pytest.mark.parametrize(("behaviour", "kind"), WEATHER, ids=lambda value: type(value).__name__)
    async def test_every_failure_has_its_name(
        self,
        providers: Providers,
        provider: str,
        formats: dict[str, WireFormat],
        behaviour: Behaviour,
        kind: Failure,
    ) -> None:
        providers.upstream.always(behaviour)
        assert (await providers.failure(provider, wanted(formats[provider], "hello"))).kind is kind

    @every_provider
    @pytest.mark.parametrize("formats", [OWN, OTHER], ids=["relayed", "translated"])
    async def test_usage_may_be_missing(
        self, providers: Providers, provider: str, formats: dict[str, WireFormat]
    ) -> None:
        providers.upstream.always(NoUsage())
        assert (await providers.asked(provider, wanted(formats[provider], "hello"))).finished.usage is None

    @pytest.mark.parametrize("provider", ["anthropic", "builtin"])
    async def test_who_makes_no_vectors_says_so(self, providers: Providers, provider: str) -> None:
        failure = await providers.failure(provider, wanted(WireFormat.EMBEDDINGS, "hello"))
        assert (failure.kind, failure.message) == (Failure.UNSUPPORTED, f"The provider {provider} makes no vectors.")
        assert not providers.upstream.requests

    async def test_a_question_is_no_input(self, providers: Providers) -> None:
        asked = ChatRequest(messages=(ChatMessage(role=ChatRole.USER, text="hello"),))
        failure = await providers.failure("openai", asked)
        assert (failure.kind, failure.message) == (Failure.UNSUPPORTED, "The model public does not do this: answers.")
