"""Blocks of documents that are marked as tested, run as a reader would run them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.processes.conftest import shell_environment

ROOT = Path(__file__).parent.parent.parent

_MARKED = "<!-- tested -->"
_BLOCK = re.compile(r"^<!-- tested -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_END = "=== end of block ==="


def document(path: str) -> str:
    """The text of a document of this repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def ran(text: str, port: int, directory: Path, **environment: str) -> list[str]:
    """What the tested blocks of a document print, each, against a gateway at another port.

    They run one after the other in one session that ends at the first fault.
    """
    blocks = _BLOCK.findall(text.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
    assert text.count(_MARKED) == len(blocks)
    pieces = [_as_bash(language, code, directory / f"block_{at}.py") for at, (language, code) in enumerate(blocks)]
    session = "set -e\nset -o pipefail\n" + "".join(f"{piece}\necho '{_END}'\n" for piece in pieces)
    done = subprocess.run(
        ["bash", "-c", session],
        env=shell_environment(**environment),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split(f"{_END}\n")[:-1]


def _as_bash(language: str, code: str, script: Path) -> str:
    """A block as a piece of the one bash session."""
    if language == "bash":
        return code
    assert language == "python"
    script.write_text(code, encoding="utf-8")
    return f"'{sys.executable}' '{script}'\n"


def rows_of(text: str, head: str) -> list[list[str]]:
    """The cells of the table that has this head."""
    _, found, rest = text.partition(f"\n{head}\n")
    assert found, head
    rows = rest.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def objects_in(text: str) -> list[Any]:
    """JSON values written one after the other."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        value, position = decoder.raw_decode(text, position)
        found.append(value)
    return found
