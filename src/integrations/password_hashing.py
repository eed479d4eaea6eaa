"""Argon2id for passwords, in threads of its own: a hash takes 64 MiB and a fifth of a second."""

import asyncio
import base64
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher as Argon2
from argon2.exceptions import InvalidHashError, VerificationError

from src.domain.identity.ports import PasswordHasher
from src.domain.identity.rules import MAX_PASSWORD_BYTES
from src.shared.errors import InvalidRequest, Unavailable

T = TypeVar("T")


class Argon2Passwords(PasswordHasher):
    """At most `threads` hashes at once and `most_waiting` behind them; more are refused with Unavailable."""

    def __init__(
        self,
        *,
        threads: int = 2,
        most_waiting: int = 64,
        time_cost: int = 3,
        memory_kib: int = 65536,
        parallelism: int = 4,
    ) -> None:
        self._argon2 = Argon2(time_cost=time_cost, memory_cost=memory_kib, parallelism=parallelism)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._most = threads + most_waiting
        self._under_way = 0
        self._nobody = _unmatched_hash(time_cost, memory_kib, parallelism)

    async def hash(self, password: str) -> str:
        """The PHC string. Raises InvalidRequest over 1024 bytes, Unavailable when too many wait."""
        raw = _bytes(password)
        if len(raw) > MAX_PASSWORD_BYTES:
            raise InvalidRequest(f"password may have at most {MAX_PASSWORD_BYTES} bytes.", param="password")
        return await self._in_thread(lambda: self._argon2.hash(raw))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is right. Takes as long for a missing hash. Raises Unavailable when too many wait."""
        raw = _bytes(password)
        if len(raw) > MAX_PASSWORD_BYTES:
            return False
        return await self._in_thread(lambda: self._matches(password_hash or self._nobody, raw))

    def close(self) -> None:
        """Give the threads back."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password_hash: str, raw: bytes) -> bool:
        try:
            return self._argon2.verify(password_hash, raw)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._under_way >= self._most:
            raise Unavailable("Too many logins at once; try again in a moment.")
        self._under_way += 1
        future = self._pool.submit(work)
        # Counted until the thread is done with it, not until the caller gives up.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: _on_loop(loop, self._done))
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._under_way -= 1


def _on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


def _unmatched_hash(time_cost: int, memory_kib: int, parallelism: int) -> str:
    """A well-formed hash of nothing: no password is known for it, and checking one costs the same."""
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32))
    return f"$argon2id$v=19$m={memory_kib},t={time_cost},p={parallelism}${salt}${digest}"
