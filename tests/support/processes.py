"""Server processes of the tests: a free port, a start that waits, an end by pid even if the tests are killed."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Ends the server when the pipe to its parent breaks, as it does even when the tests die of SIGKILL.
_GUARD = 'read -r line; [ "$line" = done ] || { kill -9 "$0"; rm -rf "$1"; } 2>/dev/null'


class StartFailed(RuntimeError):
    """A server did not come up; carries the end of its log."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_as_options(user: str | None) -> dict[str, Any]:
    """Arguments for `subprocess` to run as `user`, or as oneself."""
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


@dataclass(slots=True, kw_only=True)
class ServerProcess:
    """One server on one port, which can be ended and started again with the same command."""

    command: Sequence[str]
    directory: Path
    is_ready: Callable[[], bool]
    user: str | None = None
    start_timeout_s: float = 30.0
    stop_signal: signal.Signals = signal.SIGTERM
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _guard: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        return self.directory / "server.log"

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **run_as_options(self.user),
            )
        guard = ["/bin/sh", "-c", _GUARD, str(self._process.pid), str(self.directory)]
        self._guard = subprocess.Popen(
            guard,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._await_ready()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            if self.is_ready():
                return
            time.sleep(0.005)
        self.end(signal.SIGKILL)
        raise StartFailed(self.log_path.read_text(errors="replace")[-2000:])

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, number: signal.Signals | None = None, timeout_s: float = 10.0) -> None:
        """Send the signal and wait for the end; what does not end is killed."""
        self._release_guard()
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number or self.stop_signal)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _release_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.communicate(b"done\n")


def answers_on(port: int, question: bytes, answer: bytes) -> bool:
    """Whether the server on a loopback port answers a question as it should."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
            connection.sendall(question)
            return connection.recv(64).startswith(answer)
    except OSError:
        return False
