"""`OPENAI_BASE_URL` leads to a server that has only chat completions: the Responses API is there nevertheless."""

import httpx2
import pytest

from tests.http.surface import books_are_right
from tests.support.gateway import RunningGateway
from tests.support.upstream import Upstream


def asking(text: str, **fields: object) -> dict[str, object]:
    return {"model": "gpt-4o", "input": text, **fields}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_responses_are_answered_stored_and_continued(
    gateway: RunningGateway, upstream: Upstream, stream: bool
) -> None:
    upstream.lacking.add("/v1/responses")
    begun = await gateway.http.post("/v1/responses", json=asking("hello", stream=stream, top_logprobs=2))
    assert begun.status_code == 200
    assert "echo: hello" in begun.text
    before = begun_id(begun)
    told = await gateway.http.post("/v1/responses", json=asking("go on", previous_response_id=before))
    assert told.json()["previous_response_id"] == before
    again = await gateway.http.get(f"/v1/responses/{before}")
    assert again.json()["output"][0]["content"][0]["text"] == "echo: hello"
    paths = [recorded.path for recorded in upstream.requests]
    assert paths == ["/v1/responses", "/v1/chat/completions", "/v1/chat/completions"]
    assert [message["role"] for message in upstream.requests[-1].json["messages"]] == ["user", "assistant", "user"]
    await books_are_right(gateway)


def begun_id(response: httpx2.Response) -> str:
    return "resp_" + response.text.partition('"resp_')[2].partition('"')[0]
