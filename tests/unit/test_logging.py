"""No secret is ever logged."""

import json
import logging
import sys
from collections.abc import Iterator
from io import StringIO

import pytest
import structlog

from src.shared.logging import configure_logging, mask_secrets

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJlX29mX2l0"
SECRETS = [
    ("sk-gw-abcdefghijklmnopqrstuvwxyz", "ghijkl"),
    ("sk-proj-abcdefghijklmnop_qrst-uvwxyz", "ijklmn"),
    ("sk-ant-api03-abcdefghijklmnopqrst", "abcdef"),
    ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "567890"),
    (TOKEN, "c2lnbmF0dXJl"),
    ("postgresql+asyncpg://gateway:hunter2@db:5432/gateway", "hunter2"),
    ("redis://:hunter2@cache:6379/0", "hunter2"),
]


def masked(value: object) -> object:
    return mask_secrets(None, "info", {"event": value})["event"]


@pytest.mark.parametrize(("secret", "hidden"), SECRETS)
def test_what_looks_like_a_secret_is_shortened(secret: str, hidden: str) -> None:
    assert hidden not in str(masked(f"it was {secret}, and then"))
    assert "and then" in str(masked(f"it was {secret}, and then"))


@pytest.mark.parametrize(("secret", "hidden"), SECRETS)
def test_secrets_are_found_however_deep(secret: str, hidden: str) -> None:
    assert hidden not in repr(masked({"a": [{"b": (secret, 1)}], secret: 2}))


def test_what_is_no_secret_is_left_alone() -> None:
    harmless = {"path": "/v1/models/gpt-4o", "url": "http://host:8000/x@y", "n": 5, "ok": None, "list": ["task-1"]}
    assert masked(harmless) == harmless


def test_an_address_keeps_its_host_and_a_key_its_beginning() -> None:
    assert masked("postgresql://me:hunter2@db/x") == "postgresql://me:***@db/x"
    assert masked("sk-gw-abcdefghijklmnop") == "sk-gw-abc***"


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """Standard error, with logging set up as the gateway does it; afterwards all is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stderr = StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    configure_logging("INFO")
    yield stderr
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines_of(logs: StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in logs.getvalue().splitlines()]


def test_lines_are_json_with_time_level_and_name(logs: StringIO) -> None:
    structlog.get_logger("gateway.test").info("hello", answer=42)
    (line,) = lines_of(logs)
    assert (line["event"], line["answer"], line["level"], line["logger"]) == ("hello", 42, "info", "gateway.test")
    assert str(line["timestamp"]).endswith("Z")


@pytest.mark.parametrize(("secret", "hidden"), SECRETS)
def test_lines_of_the_standard_library_are_masked_too(logs: StringIO, secret: str, hidden: str) -> None:
    logging.getLogger("somebody").warning("connecting with %s", secret)
    structlog.get_logger("us").warning("connecting", to=secret)
    output = logs.getvalue()
    assert output.count("connecting") == 2
    assert hidden not in output


def test_traces_are_masked(logs: StringIO) -> None:
    try:
        raise ValueError(SECRETS[0][0])
    except ValueError:
        structlog.get_logger("us").exception("failed")
        logging.getLogger("somebody").exception("failed")
    output = logs.getvalue()
    assert [line["level"] for line in lines_of(logs)] == ["error", "error"]
    assert output.count("Traceback") == 2
    assert SECRETS[0][1] not in output


def test_lines_below_the_level_are_left_out(logs: StringIO) -> None:
    structlog.get_logger("us").debug("quiet")
    logging.getLogger("httpx2").info("noise")
    assert lines_of(logs) == []


def test_a_terminal_gets_lines_for_people(logs: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", logs)
    monkeypatch.setattr(logs, "isatty", lambda: True)
    configure_logging("INFO")
    structlog.get_logger("us").info("hello", key="sk-gw-abcdefghijklmnop")
    output = logs.getvalue()
    assert "hello" in output
    assert "ghijkl" not in output
    with pytest.raises(ValueError):
        json.loads(output)
