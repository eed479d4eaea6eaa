"""Coding agents do a small piece of work through the gateway: `make test-agents`."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import CLIENTS, HERE, POOR, RICH, Ended, Scene, run
from tests.sdk.conftest import Person
from tests.support.upstream import Answer, Mind, ToolCall

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

MODULES = HERE / "agents" / "node_modules"
QUESTION = "What is the secret word in note.txt?"
ANSWER = "The secret word is heliotrope."
MODELS = ("gpt-4o", "claude-sonnet-5", "gemini-2.5-flash")
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+made\n*** End Patch\n"
SCRIPT = 'text(JSON.stringify(await tools.exec_command({cmd: "cp note.txt made.txt"})));'
CODEX_CONFIG = HERE.parent.parent / "docs" / "clients" / "codex.toml"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Where an agent works: a file with something only it says."""
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "note.txt").write_text("The secret word is heliotrope.\n")
    return directory


async def claude_code(
    scene: Scene, person: Person, directory: Path, model: str, credential: str = "ANTHROPIC_AUTH_TOKEN"
) -> Ended:
    """Claude Code, asked the question without a terminal."""
    return await run(
        CLIENTS / "node",
        MODULES / "@anthropic-ai" / "claude-code" / "cli-wrapper.cjs",
        *("-p", QUESTION, "--output-format", "json", "--allowedTools", "Bash"),
        directory=directory,
        ANTHROPIC_BASE_URL=scene.gateway.url,
        ANTHROPIC_MODEL=model,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        **{credential: person.secret},
    )


async def codex(scene: Scene, person: Person, directory: Path, model: str) -> Ended:
    """Codex, asked the question without a terminal, with the configuration that the docs give."""
    home = directory.parent / "codex"
    home.mkdir()
    config = CODEX_CONFIG.read_text().replace("http://127.0.0.1:8000", scene.gateway.url)
    (home / "config.toml").write_text(config)
    return await run(
        MODULES / ".bin" / "codex",
        *("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--model", model, QUESTION),
        directory=directory,
        CODEX_HOME=str(home),
        GATEWAY_KEY=person.secret,
    )


def reads_the_note(scene: Scene, model: str, **call: Any) -> None:
    """The model calls a tool, and says what the note says once the agent has run it."""
    scene.upstream.always(Mind())
    scene.upstream.script(Answer(tool_calls=(ToolCall(**call),)), Answer(text=ANSWER), model=model)


def told_the_note(scene: Scene, model: str) -> bool:
    """Whether the provider was told, with the result of the tool, what the note says."""
    *_, last = scene.upstream.requests_for(model)
    return b"heliotrope" in last.body


@pytest.mark.parametrize(
    ("model", "credential"),
    [("claude-sonnet-5", "ANTHROPIC_API_KEY"), *((model, "ANTHROPIC_AUTH_TOKEN") for model in MODELS)],
)
async def test_claude_code_reads_a_file(scene: Scene, workplace: Path, model: str, credential: str) -> None:
    reads_the_note(scene, model, name="Bash", arguments={"command": "cat note.txt", "description": "Read the note"})
    person = await scene.person(credit=RICH)
    ended = await claude_code(scene, person, workplace, model, credential)
    assert ended.status == 0, ended.output
    assert ANSWER in ended.output
    assert told_the_note(scene, model)
    assert await scene.settled(person, RICH) > 0


async def test_claude_code_says_once_that_the_quota_is_exhausted(scene: Scene, workplace: Path) -> None:
    before = await scene.refusals()
    ended = await claude_code(scene, await scene.person(credit=POOR), workplace, "claude-sonnet-5")
    said = json.loads(ended.output.strip().splitlines()[-1])
    assert ended.status == 1
    assert (said["api_error_status"], said["num_turns"]) == (402, 1)
    assert said["result"].startswith("API Error: 402 The user's quota of tokens cannot pay for this call")
    assert await scene.refusals() == before + 1


@pytest.mark.parametrize("model", [*MODELS, "gpt-6-sol"])
async def test_codex_reads_a_file(scene: Scene, workplace: Path, model: str) -> None:
    reads_the_note(scene, model, name="exec_command", arguments={"cmd": "cat note.txt"})
    person = await scene.person(credit=RICH)
    ended = await codex(scene, person, workplace, model)
    assert ended.status == 0, ended.output
    assert ANSWER in ended.output
    assert told_the_note(scene, model)
    assert await scene.settled(person, RICH) > 0


@pytest.mark.parametrize("behind", ["claude-sonnet-5", "gemini-2.5-flash"])
@pytest.mark.parametrize(
    ("known", "tool", "text"), [("gpt-5.5-codex", "apply_patch", PATCH), ("gpt-6-sol", "exec", SCRIPT)]
)
async def test_codex_uses_its_free_text_tools_with_models_that_have_none(
    scene: Scene, workplace: Path, known: str, tool: str, text: str, behind: str
) -> None:
    chain = f"{known}-{behind}"  # Codex knows models by how their names begin, and gives each its own tools
    made = await scene.gateway.http.post("/api/v1/admin/chains", json={"name": chain, "models": [behind]})
    assert made.status_code == 201, made.text
    reads_the_note(scene, behind, name=tool, arguments={"input": text})
    ended = await codex(scene, await scene.person(credit=RICH), workplace, chain)
    assert ended.status == 0, ended.output
    assert (workplace / "made.txt").exists()
    assert ANSWER in ended.output


async def test_codex_says_once_that_the_quota_is_exhausted(scene: Scene, workplace: Path) -> None:
    before = await scene.refusals()
    ended = await codex(scene, await scene.person(credit=POOR), workplace, "gpt-4o")
    assert ended.status == 1
    assert "Quota exceeded" in ended.output
    assert await scene.refusals() == before + 1
