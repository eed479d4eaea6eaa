"""The scripted provider as a process of its own: `python -m tests.support.upstream --port 9000`.

It prints its base URLs as one line of JSON, serves until SIGTERM or SIGINT, and answers by `--behaviour`, a JSON
object with the behaviour's name and fields: `{"name": "Fail", "status": 503, "model": "gpt-4o"}`; `--once` queues one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import behaviours
from tests.support.behaviours import Behaviour
from tests.support.processes import ServerProcess, answers_on, free_port
from tests.support.upstream import Upstream

BEHAVIOURS = (
    "Answer",
    "Mind",
    "Usage",
    "NoUsage",
    "Fail",
    "Hang",
    "ResetBeforeAnswer",
    "CutAfter",
    "Garbage",
    "MalformedChunk",
    "ErrorEvent",
    "Drip",
    "LyingLength",
)


@contextmanager
def provider_process(**answer: object) -> Iterator[Upstream]:
    """A provider in another process that always gives this answer; what is yielded knows its addresses only."""
    root = Path(__file__).resolve().parents[2]
    port = free_port()
    behaviour = json.dumps({"name": "Answer", **answer})
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from tests.support.upstream_process import main; main()"
    with tempfile.TemporaryDirectory(prefix="gwup-") as directory:
        process = ServerProcess(
            command=[sys.executable, "-c", code, "--port", str(port), "--behaviour", behaviour],
            directory=Path(directory),
            is_ready=lambda: answers_on(port, b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1."),
        )
        process.start()
        try:
            yield Upstream(port=port)
        finally:
            process.end()


def parse_behaviour(text: str) -> tuple[str | None, Behaviour]:
    fields = json.loads(text)
    name = fields.pop("name")
    if name not in BEHAVIOURS:
        raise ValueError(f"{name} is none of {', '.join(BEHAVIOURS)}")
    model = fields.pop("model", None)
    if "chunks" in fields and isinstance(fields["chunks"], list):
        fields["chunks"] = tuple(fields["chunks"])
    if isinstance(fields.get("usage"), dict):
        fields["usage"] = behaviours.Usage(**fields["usage"])
    behaviour: Behaviour = getattr(behaviours, name)(**fields)
    return model, behaviour


async def serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Upstream(port=options.port, host=options.host) as up:
        for model, behaviour in map(parse_behaviour, options.behaviour):
            up.always(behaviour, model=model)
        for model, behaviour in map(parse_behaviour, options.once):
            up.script(behaviour, model=model)
        urls = {"openai": up.openai_base_url, "anthropic": up.anthropic_base_url, "google": up.google_base_url}
        print(json.dumps(urls), flush=True)
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--behaviour", action="append", default=[], metavar="JSON")
    parser.add_argument("--once", action="append", default=[], metavar="JSON")
    asyncio.run(serve(parser.parse_args(arguments)))
