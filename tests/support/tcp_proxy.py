"""A TCP proxy that does to a connection what networks and dying servers do, switched while connections live.

    async with TcpProxy(upstream.url) as proxy:
        url = proxy.url                      # the same URL, through the proxy
        await proxy.turn(Hang())             # from now on nobody is told anything
        await proxy.turn(Fair())             # what was held back arrives

What clients send always arrives. What they are told is subject to the weather, and so is whether they may connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 65536
HOST = "127.0.0.1"
FLUSH_S = 0.5
"""How long a party may take to read the last it is told."""


@dataclass(frozen=True, slots=True)
class Fair:
    """Bytes pass."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """As if the server had been killed: live connections are reset, nobody listens."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Connections are accepted and kept open, and nothing is said."""


@dataclass(frozen=True, slots=True)
class Drip:
    """A few bytes at a time."""

    size: int = 1
    every_s: float = 0.02


@dataclass(frozen=True, slots=True)
class Reset:
    """RST, after so many bytes of each connection from now on."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """FIN, after so many bytes of each connection from now on."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Corrupt:
    """Every so many bytes one has all its bits turned over."""

    every: int = 1


Weather: TypeAlias = Fair | Refuse | Hang | Drip | Reset | Cut | Corrupt


class TcpProxy:
    """Stands before the server of a URL, on a port of its own that stays the same."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._port = 0
        self._weather: Weather = Fair()
        self._changed = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self.accepted = 0
        """Connections there have been."""
        self.asked_bytes = 0
        """What clients have sent, all of them."""

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_listening()
        for connection in self._connections:
            connection.abort()
        await asyncio.gather(*self._tasks)

    @property
    def url(self) -> str:
        """The target's URL with the proxy's address in it."""
        credentials, at, _ = self._target.netloc.rpartition("@")
        return urlunsplit(self._target._replace(netloc=f"{credentials}{at}{HOST}:{self._port}"))

    @property
    def weather(self) -> Weather:
        """What happens to bytes now."""
        return self._weather

    @property
    def open(self) -> int:
        """Connections that neither side has closed."""
        return len(self._connections)

    async def turn(self, weather: Weather) -> None:
        """Change the weather for live and new connections alike."""
        self._weather = weather
        if isinstance(weather, Refuse):
            self._stop_listening()
        elif self._listener is None:
            await self._listen()
        for connection in tuple(self._connections):
            connection.begin(weather)
        self._announce()

    async def wait_until_open(self, count: int, timeout_s: float = 5.0) -> None:
        """Until that many connections are open."""
        async with asyncio.timeout(timeout_s):
            while self.open != count:
                await self._changed.wait()

    async def wait_for_change(self) -> None:
        """Until the weather turns, or a connection comes or goes."""
        await self._changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, HOST, self._port, backlog=1024)
        self._port = self._listener.sockets[0].getsockname()[1]

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            target = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            _end(writer, Reset())
        else:
            await self._carry(_Connection(self, reader, writer, *target))
        finally:
            self._tasks.discard(task)

    async def _carry(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self._announce()
        connection.begin(self._weather)
        await connection.run()
        self._connections.discard(connection)
        self._announce()


class _Connection:
    """One client, one connection to the target."""

    def __init__(
        self,
        proxy: TcpProxy,
        client_reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        target_reader: asyncio.StreamReader,
        target: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client_reader = client_reader
        self._client = client
        self._target_reader = target_reader
        self._target = target
        self._told = 0
        """Bytes since the weather last turned."""

    def begin(self, weather: Weather) -> None:
        """The weather has turned."""
        self._told = 0
        match weather:
            case Reset(after=0) | Cut(after=0) | Refuse():
                _end(self._client, weather)

    def abort(self) -> None:
        """End it, whatever is still to be said."""
        self._client.transport.abort()
        self._target.transport.abort()

    async def run(self) -> None:
        """Until either side closes."""
        both = [asyncio.create_task(self._ask()), asyncio.create_task(self._answer())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            await asyncio.gather(_closed(self._client), _closed(self._target))

    async def _ask(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._client_reader.read(CHUNK_BYTES):
                self._proxy.asked_bytes += len(data)
                self._target.write(data)
                await self._target.drain()

    async def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._target_reader.read(CHUNK_BYTES):
                while data and not self._client.is_closing():
                    data = data[await self._tell(data) :]
            while isinstance(self._proxy.weather, Hang):
                await self._proxy.wait_for_change()

    async def _tell(self, data: bytes) -> int:
        """Pass some of the bytes on, or none; returns how many."""
        weather = self._proxy.weather
        match weather:
            case Hang() | Refuse():
                await self._proxy.wait_for_change()
                return 0
            case Drip(size=size, every_s=every_s):
                await self._write(data[:size])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every_s):
                        await self._proxy.wait_for_change()
                return size
            case Reset(after=after) | Cut(after=after) if self._told + len(data) >= after:
                left = after - self._told
                await self._write(data[:left])
                _end(self._client, weather)
                return left
            case Corrupt(every=every):
                await self._write(_corrupted(data, every, self._told))
            case _:
                await self._write(data)
        return len(data)

    async def _write(self, data: bytes) -> None:
        self._client.write(data)
        self._told += len(data)
        await self._client.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(FLUSH_S):
            await writer.wait_closed()
    except OSError:  # a TimeoutError is one
        writer.transport.abort()


def _corrupted(data: bytes, every: int, start: int) -> bytes:
    return bytes(byte ^ 0xFF if (start + at) % every == every - 1 else byte for at, byte in enumerate(data))


def _end(writer: asyncio.StreamWriter, weather: Weather) -> None:
    """Close a connection the hard way or, after a cut, the usual one."""
    transport: Any = writer.transport
    if isinstance(weather, Cut):
        transport.close()
        return
    linger_no_longer = struct.pack("ii", 1, 0)
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_longer)
    transport.abort()
