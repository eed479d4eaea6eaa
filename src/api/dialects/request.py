"""What every dialect's body becomes."""

from dataclasses import dataclass

from src.domain.completion.model import ChatRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRequest:
    """A client's request in our words. `untranslated` names fields that only an upstream of the same dialect gets."""

    model: str
    chat: ChatRequest
    untranslated: tuple[str, ...] = ()
