"""Questions by meaning: the nearest in force, in its scope only, within bounds."""

import math
from collections.abc import Sequence
from random import Random

import pytest

from src.integrations.semantic.index import MemoryIndex
from src.integrations.semantic.rows import ENTRY_OVERHEAD_BYTES

DIMENSIONS = 384


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def at(degrees: float) -> Sequence[float]:
    """A vector of length 1 in that direction."""
    return (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


def cosine(degrees: float) -> float:
    return math.cos(math.radians(degrees))


def filled(**directions: float) -> MemoryIndex:
    index = MemoryIndex()
    for key, degrees in directions.items():
        index.put("s", key, at(degrees), 60)
    return index


def test_the_nearest_is_found() -> None:
    index = filled(a=0, b=30, c=90)
    assert [index.nearest("s", at(degrees), 0.5) for degrees in (-10, 14, 16, 70)] == ["a", "a", "b", "c"]


def test_what_is_further_than_the_least_is_not() -> None:
    index = filled(a=0)
    assert index.nearest("s", at(10), cosine(10.1)) == "a"
    assert index.nearest("s", at(10), cosine(9.9)) is None
    assert index.nearest("s", at(180), 0.5) is None


def test_other_scopes_are_never_compared() -> None:
    index = filled(a=40)
    index.put("t", "b", at(0), 60)
    assert [index.nearest(scope, at(0), 0.5) for scope in ("s", "t", "u")] == ["a", "b", None]


def test_a_key_has_its_newest_vector() -> None:
    index = filled(a=0, b=180)
    index.put("s", "a", at(90), 60)
    assert (index.nearest("s", at(0), 0.5), index.nearest("s", at(90), 0.5), len(index)) == (None, "a", 2)


def test_what_has_ended_gives_way_to_the_next() -> None:
    clock = Clock()
    index = MemoryIndex(clock=clock)
    index.put("s", "a", at(0), 10)
    index.put("s", "b", at(30), 20)
    clock.now_s += 9.9
    assert index.nearest("s", at(0), 0.5) == "a"
    clock.now_s += 0.1
    assert index.nearest("s", at(0), 0.5) == "b"
    clock.now_s += 10
    assert index.nearest("s", at(0), 0.5) is None
    index.put("s", "a", at(0), 10)
    assert index.nearest("s", at(0), 0.5) == "a"


def test_what_is_forgotten_is_gone() -> None:
    index = filled(a=0, b=90)
    index.forget("s", "a")
    index.forget("s", "a")
    index.forget("t", "b")
    assert (index.nearest("s", at(0), 0.5), index.nearest("s", at(90), 0.5), len(index)) == (None, "b", 1)
    index.forget("s", "b")
    assert (index.nearest("s", at(90), 0.5), len(index), index.size_bytes) == (None, 0, 0)


def test_the_least_recently_used_of_all_scopes_goes_first() -> None:
    index = MemoryIndex(max_entries=3)
    for scope in "stu":
        index.put(scope, "a", at(0), 60)
    index.nearest("s", at(0), 0.5)
    index.put("v", "a", at(0), 60)
    assert [index.nearest(scope, at(0), 0.5) for scope in "stuv"] == ["a", None, "a", "a"]


@pytest.mark.parametrize("scopes", [1, 7, 1000])
def test_bytes_are_bounded_however_they_are_spread(scopes: int) -> None:
    random, most_bytes = Random(1), 200_000
    index = MemoryIndex(max_bytes=most_bytes)
    for number in range(1000):
        vector = [random.gauss(0, 1) for _ in range(DIMENSIONS)]
        index.put(f"scope {number % scopes}", str(number), vector, 60)
        assert index.size_bytes <= most_bytes
    row_bytes = 4 * DIMENSIONS + ENTRY_OVERHEAD_BYTES
    assert most_bytes // (4 * row_bytes) < len(index) <= most_bytes // row_bytes


def test_it_agrees_with_a_list_whatever_comes_and_goes() -> None:
    random, index, known = Random(2), MemoryIndex(), dict[str, float]()
    for _ in range(2000):
        key = str(random.randrange(40))
        if random.random() < 0.5:
            known[key] = random.uniform(0, 360)
            index.put("s", key, at(known[key]), 60)
        else:
            known.pop(key, None)
            index.forget("s", key)
        asked = random.uniform(0, 360)
        near = [name for name, degrees in known.items() if cosine(degrees - asked) >= 0.9]
        nearest = max(near, key=lambda name: cosine(known[name] - asked), default=None)
        assert index.nearest("s", at(asked), 0.9) == nearest
    assert len(index) == len(known)
