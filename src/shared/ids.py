"""UUIDv7 (RFC 9562 §5.7): ids that sort by the time they were made, so primary keys append instead of scattering."""

import os
import random
import time
from datetime import UTC, datetime
from uuid import UUID

_last: tuple[int, int] = (0, 0)

# Ids are no secrets; a generator of our own costs no system call. A forked process must not repeat its parent's.
_random = random.Random(os.urandom(32))
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))


def new_id() -> UUID:
    """A new UUIDv7. Within one process, ids of the same millisecond still rise: the 12 bits after the time count up."""
    global _last
    now_ms = time.time_ns() // 1_000_000
    last_ms, count = _last
    if now_ms > last_ms:
        count = _random.getrandbits(11)  # half of the range: room to count up
    else:
        now_ms, count = last_ms, count + 1
        if count > 0xFFF:
            now_ms, count = last_ms + 1, 0
    _last = (now_ms, count)
    return UUID(int=(now_ms << 80) | (0x7 << 76) | (count << 64) | (0b10 << 62) | _random.getrandbits(62))


def made_at(made: UUID) -> datetime:
    """When a UUIDv7 was made."""
    return datetime.fromtimestamp((made.int >> 80) / 1000, UTC)


def parse_id(text: str) -> UUID | None:
    """The UUID in `text`, or None where there is none."""
    try:
        return UUID(text) if len(text) in (32, 36) else None
    except ValueError:
        return None
