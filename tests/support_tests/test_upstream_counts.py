"""Tokens are counted and texts embedded at every address where the providers do it; requests are kept as they came."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from google import genai

from tests.support.upstream import Fail, Upstream, embedding_of


class TestEmbeddings:
    async def test_texts_and_token_arrays_have_vectors_of_the_size_that_was_asked_for(
        self, openai_client: openai.AsyncOpenAI
    ) -> None:
        ask: Any = {"model": "e", "encoding_format": "float"}
        texts = await openai_client.embeddings.create(**ask, input=["a b", "c"], dimensions=40)
        one = await openai_client.embeddings.create(**ask, input=[1, 2, 3])
        many = await openai_client.embeddings.create(**ask, input=[[1, 2, 3], [4]])
        assert [item.embedding for item in texts.data] == [embedding_of("a b", 40), embedding_of("c", 40)]
        assert [len(item.embedding) for item in texts.data] == [40, 40]
        assert one.data[0].embedding == many.data[0].embedding != many.data[1].embedding
        assert [reply.usage.prompt_tokens for reply in (texts, one, many)] == [3, 3, 4]

    async def test_base64_holds_the_same_vectors(self, upstream: Upstream) -> None:
        async with openai.AsyncOpenAI(base_url=upstream.openai_base_url, api_key="sk") as client:
            packed = await client.embeddings.create(model="e", input="a b", dimensions=3)
        assert packed.data[0].embedding == embedding_of("a b", 3)
        assert upstream.requests[0].json["encoding_format"] == "base64"

    async def test_google_embeds_one_and_many(self, upstream: Upstream, google_client: genai.Client) -> None:
        config: Any = {"output_dimensionality": 4}
        reply = await google_client.aio.models.embed_content(model="e", contents=["a b", "c"], config=config)
        assert [one.values for one in reply.embeddings or ()] == [embedding_of("a b", 4), embedding_of("c", 4)]
        assert upstream.requests[0].path.endswith("/models/e:batchEmbedContents")

    @pytest.mark.parametrize("version", ["v1", "v1beta"])
    async def test_google_is_served_under_both_versions(self, http: httpx2.AsyncClient, version: str) -> None:
        content = {"parts": [{"text": "a b"}]}
        one = await http.post(f"/{version}/models/e:embedContent", json={"content": content})
        assert one.json()["embedding"]["values"] == embedding_of("a b")
        counted = await http.post(f"/{version}/models/e:countTokens", json={"contents": [content]})
        assert counted.json()["totalTokens"] == 2
        refused = await http.post(f"/{version}/models/e:embedContent", json={"content": content, "bogus": 1})
        assert refused.status_code == 400

    async def test_embeddings_fail_as_scripted(self, upstream: Upstream, http: httpx2.AsyncClient) -> None:
        upstream.script(Fail(status=503))
        body = {"requests": [{"model": "models/e", "content": {"parts": [{"text": "x"}]}}]}
        reply = await http.post("/v1beta/models/e:batchEmbedContents", json=body)
        assert (reply.status_code, reply.json()["error"]["status"]) == (503, "UNAVAILABLE")


class TestCounting:
    async def test_every_word_of_the_prompt_and_of_tool_results_counts(self, http: httpx2.AsyncClient) -> None:
        turns = [
            {"role": "user", "content": "one two"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "three four"}]},
        ]
        body = {"model": "c", "system": "be brief", "messages": turns}
        assert (await http.post("/v1/messages/count_tokens", json=body)).json() == {"input_tokens": 6}

    async def test_google_counts_a_whole_request(self, http: httpx2.AsyncClient) -> None:
        request = {"contents": [{"parts": [{"text": "a b c"}]}], "systemInstruction": {"parts": [{"text": "d"}]}}
        body = {"generateContentRequest": {"model": "models/g", **request}}
        assert (await http.post("/v1beta/models/g:countTokens", json=body)).json()["totalTokens"] == 4


async def test_a_request_is_kept_as_it_came(upstream: Upstream, http: httpx2.AsyncClient) -> None:
    raw = b'{ "model":"m", "input":[1,2],\n "x_new": null }'
    await http.post("/v1/embeddings?a=b", content=raw, headers={"X-Extra": "1"})
    [seen] = upstream.requests
    assert (seen.body, seen.json) == (raw, {"model": "m", "input": [1, 2], "x_new": None})
    assert (seen.headers["x-extra"], seen.query["a"], seen.path) == ("1", "b", "/v1/embeddings")
