"""Ending tasks that go on for ever."""

import asyncio
from typing import Any

AGAIN_S = 0.1


async def end_task(task: "asyncio.Task[Any] | None") -> None:
    """Cancel it until it has ended. Raises what it failed with.

    Once is not enough: `asyncio.wait_for` (and with it redis-py) loses a cancellation that comes as its work is done.
    """
    if task is None:
        return
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_S)
    if not task.cancelled():
        task.result()
