"""What one upstream call costs this process in CPU: through the relay lane and through the stock openai SDK.

    python -m benchmarks.relay [--seconds 10]

Both talk to the same scripted provider, a process of its own whose CPU is not counted. The four cases take turns in
short rounds, so that whatever else the machine does falls on all of them alike.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from openai import AsyncOpenAI

from src.domain.catalog.model import Model, WireFormat
from src.domain.completion.model import ChatRequest, Finished, UpstreamRequest, WireBody
from src.integrations.llm.relay import Relay, Target

STREAM_MODEL = "streamed"
STREAM_EVENTS = 68
"""One with the role, the words, one with the finish reason, one with usage, and [DONE]."""
WORDS = STREAM_EVENTS - 4
QUESTION = "Say something about the sea."
WARM_UP_CALLS = 20
ECHO_WORDS = len(QUESTION.split()) + 1
ROUND_S = 0.25

Ask = Callable[[], Awaitable[int]]


@dataclass(slots=True)
class Case:
    """One way to ask. `ask` returns the output tokens it was told of, to prove that it read the usage."""

    name: str
    ask: Ask
    expected_tokens: int
    costs_ms: list[float] = field(default_factory=list)
    calls: int = 0

    async def warm_up(self) -> None:
        for _ in range(WARM_UP_CALLS):
            told = await self.ask()
            if told != self.expected_tokens:
                raise RuntimeError(f"{self.name}: {told} output tokens, not {self.expected_tokens}")

    async def round(self) -> None:
        """Ask one call after the other for a while; note the CPU per call."""
        calls = 0
        cpu_s, until_s = time.process_time(), time.monotonic() + ROUND_S
        while time.monotonic() < until_s:
            await self.ask()
            calls += 1
        self.costs_ms.append((time.process_time() - cpu_s) * 1000 / calls)
        self.calls += calls


def relay_cases(session: aiohttp.ClientSession, base_url: str) -> list[Case]:
    target = Target(
        format=WireFormat.CHAT_COMPLETIONS,
        url=f"{base_url}/chat/completions",
        headers={"authorization": "Bearer any"},
        cap_field="max_completion_tokens",
    )
    relay = Relay(session, target, connect_timeout_s=5, read_timeout_s=30)

    def request(model: str, *, stream: bool) -> UpstreamRequest:
        row = Model(name=model, provider="p", upstream=model, context_window=128_000, max_output=16_000)
        body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "stream": stream}
        wire = WireBody(format=WireFormat.CHAT_COMPLETIONS, body=body)
        return UpstreamRequest(model=row, chat=ChatRequest(messages=(), stream=stream, wire=wire), output_cap=1000)

    async def whole() -> int:
        return tokens_of((await relay.complete(request("whole", stream=False))).finished)

    async def stream() -> int:
        finished = [event async for event in relay.stream(request(STREAM_MODEL, stream=True))][-1]
        return tokens_of(finished) if isinstance(finished, Finished) else -1

    return [Case("relay, whole", whole, ECHO_WORDS), Case("relay, stream", stream, WORDS)]


def tokens_of(finished: Finished) -> int:
    return finished.usage.output_tokens if finished.usage else -1


def sdk_cases(client: AsyncOpenAI) -> list[Case]:
    async def whole() -> int:
        reply = await client.chat.completions.create(
            model="whole", messages=[{"role": "user", "content": QUESTION}], max_completion_tokens=1000
        )
        return reply.usage.completion_tokens if reply.usage else -1

    async def stream() -> int:
        told = -1
        chunks = await client.chat.completions.create(
            model=STREAM_MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            max_completion_tokens=1000,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in chunks:
            told = chunk.usage.completion_tokens if chunk.usage else told
        return told

    return [Case("openai SDK, whole", whole, ECHO_WORDS), Case("openai SDK, stream", stream, WORDS)]


async def measure(cases: list[Case], seconds: float) -> None:
    for case in cases:
        await case.warm_up()
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        for case in cases:
            await case.round()


def report(cases: list[Case]) -> None:
    print(f"CPU per call, median of rounds of {ROUND_S} s; a stream has {STREAM_EVENTS} events\n")
    for case in cases:
        median_ms = statistics.median(case.costs_ms)
        print(
            f"{case.name:20} {median_ms:7.3f} ms   (best {min(case.costs_ms):.3f}, worst {max(case.costs_ms):.3f}, "
            f"{case.calls} calls)"
        )
    relay, sdk = ([statistics.median(case.costs_ms) for case in part] for part in (cases[:2], cases[2:]))
    print(f"\nthe SDK takes {sdk[0] / relay[0]:.1f} times the relay's CPU for a whole answer, ", end="")
    print(f"{sdk[1] / relay[1]:.1f} times for a stream")


async def main(seconds: float) -> None:
    answer = {"name": "Answer", "model": STREAM_MODEL, "text": " ".join(f"word{n}" for n in range(WORDS))}
    upstream = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.upstream", "--behaviour", json.dumps(answer)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert upstream.stdout is not None
        base_url = json.loads(await asyncio.wait_for(upstream.stdout.readline(), 30))["openai"]
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as client,
        ):
            cases = relay_cases(session, base_url) + sdk_cases(client)
            await measure(cases, seconds)
    finally:
        upstream.terminate()
        await upstream.wait()
    report(cases)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(arguments.seconds))
    else:
        uvloop.run(main(arguments.seconds))
