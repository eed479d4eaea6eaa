"""CPU of the gateway per completion with everything on: API key, hold, relay, settlement, on SQLite or PostgreSQL.

The gateway and a scripted provider run as processes of their own on loopback; the gateway's CPU is read from /proc.
Run it with `python -m benchmarks.completions [calls]`; it is bounded by the number of calls.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.gateway import ADMIN_KEY, PROVIDER_KEY, GatewayProcess, gateway_environment, sqlite_url
from tests.support.postgres import PostgresServer

CALLS = 1500
CONCURRENCY = 32
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 20}


def cpu_s(pid: int) -> float:
    """User and system seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(url: str, body: dict[str, Any], calls: int, concurrency: int) -> list[float]:
    """Make the calls; the latency of each in seconds."""
    latencies: list[float] = []
    left = iter(range(calls))

    async def caller(session: aiohttp.ClientSession) -> None:
        for _ in left:
            started = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                await response.read()
                assert response.status == 200, await response.text()
            latencies.append(time.perf_counter() - started)

    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(caller(session) for _ in range(concurrency)))
    return latencies


async def measure(name: str, database_url: str, upstream: dict[str, str], calls: int) -> None:
    """One database: start the gateway, warm it, make the calls, print a line."""
    with tempfile.TemporaryDirectory() as directory:
        environment = gateway_environment(database_url or sqlite_url(Path(directory)))
        environment |= {"OPENAI_API_KEY": PROVIDER_KEY, "OPENAI_BASE_URL": upstream["openai"]}
        gateway = GatewayProcess(environment, Path(directory))
        gateway.command("migrate")
        await gateway.start()
        try:
            async with aiohttp.ClientSession(headers={"authorization": f"Bearer {ADMIN_KEY}"}) as session:
                async with session.get(f"{gateway.url}/api/v1/me") as response:
                    me = (await response.json())["user"]["id"]
                await session.post(f"{gateway.url}/api/v1/admin/users/{me}/tokens", json={"amount": 10**9})
            for kind, body in (("whole", BODY), ("stream", {**BODY, "stream": True})):
                await load(gateway.url, body, 100, CONCURRENCY)
                before, started = cpu_s(gateway.pid), time.perf_counter()
                latencies = sorted(await load(gateway.url, body, calls, CONCURRENCY))
                elapsed = time.perf_counter() - started
                spent_ms = (cpu_s(gateway.pid) - before) / calls * 1000
                p50, p99 = latencies[len(latencies) // 2] * 1000, latencies[int(len(latencies) * 0.99)] * 1000
                line = f"{name:<10} {kind:<7} {spent_ms:6.2f} ms CPU  {calls / elapsed:7.0f} calls/s"
                print(f"{line}  p50 {p50:.1f} ms  p99 {p99:.1f} ms")
        finally:
            await gateway.stop()


async def main(calls: int) -> None:
    """Both databases, one after the other."""
    command = [sys.executable, "-m", "tests.support.upstream", "--port", "0"]
    provider = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert provider.stdout is not None
        upstream = json.loads(provider.stdout.readline())
        await measure("sqlite", "", upstream, calls)
        server = await asyncio.to_thread(PostgresServer.start)
        try:
            async with server.database() as url:
                await measure("postgres", url, upstream, calls)
        finally:
            await asyncio.to_thread(server.stop)
    finally:
        provider.terminate()
        provider.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else CALLS))
