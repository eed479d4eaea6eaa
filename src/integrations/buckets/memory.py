"""Rate buckets in this process: exact where it is the only one, weaker where several share the callers."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from uuid import UUID

from src.domain.limits.model import PARALLEL_WAIT_MS, Bucket, Level, LimitName, Taking
from src.domain.limits.ports import Buckets
from src.domain.limits.window import SLOT_MS, SlidingWindow

MAX_WINDOWS = 20_000


def monotonic_ms() -> int:
    """Milliseconds of a clock that does not go back."""
    return time.monotonic_ns() // 1_000_000


class MemoryBuckets(Buckets):
    """Remembers at most `max_windows`: those that were not used for longest are forgotten first."""

    def __init__(self, *, max_windows: int = MAX_WINDOWS, clock_ms: Callable[[], int] = monotonic_ms) -> None:
        self._max_windows = max_windows
        self._clock_ms = clock_ms
        self._windows: OrderedDict[str, SlidingWindow] = OrderedDict()
        self._under_way: dict[str, set[UUID]] = {}

    def __len__(self) -> int:
        return len(self._windows) + len(self._under_way)

    async def take(self, call_id: UUID, buckets: Sequence[Bucket], tokens: int) -> Taking:
        now_ms = self._clock_ms()
        waits_ms = [self._wait_ms(bucket, tokens, now_ms) for bucket in buckets]
        if not any(waits_ms):
            for bucket in buckets:
                self._put(bucket, call_id, tokens, now_ms)
        levels = [self._level(bucket, wait_ms, now_ms) for bucket, wait_ms in zip(buckets, waits_ms, strict=True)]
        return Taking(call_id, levels, tokens, now_ms // SLOT_MS)

    async def settle(self, taking: Taking, *, requests: int, tokens: int) -> None:
        now_ms = self._clock_ms()
        for level in taking.levels:
            bucket = level.bucket
            if bucket.name is LimitName.PARALLEL:
                self._ended(bucket, taking.call_id)
            elif (window := self._windows.get(bucket.key)) is not None:
                used = tokens if bucket.name is LimitName.TOKENS else requests
                window.correct(used - bucket.amount(taking.tokens), taking.slot, now_ms)

    async def close(self) -> None:
        return None

    def _wait_ms(self, bucket: Bucket, tokens: int, now_ms: int) -> int:
        if bucket.name is LimitName.PARALLEL:
            return 0 if len(self._under_way.get(bucket.key, ())) < bucket.limit else PARALLEL_WAIT_MS
        window = self._windows.get(bucket.key)
        return 0 if window is None else window.wait_ms(bucket.amount(tokens), bucket.limit, now_ms)

    def _put(self, bucket: Bucket, call_id: UUID, tokens: int, now_ms: int) -> None:
        if bucket.name is LimitName.PARALLEL:
            self._under_way.setdefault(bucket.key, set()).add(call_id)
            return
        window = self._windows.get(bucket.key)
        if window is None:
            window = self._windows[bucket.key] = SlidingWindow()
            if len(self._windows) > self._max_windows:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(bucket.key)
        window.add(bucket.amount(tokens), now_ms)

    def _level(self, bucket: Bucket, wait_ms: int, now_ms: int) -> Level:
        if bucket.name is LimitName.PARALLEL:
            return Level(bucket, len(self._under_way.get(bucket.key, ())), 0.0, wait_ms / 1000)
        window = self._windows.get(bucket.key)
        if window is None:
            return Level(bucket, 0, 0.0, wait_ms / 1000)
        return Level(bucket, window.used(now_ms), window.reset_ms(now_ms) / 1000, wait_ms / 1000)

    def _ended(self, bucket: Bucket, call_id: UUID) -> None:
        calls = self._under_way.get(bucket.key, set())
        calls.discard(call_id)
        if not calls:
            self._under_way.pop(bucket.key, None)
