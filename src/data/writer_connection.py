"""The transactions of the ledger's writer, one after the other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from src.data.driver import begin_steadily, execute, is_closed, is_postgres
from src.data.engine import is_sqlite, writing


class WriterConnection:
    """The writer's connection. On PostgreSQL it is kept: having SQLAlchemy fetch one, begin, commit and give it back is
    most of what a small batch costs. After any fault the next transaction gets a new one.

    SQLite's writers wait in one line, this one like all others: nothing is kept.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed with the end of the block, and undone when that is left with an error."""
        if is_sqlite(self._engine):
            async with writing(self._engine) as connection:
                yield connection
                await self.commit(connection)
            return
        connection = await self._connected()
        try:
            await begin_steadily(connection)
            yield connection
            await self.commit(connection)
        except BaseException:
            await self._give_up(connection)
            raise

    async def commit(self, connection: AsyncConnection) -> None:
        """Commit what is under way."""
        if is_postgres(connection):
            await execute(connection, "COMMIT")
        else:
            await connection.commit()

    async def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> AsyncConnection:
        if self._connection is not None and await is_closed(self._connection):
            await self._give_up(self._connection)
        if self._connection is None:
            connection = await self._engine.connect()
            # Transactions are ours to begin and end.
            self._connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        return self._connection

    async def _give_up(self, connection: AsyncConnection) -> None:
        self._connection = None
        await connection.invalidate()
        await connection.close()
