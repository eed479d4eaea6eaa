"""Holds over HTTP: what is sent upstream, how long answers end where the quota does, and what odd reports cost."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx2
import orjson
import pytest
import pytest_asyncio
from sqlalchemy import select

from src.data.engine import make_engine
from src.data.ledger_tables import usage_records
from tests.http.surface import books_are_right
from tests.http.ways import RESPONSES, gemini_path
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, Fail, NoUsage, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST, RESERVE, LEAST = 400, 40, 16
PROVIDERS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-5", "google": "gemini-2.5-flash"}
DIALECTS = ("native", "openai", "anthropic", "responses", "gemini")
STOPS = {"anthropic": "end_turn", "gemini": "STOP"}
LENGTHS = {"anthropic": "max_tokens", "gemini": "MAX_TOKENS", "responses": "max_output_tokens"}
CREDIT = 10_000
LONG = "word " * 300


@dataclass(frozen=True, kw_only=True)
class Town:
    """A gateway with two models of each provider: `<provider>` and `<provider>-steps`, which holds in steps."""

    gateway: RunningGateway
    upstream: Upstream

    async def person(self, credit: int | None) -> Person:
        made = await self.gateway.new_user(f"user-{uuid4()}")
        if credit is not None:
            topped_up = await self.gateway.http.post(f"/api/v1/admin/users/{made.id}/tokens", json={"amount": credit})
            assert topped_up.status_code == 200
        return made

    async def rows_of(self, person: Person) -> list[Any]:
        """The rows of usage, oldest first."""
        engine = make_engine(self.gateway.settings.database_url)
        try:
            async with engine.connect() as connection:
                mine = usage_records.c.user_id == UUID(person.id)
                found = await connection.execute(select(usage_records).where(mine).order_by(usage_records.c.id))
                return list(found)
        finally:
            await engine.dispose()

    async def counted(self, name: str) -> float:
        """A counter of the metrics, all its labels together."""
        text = (await self.gateway.http.get("/metrics")).text
        return sum(float(each) for each in re.findall(rf"^{name}_total{{[^}}]*}} (\S+)$", text, re.MULTILINE))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def built(shared_gateway: RunningGateway, shared_upstream: Upstream) -> Town:
    for provider, upstream in PROVIDERS.items():
        for name, reserve in ((provider, None), (f"{provider}-steps", RESERVE)):
            body = {"name": name, "provider": provider, "upstream": upstream, "context_window": 10_000}
            body |= {"max_output": MOST, "output_reserve": reserve, "price": {"input": 1, "output": 2}}
            made = await shared_gateway.http.post("/api/v1/admin/models", json=body)
            assert made.status_code in (200, 201), made.text
    return Town(gateway=shared_gateway, upstream=shared_upstream)


@pytest_asyncio.fixture(loop_scope="module")
async def town(built: Town) -> Any:
    built.upstream.reset()
    yield built
    await books_are_right(built.gateway)


async def asked(
    person: Person, dialect: str, model: str, *, stream: bool = False, most: int | None = None, text: str = "hello"
) -> httpx2.Response:
    """The same question in any dialect."""
    if dialect == "native":
        dialog = (await person.http.post("/api/v1/dialogs", json={"model": model})).json()["id"]
        native = {"content": text, "stream": stream, "params": {} if most is None else {"max_output_tokens": most}}
        return await person.http.post(f"/api/v1/dialogs/{dialog}/messages", json=native)
    if dialect == "gemini":
        config = {} if most is None else {"generationConfig": {"maxOutputTokens": most}}
        contents = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        return await person.http.post(gemini_path(stream=stream).format(model=model), json=contents | config)
    if dialect == "responses":
        limit = {} if most is None else {"max_output_tokens": most}
        return await person.http.post(RESPONSES, json={"model": model, "input": text, "stream": stream, **limit})
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
    if dialect == "openai":
        more = {} if most is None else {"max_completion_tokens": most}
        return await person.http.post("/v1/chat/completions", json=body | more)
    return await person.http.post("/v1/messages", json=body | {"max_tokens": MOST if most is None else most})


def payloads(response: httpx2.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    lines = (line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: "))
    return [orjson.loads(line) for line in lines if line != "[DONE]"]


def how_it_ended(dialect: str, response: httpx2.Response) -> tuple[str, str]:
    """(text, finish reason) of a stream, in the dialect's own word."""
    found = payloads(response)
    if dialect == "gemini":
        reasons = [each["candidates"][0]["finishReason"] for each in found if "finishReason" in each["candidates"][0]]
        assert found[-1]["usageMetadata"]
        assert len(reasons) == 1
        return "".join(part["text"] for each in found for part in each["candidates"][0]["content"]["parts"]), reasons[0]
    if dialect == "responses":
        return how_a_response_ended(found)
    if dialect == "native":
        return found[-1]["message"]["content"], found[-1]["message"]["finish_reason"]
    if dialect == "openai":
        assert response.text.endswith("data: [DONE]\n\n")
        choices = [choice for each in found for choice in each["choices"]]
        reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
        assert len(reasons) == 1
        return "".join(choice["delta"].get("content") or "" for choice in choices), reasons[0]
    assert [each["type"] for each in found].count("message_delta") == 1
    assert found[-1]["type"] == "message_stop"
    reason = next(each["delta"]["stop_reason"] for each in found if each["type"] == "message_delta")
    return "".join(each["delta"].get("text", "") for each in found if each["type"] == "content_block_delta"), reason


