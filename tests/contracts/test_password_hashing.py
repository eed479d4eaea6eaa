"""Passwords under argon2, off the event loop."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from src.integrations.password_hashing import Argon2Passwords
from src.shared.errors import InvalidRequest, Unavailable


@pytest.fixture
def passwords() -> Iterator[Argon2Passwords]:
    hasher = Argon2Passwords(threads=1, most_waiting=2, time_cost=1, memory_kib=8192, parallelism=1)
    yield hasher
    hasher.close()


async def test_the_right_password_is_told_from_a_wrong_one(passwords: Argon2Passwords) -> None:
    kept = await passwords.hash("correct horse")
    assert kept.startswith("$argon2id$")
    assert await passwords.verify(kept, "correct horse")
    assert not await passwords.verify(kept, "correct horsf")


async def test_nobody_matches_a_missing_or_broken_hash(passwords: Argon2Passwords) -> None:
    assert not await passwords.verify(None, "anything at all")
    assert not await passwords.verify("$argon2id$broken", "anything at all")


async def test_a_missing_hash_takes_as_long_as_a_wrong_password() -> None:
    hasher = Argon2Passwords(threads=1, time_cost=4, memory_kib=32768, parallelism=1)
    kept = await hasher.hash("correct horse")

    async def best_of_three_s(password_hash: str | None) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            await hasher.verify(password_hash, "wrong horse")
            times.append(time.perf_counter() - began)
        return min(times)

    wrong_s, missing_s = await best_of_three_s(kept), await best_of_three_s(None)
    hasher.close()
    assert missing_s > wrong_s / 3


async def test_overlong_passwords_are_refused(passwords: Argon2Passwords) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await passwords.hash("é" * 513)
    assert refused.value.param == "password"
    assert not await passwords.verify(None, "x" * 1025)


async def test_the_loop_ticks_while_passwords_are_hashed() -> None:
    hasher = Argon2Passwords(threads=1, time_cost=6, memory_kib=65536, parallelism=1)
    hashing = asyncio.create_task(hasher.hash("correct horse"))
    ticks = 0
    while not hashing.done():
        await asyncio.sleep(0.001)
        ticks += 1
    hasher.close()
    assert ticks > 5


async def test_a_crowd_is_turned_away_and_room_returns(passwords: Argon2Passwords) -> None:
    results = await asyncio.gather(
        *(passwords.verify(None, "correct horse") for _ in range(10)), return_exceptions=True
    )
    assert [result for result in results if result is False] == [False] * 3
    assert sum(isinstance(result, Unavailable) for result in results) == 7
    await asyncio.sleep(0.01)
    assert not await passwords.verify(None, "correct horse")
