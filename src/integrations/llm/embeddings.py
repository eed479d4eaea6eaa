"""Vectors for clients that do not speak their provider's format: a translation around the relay to its endpoint."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from src.domain.catalog.model import ProviderKind, Usage, WireFormat
from src.domain.completion.model import Finished, FinishReason, Reply, UpstreamEvent, UpstreamRequest, WireBody
from src.domain.completion.ports import ChatModel
from src.integrations.llm import relay_failures
from src.integrations.llm.google import embeddings as embeddings_google
from src.integrations.llm.openai import embeddings as embeddings_openai
from src.integrations.llm.translation import refuse_untranslatable


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFormat:
    """How vectors of texts are asked for and read. No request may have more than `most_inputs` texts.

    `paths` are those of all its endpoints for an upstream's model, below the provider's base URL; translations use that
    of `wire`. `credentials` are the headers that carry a key.
    """

    wire: WireFormat
    paths: Callable[[str], Mapping[WireFormat, str]]
    credentials: Callable[[str], Mapping[str, str]]
    most_inputs: int
    body_of: Callable[[UpstreamRequest, Sequence[str]], dict[str, Any]]
    vectors_in: Callable[[bytes], tuple[bytes, ...]]


OPENAI = EmbeddingFormat(
    wire=WireFormat.EMBEDDINGS,
    paths=lambda upstream: {WireFormat.EMBEDDINGS: "/embeddings"},
    credentials=lambda key: {"authorization": f"Bearer {key}"},
    most_inputs=embeddings_openai.MOST_INPUTS,
    body_of=embeddings_openai.body_of,
    vectors_in=embeddings_openai.vectors_in,
)
GOOGLE = EmbeddingFormat(
    wire=WireFormat.BATCH_EMBED_CONTENTS,
    paths=lambda upstream: {
        WireFormat.EMBED_CONTENT: f"/v1beta/models/{quote(upstream, safe='')}:embedContent",
        WireFormat.BATCH_EMBED_CONTENTS: f"/v1beta/models/{quote(upstream, safe='')}:batchEmbedContents",
    },
    credentials=lambda key: {"x-goog-api-key": key},
    most_inputs=embeddings_google.MOST_INPUTS,
    body_of=embeddings_google.body_of,
    vectors_in=embeddings_google.vectors_in,
)
FORMATS = {ProviderKind.OPENAI: OPENAI, ProviderKind.GOOGLE: GOOGLE}


class TranslatedEmbeddings(ChatModel):
    """`relay` leads to an endpoint of the format. More texts than fit into a request go in several, one by one."""

    def __init__(self, relay: ChatModel, format_: EmbeddingFormat) -> None:
        self._relay = relay
        self._format = format_

    async def complete(self, request: UpstreamRequest) -> Reply:
        refuse_untranslatable(request)
        texts = [message.text for message in request.chat.messages]
        vectors: list[bytes] = []
        parts: list[Finished] = []
        for start in range(0, len(texts), self._format.most_inputs):
            some = texts[start : start + self._format.most_inputs]
            finished = (await self._relay.complete(self._asking(request, some))).finished
            vectors.extend(self._vectors(finished.wire or b"", len(some)))
            parts.append(finished)
        finished = Finished(
            reason=FinishReason.STOP,
            usage=_sum_of([part.usage for part in parts]),
            upstream_model=parts[-1].upstream_model,
            vectors=tuple(vectors),
        )
        return Reply(finished=finished)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        for event in (await self.complete(request)).events():
            yield event

    def _asking(self, request: UpstreamRequest, texts: Sequence[str]) -> UpstreamRequest:
        wire = WireBody(format=self._format.wire, body=self._format.body_of(request, texts))
        return replace(request, chat=replace(request.chat, wire=wire))

    def _vectors(self, data: bytes, count: int) -> tuple[bytes, ...]:
        vectors = self._format.vectors_in(data)
        if len(vectors) != count:
            raise relay_failures.malformed(f"The provider made {len(vectors)} vectors of {count} inputs.")
        return vectors


def _sum_of(usages: Sequence[Usage | None]) -> Usage | None:
    """None where any is missing: then all of it is counted."""
    told = [usage for usage in usages if usage is not None]
    return Usage(input_tokens=sum(usage.input_tokens for usage in told)) if len(told) == len(usages) else None