def how_a_response_ended(events: list[dict[str, Any]]) -> tuple[str, str]:
    """Its numbers grow, and its last event has what the events before it told."""
    numbers = [each["sequence_number"] for each in events]
    assert numbers == sorted(set(numbers))
    text = "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta")
    done = [each for each in events if each["type"] == "response.output_item.done"]
    last = events[-1]["response"]
    assert [each["item"] for each in done] == last["output"]
    assert "".join(part["text"] for item in last["output"] for part in item["content"]) == text
    assert events[-1]["type"] == f"response.{last['status']}"
    return text, (last["incomplete_details"] or {"reason": "stop"})["reason"]


def cap_sent(town: Town) -> int | None:
    """The output limit that the provider was sent last."""
    body = town.upstream.requests[-1].json
    config = body.get("generationConfig") or {}
    names = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    return next((body[name] for name in names if name in body), config.get("maxOutputTokens"))


async def standing(person: Person) -> tuple[int, int]:
    found = (await person.http.get("/api/v1/users/me/tokens")).json()
    return found["balance"], found["held"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_call_that_the_quota_pays_for_in_part_is_admitted_and_says_so(
    town: Town, provider: str, dialect: str, stream: bool
) -> None:
    person = await town.person(120)
    response = await asked(person, dialect, provider, stream=stream)
    assert response.status_code in (200, 201), response.text
    cap = int(response.headers["x-gateway-output-cap"])
    assert LEAST <= cap < 120
    assert cap_sent(town) == cap
    assert 0 < (await standing(person))[0] < 120
    refused = await asked(await town.person(LEAST), dialect, provider, stream=stream)
    assert refused.status_code == (402 if dialect in ("native", "anthropic") else 429)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_clients_own_maximum_is_never_raised(town: Town, provider: str, dialect: str, stream: bool) -> None:
    for credit in (CREDIT, None):
        response = await asked(await town.person(credit), dialect, f"{provider}-steps", stream=stream, most=7)
        assert cap_sent(town) == 7
        assert "x-gateway-output-cap" not in response.headers


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_nothing_is_capped_where_no_quota_limits(town: Town, stream: bool) -> None:
    response = await asked(await town.person(None), "openai", "openai-steps", stream=stream)
    assert cap_sent(town) is None
    assert "x-gateway-output-cap" not in response.headers


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_whole_answer_without_a_maximum_is_capped_at_the_reserve(town: Town, provider: str) -> None:
    await asked(await town.person(CREDIT), "openai", f"{provider}-steps")
    assert cap_sent(town) == RESERVE
    await asked(await town.person(CREDIT), "openai", f"{provider}-steps", most=100)
    assert cap_sent(town) == 100


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_long_stream_grows_its_hold_and_ends_by_itself(town: Town, provider: str, dialect: str) -> None:
    person = await town.person(CREDIT)
    town.upstream.always(Answer(text=LONG, usage=Usage(input=5, output=300), chunk_delay_s=0.0002))
    response = await asked(person, dialect, f"{provider}-steps", stream=True)
    assert how_it_ended(dialect, response) == (LONG, STOPS.get(dialect, "stop"))
    assert cap_sent(town) == MOST
    assert await standing(person) == (CREDIT - 305, 0)
    (row,) = await town.rows_of(person)
    assert (row.output_tokens, row.estimated, list(row.flags)) == (300, False, [])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_long_stream_ends_at_a_length_where_the_quota_does(town: Town, provider: str, dialect: str) -> None:
    credit = 200
    person = await town.person(credit)
    town.upstream.always(Answer(text=LONG, chunk_delay_s=0.0005, gate=asyncio.Event(), gate_after=250))
    response = await asked(person, dialect, f"{provider}-steps", stream=True)
    text, reason = how_it_ended(dialect, response)
    assert reason == LENGTHS.get(dialect, "length")
    assert LONG.startswith(text)
    assert len(text.split()) > RESERVE
    await town.upstream.requests[-1].wait_disconnected()
    (row,) = await town.rows_of(person)
    assert (row.status, row.estimated) == ("completed", True)
    balance, held = await standing(person)
    assert (held, credit - balance) == (0, min(credit, row.input_tokens + row.output_tokens))
    assert balance >= 0
    assert row.cost_micro_usd == row.input_tokens + 2 * row.output_tokens


@pytest.mark.parametrize(
    ("claim", "flags", "charged"),
    [
        (Usage(input=7, output=3), [], 10),
        (NoUsage(), ["usage_missing"], None),
        (Usage(input=-7, output=-3), ["usage_absurd"], None),
        (Usage(input=10**12, output=3), ["usage_absurd"], None),
        (Usage(input=7, output=3_000), ["over_hold"], "all"),
    ],
    ids=["right", "missing", "negative", "absurd", "above the hold"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_odd_reports_are_flagged_counted_and_never_overdraw(
    town: Town, provider: str, stream: bool, claim: Any, flags: list[str], charged: int | str | None
) -> None:
    credit = 200
    person = await town.person(credit)
    before = await town.counted("gateway_usage_flags"), await town.counted("gateway_lost")
    town.upstream.always(Answer(text="one two three", usage=claim))
    response = await asked(person, "openai", provider, stream=stream)
    assert response.status_code == 200, response.text
    (row,) = await town.rows_of(person)
    balance, held = await standing(person)
    assert (list(row.flags), held) == (flags, 0)
    after = await town.counted("gateway_usage_flags"), await town.counted("gateway_lost")
    assert after[0] - before[0] == len(flags)
    assert (after[1] > before[1]) == (flags == ["over_hold"])
    if charged == "all":
        assert balance == 0
    else:
        assert credit - balance == row.input_tokens + row.output_tokens
        assert row.estimated == (charged is None)
        assert charged is None or credit - balance == charged


async def test_each_attempt_of_a_chain_is_kept_with_its_cost(town: Town) -> None:
    name = f"chain-{uuid4()}"
    chain = {"name": name, "models": ["openai", "anthropic", "google"]}
    made = await town.gateway.http.post("/api/v1/admin/chains", json=chain)
    assert made.status_code in (200, 201)
    person = await town.person(CREDIT)
    town.upstream.always(Fail(status=503), model=PROVIDERS["openai"])
    town.upstream.always(Fail(status=429), model=PROVIDERS["anthropic"])
    town.upstream.always(Answer(text="ok", usage=Usage(input=7, output=3)), model=PROVIDERS["google"])
    assert (await asked(person, "openai", name)).status_code == 200
    (row,) = await town.rows_of(person)
    attempts = orjson.loads(row.attempts) if isinstance(row.attempts, str) else row.attempts
    found = [(each["model"], each["outcome"], each["status"], each["cost_micro_usd"]) for each in attempts]
    assert found[0] == ("openai", "server_error", 503, 0)
    assert found[1] == ("anthropic", "rate_limited", 429, 0)
    assert found[2][:2] == ("google", "ok")
    assert found[2][3] == row.cost_micro_usd == 7 + 2 * 3
    assert await standing(person) == (CREDIT - 10, 0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_call_that_fails_is_free(town: Town, dialect: str, stream: bool) -> None:
    person = await town.person(CREDIT)
    town.upstream.always(Fail(status=503))
    await asked(person, dialect, "openai-steps", stream=stream)
    (row,) = await town.rows_of(person)
    assert (row.status, row.cost_micro_usd, row.input_tokens + row.output_tokens) == ("failed", 0, 0)
    assert await standing(person) == (CREDIT, 0)
