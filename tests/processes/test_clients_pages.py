"""What docs/clients says is so: its Python runs, its configuration is one, its versions are those that are locked."""

import asyncio
import json
import re
import tomllib
from typing import Any

import pytest

from tests.processes.conftest import Operator
from tests.processes.documented import ROOT, document, ran
from tests.support.gateway import ADMIN_KEY

SDKS = document("docs/clients/sdks.md")
CLIENTS = ROOT / "tests" / "clients"
AGENTS = {"claude-code": "@anthropic-ai/claude-code", "codex": "@openai/codex"}


async def test_the_python_clients_are_answered_as_the_page_sets_them_up(operator: Operator) -> None:
    gateway = await operator.started(operator.configured())
    await asyncio.to_thread(ran, SDKS, gateway.port, operator.directory, GATEWAY_KEY=ADMIN_KEY)
    asked = [(recorded.path, recorded.model) for recorded in operator.upstream.requests]
    assert [model for _, model in asked] == ["claude-opus-5-5", "claude-opus-5-5", "gpt-6-sol", "claude-opus-5-5"], (
        asked
    )


def test_codex_is_configured_as_it_is_tested() -> None:
    [shown] = re.findall(r"^```toml\n(.*?)^```$", document("docs/clients/codex.md"), re.MULTILINE | re.DOTALL)
    assert tomllib.loads(shown) == tomllib.loads(document("docs/clients/codex.toml"))


def test_the_versions_of_the_page_are_those_that_are_tried() -> None:
    told = re.sub(r"\s+", " ", SDKS[SDKS.index("## Versions") :])
    python, node = _python_locks(), _packages("package-lock.json")
    for name in ("openai", "anthropic", "google-genai"):
        assert f"{name} {python[name]} and " in told
    for name in ("langchain-openai", "langchain-anthropic", "langchain-google-genai"):
        assert f"{name} {python[name]}" in told
    assert f"pydantic-ai {python['pydantic-ai-slim']}" in told
    for name in ("openai", "@anthropic-ai/sdk", "@google/genai"):
        assert f" and {node[name]} (npm)" in told
    for name in ("ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "@ai-sdk/anthropic", "@ai-sdk/google"):
        assert f"{name} {node[name]}" in told


@pytest.mark.parametrize("agent", AGENTS)
def test_the_versions_of_the_agents_are_those_that_are_tried(agent: str) -> None:
    [version] = re.findall(r"Tried with [\w ]+ ([\d.]+): `make test-agents`", document(f"docs/clients/{agent}.md"))
    assert version == _packages("agents/package-lock.json")[AGENTS[agent]]


def _python_locks() -> dict[str, str]:
    """Versions by name; those that the gateway itself is developed with come last."""
    locks = [document(f"requirements/{name}.lock") for name in ("clients", "dev")]
    return {name: version for lock in locks for name, version in re.findall(r"^([\w-]+)==(\S+)", lock, re.MULTILINE)}


def _packages(lock: str) -> dict[str, str]:
    packages: dict[str, Any] = json.loads((CLIENTS / lock).read_text(encoding="utf-8"))["packages"]
    prefix = "node_modules/"
    return {name.removeprefix(prefix): each["version"] for name, each in packages.items() if name.startswith(prefix)}
