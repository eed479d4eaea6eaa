"""The TCP proxy does to connections what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from tests.support.tcp_proxy import Corrupt, Cut, Drip, Fair, Hang, Refuse, Reset, TcpProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[..., Awaitable[Streams]]


@asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    serving: set[asyncio.Task[None] | None] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield f"echo://user:pass@127.0.0.1:{server.sockets[0].getsockname()[1]}/path"
    await asyncio.gather(*filter(None, serving), return_exceptions=True)


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[TcpProxy]:
    async with echo_server() as url, TcpProxy(url) as made:
        yield made


@pytest_asyncio.fixture
async def connect(proxy: TcpProxy) -> AsyncIterator[Connect]:
    """Connects to the proxy; closes at the end."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(to: TcpProxy = proxy) -> Streams:
        port = int(to.url.rpartition(":")[2].partition("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    yield connected
    for writer in writers:
        writer.close()


async def asked(streams: Streams, question: bytes, answer_bytes: int | None = None) -> bytes:
    reader, writer = streams
    writer.write(question)
    return await reader.readexactly(len(question) if answer_bytes is None else answer_bytes)


async def is_silent(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.1):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_in_fair_weather_bytes_pass(proxy: TcpProxy, connect: Connect) -> None:
    megabyte = b"0123456789abcdef" * 65536
    assert await asked(await connect(), megabyte) == megabyte
    assert (proxy.accepted, proxy.open, proxy.asked_bytes) == (1, 1, len(megabyte))


def test_a_url_keeps_all_but_its_address() -> None:
    assert TcpProxy("postgresql://me:secret@db:5432/x?y=1").url == "postgresql://me:secret@127.0.0.1:0/x?y=1"


async def test_a_client_that_leaves_is_noticed_in_any_weather(proxy: TcpProxy, connect: Connect) -> None:
    _, writer = await connect()
    await proxy.wait_until_open(1)
    await proxy.turn(Hang())
    writer.close()
    await proxy.wait_until_open(0)


async def test_nobody_listens_any_more_and_then_again(proxy: TcpProxy, connect: Connect) -> None:
    streams = await connect()
    await asked(streams, b"one")
    await proxy.turn(Refuse())
    with pytest.raises(ConnectionResetError):
        await streams[0].read()
    with pytest.raises(ConnectionRefusedError):
        await connect()
    await proxy.turn(Fair())
    assert await asked(await connect(), b"two") == b"two"


async def test_what_was_held_back_arrives_when_the_weather_clears(proxy: TcpProxy, connect: Connect) -> None:
    streams = await connect()
    await proxy.turn(Hang())
    late = await connect()
    for _, writer in (streams, late):
        writer.write(b"hello")
    assert await is_silent(streams[0])
    assert await is_silent(late[0])
    await proxy.turn(Fair())
    assert [await reader.readexactly(5) for reader, _ in (streams, late)] == [b"hello", b"hello"]


async def test_bytes_drip(proxy: TcpProxy, connect: Connect) -> None:
    await proxy.turn(Drip(size=2, every_s=0.01))
    reader, writer = await connect()
    writer.write(b"abcde")
    pieces = [await reader.read(100) for _ in range(3)]
    assert pieces == [b"ab", b"cd", b"e"]


@pytest.mark.parametrize("after", [0, 3])
async def test_connections_are_reset(proxy: TcpProxy, connect: Connect, after: int) -> None:
    streams = await connect()
    assert await asked(streams, b"before") == b"before"
    await proxy.turn(Reset(after))
    if after:
        streams[1].write(b"hello")
    with pytest.raises(ConnectionResetError):
        await streams[0].read()
    await proxy.wait_until_open(0)


@pytest.mark.parametrize("after", [0, 3])
async def test_connections_are_cut_after_what_was_let_through(proxy: TcpProxy, connect: Connect, after: int) -> None:
    streams = await connect()
    assert await asked(streams, b"before") == b"before"
    await proxy.turn(Cut(after))
    if after:
        streams[1].write(b"hello")
    assert await streams[0].read() == b"hello"[:after]
    late = await connect()
    late[1].write(b"hello")
    assert await late[0].read() == b"hello"[:after]


async def test_bytes_are_corrupted(proxy: TcpProxy, connect: Connect) -> None:
    await proxy.turn(Corrupt(every=3))
    assert await asked(await connect(), b"abcabc") == b"ab\x9cab\x9c"


async def test_a_target_that_is_not_there_resets(proxy: TcpProxy, connect: Connect) -> None:
    async with TcpProxy(proxy.url) as second:
        await proxy.turn(Refuse())
        reader, _ = await connect(second)
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_closing_the_proxy_closes_its_connections(connect: Connect) -> None:
    async with echo_server() as url:
        async with TcpProxy(url) as proxy:
            reader, _ = await connect(proxy)
            await proxy.wait_until_open(1)
        assert await reader.read() == b""
        assert proxy.open == 0
