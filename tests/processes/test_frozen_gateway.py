"""A gateway that stands still for longer than its holds live settles late, and still charges what was used."""

import asyncio
import signal
from pathlib import Path

import asyncpg
import pytest

from tests.processes.conftest import eventually
from tests.support.audit import asking, book_of, usage_rows
from tests.support.chaos import PLENTY, admit, replicas_of
from tests.support.load import DOORS
from tests.support.upstream import Answer, Upstream, Usage

SWEPT_WITHIN_S = 60
"""Frozen in a transaction, it keeps its locks until PostgreSQL ends its session, after 30 s."""
STREAMED = next(door for door in DOORS if door.name == "openai, streamed")
LESS_THAN_NOTED = Usage(input=1, output=2)
MORE_THAN_NOTED = Usage(input=9, output=40)


@pytest.mark.parametrize("usage", [LESS_THAN_NOTED, MORE_THAN_NOTED], ids=["less than noted", "more than noted"])
async def test_an_answer_settled_after_its_hold_expired_costs_what_it_used(
    usage: Usage, postgres_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(text="word " * 20, usage=usage, gate=gate, gate_after=10))
    async with replicas_of(2, postgres_url, upstream, tmp_path, GATEWAY_HOLD_GRACE_S=1) as replicas:
        frozen, other = replicas.gateways
        alice = await admit(other.url, "alice", {"tokens": PLENTY})
        noting = await asyncpg.connect(postgres_url)

        async def is_noted() -> bool:
            return bool(await noting.fetchval("SELECT count(*) FROM holds WHERE noted IS NOT NULL"))

        async def is_swept() -> bool:
            return bool((await book_of(other.url, alice)).standing["held"] == 0)

        body = STREAMED.body("Tell me.", "gpt-4o")
        async with asking(frozen.url, alice.secret) as http, http.post(STREAMED.path, json=body) as response:
            await eventually(is_noted, timeout_s=30)
            await noting.close()
            frozen.signal(signal.SIGSTOP)
            await eventually(is_swept, timeout_s=SWEPT_WITHIN_S)
            frozen.signal(signal.SIGCONT)
            gate.set()
            told = await STREAMED.read(response)
        assert told.tokens == usage.input + usage.output
        book = await book_of(other.url, alice)
        assert -sum(entry["amount"] for entry in book.charges) == told.tokens
        assert list((await usage_rows(postgres_url)).values()) == [[told.tokens]]
        assert not await asyncio.to_thread(replicas.verify)
