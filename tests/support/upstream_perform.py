"""Carries one scripted behaviour out on one HTTP request."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.support.behaviours import (
    Answer,
    Behaviour,
    CutAfter,
    Drip,
    ErrorEvent,
    Fail,
    Garbage,
    Hang,
    Interject,
    LyingLength,
    MalformedChunk,
    Mind,
    ResetBeforeAnswer,
    answer_of,
)
from tests.support.recording import Recorded
from tests.support.upstream_mind import answer_by_mind
from tests.support.upstream_plan import Asked, Dialect, Plan, compact, make_plan

EVENT_STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"
LONG_S = 30.0
"""Longer than any test waits."""


@dataclass(slots=True, kw_only=True)
class Performance:
    request: web.Request
    recorded: Recorded
    dialect: Dialect
    asked: Asked
    stream_type: str = EVENT_STREAM
    on_progress: Callable[[], None] = lambda: None
    on_plan: Callable[[Plan], None] = lambda plan: None

    async def perform(self, behaviour: Behaviour) -> web.StreamResponse:
        match behaviour:
            case Mind(answer=like):
                return await self.perform(answer_by_mind(self.asked, like))
            case Fail():
                await asyncio.sleep(behaviour.delay_s)
                return await self._fail(behaviour)
            case Garbage(body=body, content_type=kind, status=status, headers=headers):
                return await self._send(status, body, kind or self._content_type, headers)
            case Drip() | LyingLength():
                return await self._write_raw(behaviour)
            case ResetBeforeAnswer():
                return self._reset()
            case Hang(seconds=seconds, after=after) if after is None or not self.asked.stream:
                await asyncio.sleep(seconds)
                return self._close()
            case _ if self.asked.stream:
                return await self._stream(behaviour)
            case _:
                return await self._whole(behaviour)

    def _plan(self, answer: Answer) -> Plan:
        plan = make_plan(self.asked, answer)
        self.on_plan(plan)
        return plan

    @property
    def _content_type(self) -> str:
        return self.stream_type if self.asked.stream else JSON

    async def _fail(self, fail: Fail) -> web.StreamResponse:
        body = fail.body
        if body is None:
            body = self.dialect.error(fail.status, fail.message, fail.code)
        payload = body if isinstance(body, bytes) else compact(body).encode()
        return await self._send(fail.status, payload, JSON, fail.headers)

    async def _whole(self, behaviour: Behaviour) -> web.StreamResponse:
        if isinstance(behaviour, ErrorEvent):
            return await self._fail(Fail(status=behaviour.status, message=behaviour.message))
        answer = answer_of(behaviour)
        plan = self._plan(answer)
        await asyncio.sleep(answer.delay_s)
        await _pass_gate(answer, None)
        payload = compact(self.dialect.whole(plan)).encode()
        half = payload[: len(payload) // 2]
        if isinstance(behaviour, CutAfter):
            return await self._cut_body(payload, half)
        if isinstance(behaviour, MalformedChunk):
            return await self._send(200, half, JSON)
        if isinstance(behaviour, Interject):
            return await self._interrupted_body(payload, behaviour)
        await _pass_gate(answer, answer.gate_after)
        return await self._send(200, payload, JSON, answer.headers)

    async def _interrupted_body(self, payload: bytes, interject: Interject) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": JSON})
        await response.prepare(self.request)
        await _interrupt(response, interject)
        await response.write(payload)
        return await self._end(response)

    async def _write_raw(self, behaviour: Drip | LyingLength) -> web.StreamResponse:
        """Past the server's own idea of a response. The connection ends with it."""
        plan = self._plan(behaviour.answer)
        frames = self.dialect.frames(plan)
        whole = compact(self.dialect.whole(plan)).encode()
        body = b"".join((*frames.head, *frames.content, *frames.tail)) if self.asked.stream else whole
        length = len(body) + (behaviour.more if isinstance(behaviour, LyingLength) else 0)
        headers = {"content-type": self._content_type, "content-length": str(length), **behaviour.answer.headers}
        head = "".join(("HTTP/1.1 200 OK\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items()), "\r\n"))
        match behaviour:
            case LyingLength():
                self._write_bytes(head.encode() + body)
                await asyncio.sleep(LONG_S)
            case Drip(size=size, every_s=every_s, head=drips_head):
                slow = head.encode() + body if drips_head else body
                self._write_bytes(b"" if drips_head else head.encode())
                for at in range(0, len(slow), size):
                    self._write_bytes(slow[at : at + size])
                    await asyncio.sleep(every_s)
        self.recorded.finished.set()
        return self._close()

    def _write_bytes(self, data: bytes) -> None:
        transport: Any = self.request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        transport.write(data)

    async def _cut_body(self, payload: bytes, half: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": JSON, "content-length": str(len(payload))})
        await response.prepare(self.request)
        await response.write(half)
        return self._close(response)

    async def _stream(self, behaviour: Behaviour) -> web.StreamResponse:
        answer = answer_of(behaviour)
        plan = self._plan(answer)
        await asyncio.sleep(answer.delay_s)
        await _pass_gate(answer, None)
        response = await self._open_stream(plan, answer)
        frames = self.dialect.frames(plan)
        stop_after = _stop_after(behaviour)
        for frame in frames.head:
            await response.write(frame)
        for frame in frames.content[:stop_after]:
            await self._write_chunk(response, frame, answer)
        if isinstance(behaviour, Interject):
            await _interrupt(response, behaviour)
            for frame in frames.content[stop_after:]:
                await self._write_chunk(response, frame, answer)
        elif stop_after is not None:
            return await self._misbehave(response, behaviour, plan, len(frames.head) + self.recorded.chunks_sent)
        for frame in frames.tail:
            await response.write(frame)
        return await self._end(response)

    async def _open_stream(self, plan: Plan, answer: Answer) -> web.StreamResponse:
        headers = {
            "content-type": self.stream_type,
            "cache-control": "no-cache",
            **self.dialect.headers(plan.number),
            **answer.headers,
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(self.request)
        return response

    async def _write_chunk(self, response: web.StreamResponse, frame: bytes, answer: Answer) -> None:
        if self.recorded.chunks_sent:
            await asyncio.sleep(answer.chunk_delay_s)
        if answer.gate_after is not None:
            await _pass_gate(answer, self.recorded.chunks_sent)
        await response.write(frame)
        self.recorded.chunks_sent += 1
        self.on_progress()

    async def _misbehave(
        self, response: web.StreamResponse, behaviour: Behaviour, plan: Plan, events_sent: int
    ) -> web.StreamResponse:
        match behaviour:
            case Hang(seconds=seconds):
                await asyncio.sleep(seconds)
            case MalformedChunk():
                await response.write(self.dialect.malformed_event())
                return await self._end(response)
            case ErrorEvent(status=status, message=message):
                await response.write(self.dialect.error_event(status, message, plan, events_sent))
                return await self._end(response)
        return self._close(response)

    async def _send(
        self, status: int, payload: bytes, content_type: str, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        every = {"content-type": content_type, **self.dialect.headers(0), **(headers or {})}
        response = web.Response(status=status, body=payload, headers=every)
        await response.prepare(self.request)
        return await self._end(response)

    async def _end(self, response: web.StreamResponse) -> web.StreamResponse:
        await response.write_eof()
        self.recorded.finished.set()
        return response

    def _close(self, response: web.StreamResponse | None = None) -> web.StreamResponse:
        """What was written arrives, then the connection ends without the end of the message."""
        self._drop(lambda transport: transport.close())
        return response or web.Response()

    def _reset(self) -> web.StreamResponse:
        def abort(transport: Any) -> None:
            linger_no_longer = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_longer)
            transport.abort()

        self._drop(abort)
        return web.Response()

    def _drop(self, how: Callable[[Any], None]) -> None:
        self.recorded.dropped = True
        if self.request.transport is not None:
            how(self.request.transport)


def _stop_after(behaviour: Behaviour) -> int | None:
    match behaviour:
        case CutAfter(chunks=after) | MalformedChunk(after=after) | ErrorEvent(after=after) | Interject(after=after):
            return after
        case Hang(after=after):
            return after
        case _:
            return None


async def _interrupt(response: web.StreamResponse, interject: Interject) -> None:
    await response.write(interject.opening)
    for _ in itertools.count() if interject.times is None else range(interject.times):
        await response.write(interject.piece)
        await asyncio.sleep(interject.every_s)


async def _pass_gate(answer: Answer, place: int | None) -> None:
    if answer.gate is not None and answer.gate_after == place:
        await answer.gate.wait()
