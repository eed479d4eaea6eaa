"""What an answer has told so far: each piece is read once, and counted together with its neighbours."""

from src.domain.catalog.model import Usage
from src.domain.completion.deltas import TextDelta
from src.domain.completion.model import (
    Delivered,
    Delta,
    WireChunk,
)
from src.domain.completion.progress import COUNTED_CHARS, Progress


def count(text: str) -> int:
    return len(text.split())


def test_nothing_is_told_of_nothing() -> None:
    progress = Progress([])
    assert (progress.delivered(), progress.tokens(count)) == (Delivered(""), 0)


def test_texts_are_joined_as_they_come() -> None:
    deltas: list[Delta] = [TextDelta("one "), TextDelta("two ")]
    progress = Progress(deltas)
    assert progress.delivered() == Delivered("one two ")
    deltas.append(TextDelta("three"))
    assert (progress.delivered(), progress.delivered()) == (Delivered("one two three"), Delivered("one two three"))


def test_each_chunk_is_read_once() -> None:
    read: list[bytes] = []

    def words_in(data: bytes) -> Delivered:
        read.append(data)
        return Delivered(data.decode())

    deltas: list[Delta] = [WireChunk(b"one ", words_in), WireChunk(b"two ", words_in)]
    progress = Progress(deltas)
    assert progress.tokens(count) == 2
    deltas.append(WireChunk(b"three", words_in))
    assert (progress.tokens(count), progress.delivered().text, progress.tokens(count)) == (3, "one two three", 3)
    assert read == [b"one two ", b"three"]


def test_a_later_usage_does_not_forget_what_an_earlier_one_told() -> None:
    told = [
        Usage(input_tokens=50, output_tokens=1, cache_read_tokens=20, cache_write_tokens=10),
        None,
        Usage(input_tokens=20, output_tokens=7),
        None,
    ]
    deltas: list[Delta] = []
    progress = Progress(deltas)
    for usage in told:
        deltas.append(WireChunk(b"x", lambda data, usage=usage: Delivered("", usage)))  # type: ignore[misc]
        found = progress.delivered().usage
    assert found == Usage(input_tokens=50, output_tokens=7, cache_read_tokens=20, cache_write_tokens=10)


def test_a_word_in_many_pieces_counts_as_one() -> None:
    deltas: list[Delta] = []
    progress = Progress(deltas)
    for letter in "consequence":
        deltas.append(TextDelta(letter))
        assert progress.tokens(count) == 1


def test_what_was_counted_is_not_counted_again() -> None:
    deltas: list[Delta] = []
    progress = Progress(deltas)
    counted: list[int] = []

    def noting(text: str) -> int:
        counted.append(len(text))
        return count(text)

    for number in range(1000):
        deltas.append(TextDelta("word "))
        assert progress.tokens(noting) == number + 1
    assert max(counted) <= COUNTED_CHARS + len("word ")
