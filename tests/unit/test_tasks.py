"""Tasks that go on for ever are ended, though they lose a cancellation."""

import asyncio
import contextlib

import pytest

from src.shared import tasks
from src.shared.tasks import end_task


async def for_ever(losing: int) -> None:
    """Loses so many cancellations."""
    for _ in range(losing):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
    await asyncio.sleep(60)


@pytest.mark.parametrize("losing", [0, 1, 3])
async def test_a_task_is_cancelled_until_it_has_ended(losing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.001)
    task = asyncio.create_task(for_ever(losing))
    await asyncio.sleep(0)
    await end_task(task)
    assert task.cancelled()


async def test_what_has_ended_is_left_alone_and_what_failed_is_told() -> None:
    await end_task(None)
    done = asyncio.create_task(asyncio.sleep(0))
    await done
    await end_task(done)

    async def fails() -> None:
        raise KeyError("fault")

    failed = asyncio.create_task(fails())
    await asyncio.sleep(0)
    with pytest.raises(KeyError):
        await end_task(failed)
