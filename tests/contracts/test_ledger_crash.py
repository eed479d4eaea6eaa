"""The database server dies under the writer, again and again: nothing acknowledged is lost, nothing is booked twice."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from src.data.schema import migrate
from src.shared.errors import Unavailable
from tests.contracts.conftest import sql_backend
from tests.makers import make_closing, make_hold_request, make_usage_record
from tests.support.postgres import PostgresServer

CRASHES = 2
CALLERS = 32


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server to crash."""
    server = PostgresServer.start()
    if not server.owned:
        pytest.skip("a server given from outside is not ours to crash")
    yield server
    server.stop()


async def test_a_crashing_server_loses_and_doubles_nothing(server: PostgresServer) -> None:
    url = server.url(await server.create_database())
    await migrate(url)
    async with AsyncExitStack() as stack:
        backend = sql_backend(url, stack, [])
        user = await backend.rich_user(10**9)
        settled = 0
        is_over = False
        async with backend.ledger() as ledger:

            async def call() -> None:
                nonlocal settled
                while not is_over:
                    hold = await ledger.open(make_hold_request(user))
                    await ledger.close(make_closing(hold), (make_usage_record(hold),))
                    settled += 1

            callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
            for _ in range(CRASHES):
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.crash)
                await asyncio.to_thread(server.restart)
            await asyncio.sleep(0.5)
            is_over = True
            results = await asyncio.gather(*callers, return_exceptions=True)
            discrepancies = await backend.auditor(ledger).discrepancies()
        assert [result for result in results if not isinstance(result, Unavailable | None)] == []
        assert discrepancies == []
        account = await backend.account(user)
        async with backend.open_uow(user.tenant_id) as uow:
            used = await uow.accounts.tokens_used(user.id)
    assert settled > CALLERS
    if results == [None] * CALLERS:
        assert (account.spent, account.held, used) == (40 * settled, 0, 40 * settled)
    assert account.spent >= 40 * settled
