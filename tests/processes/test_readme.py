"""What the README says is so: its tested blocks run, in order, and its settings are the settings there are."""

import asyncio
import json
import re

from src.api.catalog_schema import read_catalog_file
from src.domain.catalog.model import WireFormat
from src.shared.settings import Settings
from tests.processes.conftest import Operator, client_of
from tests.processes.documented import ROOT, document, objects_in, ran

README = document("README.md")
SETTINGS = {str(field.alias) for field in Settings.model_fields.values()}
COMPOSE_ONLY = {"POSTGRES_PASSWORD", "GATEWAY_PUBLISH"}


async def test_the_tested_blocks_of_the_readme_do_what_it_says(operator: Operator) -> None:
    gateway = operator.bare()
    await asyncio.to_thread(gateway.command, "migrate")
    await gateway.start()
    outputs = await asyncio.to_thread(ran, README, gateway.port, operator.directory)
    curl, openai, anthropic, google, tenants, dialogs, again, responses, chat, *rest = outputs
    estimates, quotas, limits, repeated, cached = rest

    [completion] = objects_in(curl)
    assert completion["choices"][0]["message"]["content"]
    assert re.search(r"\S.* \d+\n.*\S", openai, re.DOTALL)
    assert re.search(r"\S.*Usage\(.*output_tokens=\d+", anthropic)
    assert re.search(r"\S.* \d+\n", google)
    assert objects_in(tenants)[0]["balance"] == 100_000
    _check_dialogs(dialogs)
    _check_heard_again(again)
    _check_responses(responses)
    _check_chat(chat)
    _check_quotas(quotas)
    _check_rate_limits(limits)
    _check_estimate(estimates)
    first, second = objects_in(repeated)
    assert first == second
    assert re.findall(r"^x-gateway-cache: (\w+)", cached, re.MULTILINE) == ["miss", "hit"]


def _check_dialogs(output: str) -> None:
    first_json, _, rest = output.partition("event: message.created")
    [first] = objects_in(first_json)
    assert first["message"]["status"] == "completed"
    streamed, _, lists = rest.rpartition("\n\n")
    assert "event: message.completed" in streamed
    messages, standing, history = objects_in(lists)
    assert [message["role"] for message in messages["data"]] == ["user", "assistant"] * 2
    assert [message["content"] for message in messages["data"][::2]] == ["Hello, who are you?", "And what can you do?"]
    assert standing["balance"] == 100_000 - standing["total_used"] < 100_000
    assert standing["held"] == 0
    assert [entry["kind"] for entry in history["data"]] == ["charge", "charge", "top_up"]


def _check_heard_again(output: str) -> None:
    events, _, stored = output.rpartition("\n\n")
    [answer] = objects_in(stored)
    assert answer["status"] == "completed"
    assert f'"text":{json.dumps(answer["content"][5:], ensure_ascii=False)}' in events
    assert "event: message.completed" in events


def _check_responses(output: str) -> None:
    response, messages, told_natively = objects_in(output)
    assert [message["role"] for message in messages["data"]] == ["user", "assistant"] * 3
    answers = [message["content"] for message in messages["data"][1::2]]
    told = [each["output"][0]["content"][0]["text"] for each in (told_natively, response)]
    assert told == answers[1:]


def _check_quotas(output: str) -> None:
    for_new_users, limits, adjusted, listed, of_alice = objects_in(output)
    assert (for_new_users["scope"], for_new_users["limit"]) == ("new_user", 20_000)
    assert {name: limit for name, limit in limits.items() if limit is not None} == {
        "tokens_per_day": 5000,
        "requests_per_month": 1000,
    }
    assert (adjusted["scope"], adjusted["window"], adjusted["limit"]) == ("tenant", "month", 60_000_000)
    assert [quota["id"] for quota in listed["data"] if quota["scope"] == "tenant"] == [adjusted["id"]]
    assert [(quota["scope"], quota["unit"], quota["window"]) for quota in of_alice["quotas"]] == [
        ("user", "tokens", "none"),
        ("tenant", "micro_usd", "month"),
        ("user", "requests", "month"),
        ("user", "tokens", "day"),
    ]


def _check_rate_limits(output: str) -> None:
    answers, _, headers = output.partition("x-ratelimit-")
    of_alice, of_tenant, listed = objects_in(answers)
    assert (of_alice["requests_per_minute"], of_alice["parallel"], of_alice["requests_per_month"]) == (60, 4, 1000)
    assert {limit["scope"] for limit in listed["data"]} == {"user", "tenant"}
    assert of_tenant in listed["data"]
    assert "limit-requests: 60" in headers
    assert "remaining-requests: 59" in headers
    assert "limit-tokens: 100000" in headers


def _check_chat(output: str) -> None:
    first, second, history = objects_in(output)
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["content"] == second["content"] == history[0]["response"]
    assert [exchange["content"] for exchange in history] == ["Say hello.", "Say hello."]


def _check_estimate(output: str) -> None:
    [estimate] = objects_in(output)
    assert (estimate["admitted"], estimate["refusals"], estimate["output_tokens_cap"]) == (True, [], 50)
    [account] = estimate["accounts"]
    assert account["would_hold"] == estimate["hold"]["tokens"] == estimate["input_tokens_bound"] + 50


async def test_the_catalog_of_the_readme_is_one(operator: Operator) -> None:
    [text] = re.findall(r"^```yaml\n(providers:.*?)^```$", README, re.MULTILINE | re.DOTALL)
    path = operator.directory / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    [provider] = read_catalog_file(path).providers
    assert WireFormat.RESPONSES in provider.formats
    gateway = await operator.started(operator.configured(GATEWAY_CONFIG=str(path)))
    async with client_of(gateway) as admin:
        listed = {each["name"]: each for each in (await admin.get("/api/v1/models?limit=100")).json()["data"]}
    assert {"fast", "fast-2", "my-vectors", "smart", "spread"} <= listed.keys()
    assert listed["fast"]["capabilities"]["reasoning"] == "none"
    assert listed["my-vectors"]["capabilities"]["embeddings"]


def test_the_readme_and_the_example_name_every_setting_and_no_other() -> None:
    table = README[README.index("| setting | default | what |") : README.index("## Deployment")]
    first_cells = " ".join(row.split("|")[1] for row in table.splitlines() if "|" in row)
    assert set(re.findall(r"`([A-Z][A-Z0-9_]+)`", first_cells)) == SETTINGS
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^([A-Z][A-Z0-9_]+)=", example, re.MULTILINE)) == SETTINGS | COMPOSE_ONLY


async def test_the_example_as_it_stands_serves_a_laptop(operator: Operator) -> None:
    (operator.directory / ".env").write_text((ROOT / ".env.example").read_text(encoding="utf-8"), encoding="utf-8")
    gateway = operator.bare()
    await asyncio.to_thread(gateway.command, "migrate")
    assert (operator.directory / "data" / "secrets.env").exists()
