"""Models as Google lists them."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query

from src.domain.catalog.model import Catalog, Model

RESOURCES = "models/"
"""What the names of models begin with; those of tuned ones begin with tunedModels/."""

_TUNED = "tunedModels/"
_GENERATING = ["generateContent", "streamGenerateContent", "countTokens"]
_EMBEDDING = ["embedContent", "batchEmbedContents"]


def gemini_model(name: str, catalog: Catalog) -> dict[str, Any]:
    """A model; a chain can take what the smallest of its models can."""
    chain = catalog.chains.get(name)
    found = (catalog.usable(each) for each in (chain.models if chain else (name,)))
    models: list[Model] = [model for model in found if model is not None]
    base = models[0].upstream if len(models) == 1 else name
    embeds = all(model.capabilities.embeddings for model in models)
    return {
        "name": name if name.startswith(_TUNED) else RESOURCES + name,
        "baseModelId": base,
        "version": "001",
        "displayName": name,
        "description": f"A chain of {', '.join(chain.models)}." if chain else f"{name} of {models[0].provider}.",
        "inputTokenLimit": min(model.context_window for model in models),
        "outputTokenLimit": min(model.max_output for model in models),
        "supportedGenerationMethods": _EMBEDDING if embeds else _GENERATING,
        "maxTemperature": 2,
    }


@dataclass(frozen=True, slots=True)
class GooglePage:
    """Which part of a list; a page's token is the name that the page before it ended with."""

    size: int
    token: str

    def of(self, names: Sequence[str], catalog: Catalog) -> dict[str, Any]:
        """The page of a sorted list, and the token of the next one where there is one."""
        start = bisect_right(names, self.token) if self.token else 0
        shown = names[start : start + self.size]
        more = {"nextPageToken": shown[-1]} if start + self.size < len(names) else {}
        return {"models": [gemini_model(name, catalog) for name in shown], **more}


async def _google_page(
    page_size: Annotated[int, Query(alias="pageSize", ge=0, le=100_000)] = 0,
    page_token: Annotated[str, Query(alias="pageToken", max_length=200)] = "",
) -> GooglePage:
    """As Google has it: 50 where nothing is said, and at most 1000."""
    return GooglePage(min(page_size or 50, 1000), page_token)


GooglePageDep = Annotated[GooglePage, Depends(_google_page)]
