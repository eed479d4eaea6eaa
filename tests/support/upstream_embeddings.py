"""Embeddings of OpenAI and of Google: vectors made from the hash of each input; usage counts its words or tokens."""

from __future__ import annotations

import base64
import hashlib
import itertools
import struct
from collections.abc import Sequence
from typing import Any

from tests.support.upstream_google import GoogleGenerate
from tests.support.upstream_openai import OpenAIChat
from tests.support.upstream_plan import Asked, Plan, compact, texts_in
from tests.support.upstream_reading import either
from tests.support.upstream_rules_chat import check_embeddings
from tests.support.upstream_rules_google import check_embedding

EMBEDDING_SIZE = 8


def embedding_of(text: str, size: int = EMBEDDING_SIZE) -> list[float]:
    """The vector of a text, from any provider. A token array has that of its JSON."""
    digest = hashlib.sha256(text.encode()).digest()
    return [byte / 256 for byte in itertools.islice(itertools.cycle(digest), size)]


class OpenAIEmbeddings(OpenAIChat):
    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked:
        check_embeddings(body, self.memory)
        texts = tuple(" ".join("x" * _tokens(one)) for one in inputs_of(body["input"]))
        return Asked(model=body["model"], texts=texts, last_user_text="", stream=False, cap=None, body=body)

    def whole(self, plan: Plan) -> dict[str, Any]:
        body = plan.asked.body
        vectors = [_vector(one, body.get("dimensions") or EMBEDDING_SIZE) for one in inputs_of(body["input"])]
        packed = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
            for index, vector in enumerate(vectors)
        ]
        reply: dict[str, Any] = {"object": "list", "data": data, "model": plan.model, **plan.answer.extra_fields}
        if plan.usage is not None:
            reply["usage"] = {"prompt_tokens": plan.usage.input, "total_tokens": plan.usage.input}
        return reply


class GoogleEmbeddings(GoogleGenerate):
    """`embedContent` and `batchEmbedContents`."""

    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked:
        requests = _embed_requests(body)
        for request in requests:
            check_embedding(request, self.memory)
        texts = tuple(" ".join(texts_in(request["content"].get("parts"))) for request in requests)
        return Asked(model=path_model, texts=texts, last_user_text="", stream=False, cap=None, body=body)

    def whole(self, plan: Plan) -> dict[str, Any]:
        requests = _embed_requests(plan.asked.body)
        sizes = [either(request, "outputDimensionality") or EMBEDDING_SIZE for request in requests]
        texts = plan.asked.texts
        vectors = [{"values": embedding_of(text, size)} for text, size in zip(texts, sizes, strict=True)]
        is_batch = "requests" in plan.asked.body
        reply: dict[str, Any] = {"embeddings": vectors} if is_batch else {"embedding": vectors[0]}
        if plan.usage is not None:
            reply["usageMetadata"] = {"promptTokenCount": plan.usage.input}
        return reply | dict(plan.answer.extra_fields)


def inputs_of(value: Any) -> Sequence[str | list[int]]:
    """One text or many, one array of token ids or many: as many."""
    if isinstance(value, str) or (value and isinstance(value[0], int)):
        return [value]
    return list(value)


def _tokens(one: str | list[int]) -> int:
    return len(one.split() if isinstance(one, str) else one)


def _vector(one: str | list[int], size: int) -> list[float]:
    return embedding_of(one if isinstance(one, str) else compact(one), size)


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _embed_requests(body: dict[str, Any]) -> list[dict[str, Any]]:
    return list(body["requests"]) if "requests" in body else [body]
