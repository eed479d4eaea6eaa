"""What a model of meaning promises, asked of the real one."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from threading import Event

import pytest
import structlog

from src.domain.catalog.model import CachePolicy
from src.integrations import semantic
from src.integrations.semantic import minilm, open_similar_questions
from src.integrations.semantic.minilm import MOST_WAITING, MiniLmEmbedder, is_installed
from tests.unit.support import make_model

needs_the_model = pytest.mark.skipif(not is_installed(), reason="the extra `semantic` is not installed")

PARAPHRASES = [
    ("How do I reset my password?", "How can I reset my password?"),
    ("What is the capital of France?", "What's the capital city of France?"),
    ("How long does shipping take?", "How many days does delivery take?"),
    ("Please explain photosynthesis.", "Can you explain how photosynthesis works?"),
]
WISHING = make_model(cache=CachePolicy(ttl_s=60, similarity=0.95))


@pytest.fixture
async def embedder() -> AsyncIterator[MiniLmEmbedder]:
    made = MiniLmEmbedder()
    yield made
    made.close()


def product(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


async def vectors(embedder: MiniLmEmbedder, *texts: str) -> list[Sequence[float]]:
    found = [await embedder.vector(text) for text in texts]
    return [each for each in found if each is not None]


async def cosine(embedder: MiniLmEmbedder, one: str, other: str) -> float:
    return product(*await vectors(embedder, one, other))


@needs_the_model
class TestMiniLm:
    async def test_vectors_have_length_1(self, embedder: MiniLmEmbedder) -> None:
        for vector in await vectors(embedder, "a", "How are you?", "word " * 200):
            assert product(vector, vector) == pytest.approx(1, abs=1e-5)

    async def test_the_same_text_has_the_same_vector_in_every_process(self, embedder: MiniLmEmbedder) -> None:
        other = MiniLmEmbedder()
        texts = [text for pair in PARAPHRASES for text in pair]
        assert await vectors(other, *reversed(texts)) == [*reversed(await vectors(embedder, *texts))]
        other.close()

    @pytest.mark.parametrize(("one", "other"), PARAPHRASES)
    async def test_what_means_the_same_is_nearer_than_what_does_not(
        self, one: str, other: str, embedder: MiniLmEmbedder
    ) -> None:
        strange = [text for pair in PARAPHRASES if one not in pair for text in pair]
        assert await cosine(embedder, one, other) > max([await cosine(embedder, one, each) for each in strange]) + 0.2

    async def test_words_that_change_the_meaning_hardly_move_it(self, embedder: MiniLmEmbedder) -> None:
        """Why signs are compared exactly, and why the documentation warns of the rest."""
        assert await cosine(embedder, "Is it safe to take this?", "Is it not safe to take this?") > 0.95
        assert await cosine(embedder, "Is Alice taller than Bob?", "Is Bob taller than Alice?") > 0.95

    async def test_a_text_that_it_cannot_read_to_its_end_has_none(self, embedder: MiniLmEmbedder) -> None:
        assert len(await vectors(embedder, "word " * 254)) == 1  # and a token at each end
        assert await vectors(embedder, "word " * 255, "a" + " " * 10_000) == []

    @pytest.mark.parametrize("text", ["a \N{GRINNING FACE}", "x" * 101, "half \ud83d"])
    async def test_nor_has_one_with_something_that_it_does_not_know(self, text: str, embedder: MiniLmEmbedder) -> None:
        with structlog.testing.capture_logs() as logs:
            assert await vectors(embedder, text) == []
        assert logs == []
        assert len(await vectors(embedder, "but others have")) == 1

    async def test_many_at_once_are_served_as_far_as_the_queue_goes(self, embedder: MiniLmEmbedder) -> None:
        asked = MOST_WAITING + 5
        found = await asyncio.gather(*(embedder.vector(f"number {each}") for each in range(asked)))
        assert [each is not None for each in found] == [True] * MOST_WAITING + [False] * 5
        assert len(await vectors(embedder, *(f"number {each}" for each in range(asked)))) == asked

    async def test_the_event_loop_goes_on_meanwhile(
        self, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = Event()
        monkeypatch.setattr(minilm, "load", lambda: lambda _: (1.0,) if gate.wait(10) else None)
        asking = asyncio.create_task(embedder.vector("a"))
        while not embedder._waiting:
            await asyncio.sleep(0)
        gate.set()  # nobody could, if the loop were waiting
        assert await asking == (1.0,)

    async def test_a_broken_model_is_told_once_and_done_without(
        self, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(minilm, "_folder", lambda package: tmp_path)
        with structlog.testing.capture_logs() as logs:
            assert await vectors(embedder, "a", "b", "c") == []
        assert [each["event"] for each in logs] == ["embedding_failed"]

    async def test_one_failure_is_no_reason_to_give_up(
        self, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers: Iterator[Sequence[float] | Exception] = iter([RuntimeError("no memory"), (1.0,)])

        def embed(_: str) -> Sequence[float]:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(minilm, "load", lambda: embed)
        assert await vectors(embedder, "a", "b") == [(1.0,)]

    async def test_models_may_ask_for_it(self) -> None:
        similar = open_similar_questions([WISHING])
        assert similar is not None
        similar.close()


class TestNotInstalled:
    @pytest.fixture(autouse=True)
    def _missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(semantic, "is_installed", lambda: False)

    def test_it_is_said_once_with_the_models_that_wish_it(self) -> None:
        with structlog.testing.capture_logs() as logs:
            assert open_similar_questions([make_model(), WISHING]) is None
        assert [(each["event"], each["models"]) for each in logs] == [("semantic_cache_not_installed", ["fast"])]

    def test_where_none_wishes_it_there_is_nothing_to_say(self) -> None:
        with structlog.testing.capture_logs() as logs:
            assert open_similar_questions([make_model(), make_model(cache=CachePolicy(ttl_s=60))]) is None
        assert logs == []
