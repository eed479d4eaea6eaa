"""What the README says is so: its tested blocks run, in order, and its settings are the settings there are."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.shared.settings import Settings
from tests.processes.conftest import Operator, shell_environment

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^<!-- tested -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "=== end of block ==="
SETTINGS = {str(field.alias) for field in Settings.model_fields.values()}
COMPOSE_ONLY = {"POSTGRES_PASSWORD", "GATEWAY_PUBLISH"}


@dataclass(frozen=True)
class Block:
    """A tested block and what it printed."""

    language: str
    code: str
    output: str = ""


def blocks_on(port: int) -> Iterator[Block]:
    """The tested blocks, with the gateway at another port."""
    for language, code in BLOCK.findall(README):
        yield Block(language, code.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))


def as_bash(block: Block, number: int, directory: Path) -> str:
    """A block as a piece of the one bash session."""
    if block.language == "bash":
        return block.code
    assert block.language == "python"
    script = directory / f"block_{number}.py"
    script.write_text(block.code, encoding="utf-8")
    return f"'{sys.executable}' '{script}'\n"


def run_all(blocks: list[Block], directory: Path) -> list[Block]:
    """Run them one after the other in one session that ends at the first fault."""
    pieces = [as_bash(block, number, directory) for number, block in enumerate(blocks)]
    session = "set -e\nset -o pipefail\n" + "".join(f"{piece}\necho '{MARK}'\n" for piece in pieces)
    done = subprocess.run(
        ["bash", "-c", session],
        env=shell_environment(),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = done.stdout.split(f"{MARK}\n")[:-1]
    return [Block(block.language, block.code, output) for block, output in zip(blocks, outputs, strict=True)]


def objects_in(text: str) -> list[Any]:
    """JSON values written one after the other."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        value, position = decoder.raw_decode(text, position)
        found.append(value)
    return found


async def test_the_tested_blocks_of_the_readme_do_what_it_says(operator: Operator) -> None:
    gateway = operator.bare()
    await asyncio.to_thread(gateway.command, "migrate")
    await gateway.start()
    blocks = list(blocks_on(gateway.port))
    assert README.count("<!-- tested -->") == len(blocks)
    ran = await asyncio.to_thread(run_all, blocks, operator.directory)
    curl, openai, anthropic, tenants, dialogs, again, chat, estimates, quotas, limits, repeated, cached = ran

    [completion] = objects_in(curl.output)
    assert completion["choices"][0]["message"]["content"]
    assert re.search(r"\S.* \d+\n", openai.output)
    assert re.search(r"\S.*Usage\(.*output_tokens=\d+", anthropic.output)
    assert objects_in(tenants.output)[0]["balance"] == 100_000
    _check_dialogs(dialogs.output)
    _check_heard_again(again.output)
    _check_chat(chat.output)
    _check_quotas(quotas.output)
    _check_rate_limits(limits.output)
    _check_estimate(estimates.output)
    first, second = objects_in(repeated.output)
    assert first == second
    assert re.findall(r"^x-gateway-cache: (\w+)", cached.output, re.MULTILINE) == ["miss", "hit"]


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
