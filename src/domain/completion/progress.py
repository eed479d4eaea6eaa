"""What an answer has told so far, read piece by piece as it comes: rereading long answers costs the square of them."""

from collections.abc import Callable, Sequence

from src.domain.catalog.model import Usage
from src.domain.completion.deltas import PartDelta
from src.domain.completion.model import Delivered, Delta, WireChunk

COUNTED_CHARS = 1000
"""Text is counted in stretches of at least so many characters: counts are rounded, and deltas are often one token."""


class Progress:
    """Everything generated in a list of deltas that grows; each of them is read once."""

    def __init__(self, deltas: Sequence[Delta]) -> None:
        self._deltas = deltas
        self._read = 0
        self._texts: list[str] = []
        self._pieces: list[PartDelta] = []
        self._usage: Usage | None = None
        self._counted_texts = 0
        self._counted_tokens = 0

    def delivered(self) -> Delivered:
        """Everything the model wrote so far, read out of wire chunks too."""
        self._read_on()
        return Delivered("".join(self._texts), self._usage, tuple(self._pieces))

    def tokens(self, count: Callable[[str], int]) -> int:
        """About how many tokens that is; what was counted before is not counted again."""
        self._read_on()
        text = "".join(self._texts[self._counted_texts :])
        tokens = self._counted_tokens + count(text)
        if len(text) >= COUNTED_CHARS:
            self._counted_texts, self._counted_tokens = len(self._texts), tokens
        return tokens

    def _read_on(self) -> None:
        fresh = self._deltas[self._read :]
        if not fresh:
            return
        chunks = [delta for delta in fresh if isinstance(delta, WireChunk)]
        if chunks:
            told = chunks[0].read(b"".join(chunk.data for chunk in chunks))
            self._texts.append(told.text)
            self._pieces.extend(told.pieces)
            self._usage = _newest(self._usage, told.usage)
        else:
            self._texts.append("".join(delta.generated for delta in fresh if not isinstance(delta, WireChunk)))
        self._read += len(fresh)


def _newest(before: Usage | None, told: Usage | None) -> Usage | None:
    """Counts only ever grow, and later events may leave out what an earlier one has told."""
    if before is None or told is None:
        return told or before
    return Usage(
        input_tokens=max(before.input_tokens, told.input_tokens),
        output_tokens=max(before.output_tokens, told.output_tokens),
        cache_read_tokens=max(before.cache_read_tokens, told.cache_read_tokens),
        cache_write_tokens=max(before.cache_write_tokens, told.cache_write_tokens),
        reasoning_tokens=max(before.reasoning_tokens, told.reasoning_tokens),
    )
