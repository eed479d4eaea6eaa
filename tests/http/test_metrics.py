"""Metrics count what happened, by names of our own only."""

from tests.support.gateway import RunningGateway
from tests.support.upstream import Answer, Fail, Upstream, Usage


async def test_calls_tokens_and_refusals_are_counted(gateway: RunningGateway, upstream: Upstream) -> None:
    erin = await gateway.new_user("erin")
    await gateway.http.post(f"/api/v1/admin/users/{erin.id}/tokens", json={"amount": 300})
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "max_tokens": 50}
    upstream.script(Answer(text="ok", usage=Usage(input=10, output=40)), Fail(status=500))
    for _ in range(2):
        await erin.http.post("/v1/chat/completions", json=body)
    await erin.http.post(f"/api/v1/dialogs/{erin.id}/messages", json={"content": "x"})
    await gateway.http.post(f"/api/v1/admin/users/{erin.id}/tokens", json={"amount": -250})
    await erin.http.post("/v1/chat/completions", json=body)

    scraped = await gateway.client(None).get("/metrics")
    assert scraped.headers["content-type"].startswith("text/plain")
    lines = scraped.text.splitlines()
    assert 'gateway_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0' in lines
    assert 'gateway_requests_total{endpoint="/v1/chat/completions",status="429"} 1.0' in lines
    assert 'gateway_upstream_calls_total{model="gpt-4o",outcome="ok",provider="openai"} 1.0' in lines
    assert 'gateway_upstream_calls_total{model="gpt-4o",outcome="server_error",provider="openai"} 1.0' in lines
    assert 'gateway_tokens_total{kind="output",model="gpt-4o"} 40.0' in lines
    assert 'gateway_holds_total{result="refused"} 1.0' in lines
    assert "gateway_answers_in_progress 0.0" in lines
    assert erin.id not in scraped.text
