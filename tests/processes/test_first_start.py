"""The first minutes of an operator: nothing configured, wrongly configured, not migrated."""

import asyncio
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.processes.conftest import Operator, client_of, shell_environment
from tests.support.gateway import ENCRYPTION_KEY, JWT_SECRET, GatewayProcess

KEY = re.compile(r"sk-gw-[A-Za-z0-9_-]{32,}")
PASSWORD = "database-password-0123456789"


async def test_an_empty_directory_is_enough_to_start_and_to_talk(operator: Operator) -> None:
    first = operator.bare()
    await asyncio.to_thread(first.command, "migrate")
    await first.start()
    secrets = operator.directory / "data" / "secrets.env"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    made = secrets.read_text()
    assert {line.partition("=")[0] for line in made.splitlines()} == {
        "GATEWAY_ENCRYPTION_KEY",
        "GATEWAY_JWT_SECRET",
        "GATEWAY_BOOTSTRAP_KEY",
    }
    printed = first.output()
    key = KEY.search(printed)
    assert key is not None
    assert f"Admin API key, shown once: {key[0]}" in printed
    assert f"GATEWAY_BOOTSTRAP_KEY={key[0]}" in made
    assert first.url in printed
    answered = await _paste(_curl_in(printed), operator.directory)
    assert answered["model"] == "SmolLM2-135M-Instruct"
    assert answered["choices"][0]["message"]["content"]
    await first.stop()

    again = operator.bare()
    await again.start()
    later = again.output().removeprefix(printed)
    assert "LLM Gateway" in later
    assert KEY.search(later) is None
    assert secrets.read_text() == made
    answered = await _paste(_curl_in(later), operator.directory)
    assert answered["usage"]["completion_tokens"] > 0


def _curl_in(printed: str) -> str:
    return printed[printed.rindex("  curl ") :].partition("\n\n")[0]


async def _paste(command: str, directory: Path) -> Any:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            env=shell_environment(),
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    done = await asyncio.to_thread(run)
    return httpx2.Response(200, content=done.stdout).json()


async def test_a_database_that_is_not_migrated_is_not_served(operator: Operator) -> None:
    gateway = operator.configured()
    refused = await asyncio.to_thread(gateway.command, "serve", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "llm-gateway: The database is not at the newest revision. Run: llm-gateway migrate\n"


async def test_migrating_twice_changes_nothing(operator: Operator) -> None:
    gateway = operator.configured()
    for _ in range(2):
        done = await asyncio.to_thread(gateway.command, "migrate")
        assert (done.returncode, done.stderr) == (0, "The database is at the newest revision.\n")


def _no_file(directory: Path) -> dict[str, Any]:
    return {"GATEWAY_JWT_SECRET": "", "GATEWAY_JWT_SECRET_FILE": str(directory / "absent")}


def _bad_yaml(directory: Path) -> dict[str, Any]:
    path = directory / "models.yaml"
    path.write_text("models:\n  - {name: fast, provider: openai, context_window: many, max_output: 5}\n")
    return {"GATEWAY_CONFIG": str(path)}


def _postgres(**more: str) -> Callable[[Path], dict[str, Any]]:
    return lambda _: {"DATABASE_URL": f"postgresql://gateway:{PASSWORD}@127.0.0.1:1/gateway", **more}


WRONG: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "a port that is no number": (lambda _: {"GATEWAY_PORT": "http"}, "GATEWAY_PORT"),
    "a short JWT secret": (lambda _: {"GATEWAY_JWT_SECRET": "short-secret-value"}, "GATEWAY_JWT_SECRET"),
    "a short bootstrap key": (lambda _: {"GATEWAY_BOOTSTRAP_KEY": "sk-gw-short"}, "GATEWAY_BOOTSTRAP_KEY"),
    "a secret file that is not there": (_no_file, "GATEWAY_JWT_SECRET_FILE"),
    "a database that is none": (lambda _: {"DATABASE_URL": f"mysql://root:{PASSWORD}@db/x"}, "DATABASE_URL"),
    "PostgreSQL without an encryption key": (_postgres(GATEWAY_ENCRYPTION_KEY=""), "GATEWAY_ENCRYPTION_KEY"),
    "PostgreSQL without a JWT secret": (_postgres(GATEWAY_JWT_SECRET=""), "GATEWAY_JWT_SECRET"),
    "a database that is away": (_postgres(), "DATABASE_URL"),
    "a catalog file with a mistake": (_bad_yaml, "models.0.context_window"),
    "a catalog file that is not there": (lambda path: {"GATEWAY_CONFIG": str(path / "absent.yaml")}, "GATEWAY_CONFIG"),
    "a directory that cannot be": (lambda _: {"DATABASE_URL": "sqlite:////dev/null/gateway.db"}, "DATABASE_URL"),
    "two workers on SQLite": (lambda _: {"GATEWAY_WORKERS": "2"}, "GATEWAY_WORKERS"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_setting_is_one_sentence_and_status_2(operator: Operator, case: str) -> None:
    settings, named = WRONG[case]
    gateway = operator.configured(**settings(operator.directory))
    if "catalog" in case:
        operator.migrated()
    refused = await asyncio.to_thread(gateway.command, "serve", check=False)
    said = refused.stdout + refused.stderr
    assert refused.returncode == 2, said
    assert said.startswith("llm-gateway: ")
    assert said.count("\n") == 1
    assert named in said
    for secret in (PASSWORD, "short-secret-value", "sk-gw-short", ENCRYPTION_KEY, JWT_SECRET):
        assert secret not in said


async def test_a_migration_without_its_database_is_one_sentence_too(operator: Operator) -> None:
    gateway = operator.configured(**_postgres()(operator.directory))
    refused = await asyncio.to_thread(gateway.command, "migrate", check=False)
    assert refused.returncode == 2
    assert "DATABASE_URL" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert PASSWORD not in refused.stderr


async def test_uvicorn_serves_it_too(operator: Operator) -> None:
    gateway: GatewayProcess = operator.configured()
    operator.migrated()
    await gateway.start("uvicorn", "src.api.main:app", "--port", str(gateway.port), "--log-level", "warning")
    async with client_of(gateway) as http:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
        answered = await http.post("/v1/chat/completions", json=body)
    assert answered.json()["choices"][0]["message"]["content"] == "echo: Hello"
    await gateway.stop()
