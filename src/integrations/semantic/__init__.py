"""Questions that mean the same: the model that knows, and the index in memory. Needs the extra `semantic`."""

from collections.abc import Iterable

import structlog

from src.domain.catalog.model import Model
from src.domain.completion.similar import SimilarQuestions
from src.integrations.semantic.index import MemoryIndex
from src.integrations.semantic.minilm import MiniLmEmbedder, is_installed

log = structlog.get_logger(__name__)


def open_similar_questions(models: Iterable[Model]) -> SimilarQuestions | None:
    """None where the extra is not installed, which is logged where one of the models wishes it."""
    if is_installed():
        return SimilarQuestions(MiniLmEmbedder(), MemoryIndex())
    wishing = [model.name for model in models if model.cache is not None and model.cache.similarity is not None]
    if wishing:
        log.warning("semantic_cache_not_installed", models=wishing, hint="only equal questions get the same answer")
    return None
