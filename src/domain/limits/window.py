"""A sliding window that never lets more than its limit through in any minute, in constant memory.

Amounts are summed in slots of a second. A slot counts until a whole minute has passed since its end, so whatever was
taken counts for 60 to 61 seconds: never less, and at most one slot more. Times are integer milliseconds of any clock
that does not go back. The script for Redis does the same with the same constants.
"""

from collections.abc import Iterator

SLOT_MS = 1_000
SLOTS = 60
WINDOW_MS = SLOT_MS * SLOTS


class SlidingWindow:
    """What was taken from one bucket in the last minute."""

    __slots__ = ("_slots", "_total")

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._total = 0

    def used(self, now_ms: int) -> int:
        """What still counts."""
        oldest = now_ms // SLOT_MS - SLOTS
        for slot in list(self._gone(oldest)):
            self._total -= self._slots.pop(slot)
        return self._total

    def add(self, amount: int, now_ms: int) -> None:
        """Take an amount now."""
        slot = now_ms // SLOT_MS
        self._slots[slot] = self._slots.get(slot, 0) + amount
        self._total += amount

    def correct(self, change: int, slot: int, now_ms: int) -> None:
        """What was taken in a slot was less, which counts from then on, or more, which counts as taken now."""
        if change > 0:
            self.add(change, now_ms)
        elif change < 0 and slot in self._slots:
            less = min(-change, self._slots[slot])
            self._slots[slot] -= less
            self._total -= less

    def wait_ms(self, amount: int, limit: int, now_ms: int) -> int:
        """How long until the amount fits under the limit (which is no smaller), if nothing else is taken meanwhile."""
        left = self.used(now_ms)
        if left + amount <= limit:
            return 0
        for slot, taken in self._slots.items():
            left -= taken
            if left + amount <= limit:
                return counts_until_ms(slot) - now_ms
        return WINDOW_MS + SLOT_MS

    def reset_ms(self, now_ms: int) -> int:
        """How long until nothing counts any more, if nothing else is taken meanwhile."""
        if not self.used(now_ms):
            return 0
        return counts_until_ms(next(reversed(self._slots))) - now_ms

    def _gone(self, oldest: int) -> Iterator[int]:
        """Slots that do not count any more; they come in the order of time."""
        for slot in self._slots:
            if slot >= oldest:
                return
            yield slot


def counts_until_ms(slot: int) -> int:
    """When a slot stops counting."""
    return (slot + SLOTS + 1) * SLOT_MS
