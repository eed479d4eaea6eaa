"""What a unit of work says when its database goes away under it, in the middle of a statement's transaction."""

import asyncio

import pytest

from src.data.engine import make_engine
from src.data.unit_of_work import unit_of_work_opener
from src.shared.errors import Unavailable
from tests.support.postgres import PostgresServer


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_statement_that_loses_its_database_is_told_as_unavailable(read_only: bool) -> None:
    server = PostgresServer.start_own()
    engine = make_engine(server.admin_url)

    async def lose_it() -> None:
        async with unit_of_work_opener(engine, read_only=read_only)(None) as uow:
            await asyncio.to_thread(server.crash)
            await uow.directory.key_by_hmac(b"any")

    try:
        with pytest.raises(Unavailable):
            await lose_it()
    finally:
        await engine.dispose()
        server.stop()
