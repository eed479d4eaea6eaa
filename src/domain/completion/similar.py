"""Questions that mean the same: what may differ between them, and where the answer of a similar one is kept."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from src.domain.catalog.model import CachePolicy, WireFormat
from src.domain.completion.cache_entry import cache_key
from src.domain.completion.model import Call, ChatRequest, ChatRole
from src.domain.completion.ports import Embedder, QuestionIndex

_NEGATION = re.compile(r"n['’]t$|^(?:not?|nor|never|none|nobody|nothing|neither|cannot|without|except|unless)$")  # noqa: RUF001
_SIGN = re.compile(r"\d+|[^\W\d_]+(?:['’][^\W\d_]+)*|[^\w\s.,;:?!'\"()’“”–—-]")  # noqa: RUF001


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The last words of a user, to be compared with those of the same scope: all else that is asked is the same there.

    `similarity` is the least cosine at which they mean the same.
    """

    scope: str
    text: str
    similarity: float


def question_of(call: Call, policy: CachePolicy) -> Question | None:
    """None where the policy is exact, for vectors, or where the user's words are not the last or not one text."""
    if policy.similarity is None or call.chat.embedding is not None:
        return None
    said = _reworded(call.chat, lambda text: " ".join(signs_of(text)))
    if said is None:
        return None
    text, chat = said
    return Question(scope=cache_key(replace(call, chat=chat), policy), text=text, similarity=policy.similarity)


def signs_of(text: str) -> list[str]:
    """What models of meaning overlook, in order: numbers, English negations, symbols. It must be the same exactly."""
    found = []
    for match in _SIGN.finditer(text.lower()):
        word = match.group()
        if not word[0].isalpha():
            found.append(word)
        elif _NEGATION.search(word):
            found.append("not")
    return found


class SimilarQuestions:
    """Where the answers of questions are kept, by what these mean. It goes without where they cannot be compared."""

    def __init__(self, embedder: Embedder, index: QuestionIndex) -> None:
        self._embedder = embedder
        self._index = index

    async def nearest(self, question: Question) -> str | None:
        """The key under which the answer of the most similar question is kept, if that is similar enough."""
        vector = await self._embedder.vector(question.text)
        return None if vector is None else self._index.nearest(question.scope, vector, question.similarity)

    async def learn(self, question: Question, key: str, ttl_s: float) -> None:
        """Its answer is kept under the key for so long."""
        vector = await self._embedder.vector(question.text)
        if vector is not None:
            self._index.put(question.scope, key, vector, ttl_s)

    def forget(self, question: Question, key: str) -> None:
        """What is under the key is not kept any more."""
        self._index.forget(question.scope, key)

    def close(self) -> None:
        """No question is compared any more."""
        self._embedder.close()


def _reworded(chat: ChatRequest, change: Callable[[str], str]) -> tuple[str, ChatRequest] | None:
    """The last words of the user, and the request with those changed."""
    if chat.wire is None:
        *before, last = chat.messages
        if last.role is not ChatRole.USER or last.parts:
            return None
        return last.text, replace(chat, messages=(*before, replace(last, text=change(last.text))))
    reworded = _reworded_contents if chat.wire.format is WireFormat.GENERATE_CONTENT else _reworded_body
    said = reworded(chat.wire.body, change)
    return said and (said[0], replace(chat, wire=replace(chat.wire, body=said[1])))


def _reworded_body(body: Mapping[str, Any], change: Callable[[str], str]) -> tuple[str, Mapping[str, Any]] | None:
    """The same of a body in a client's dialect, be its content a string or parts of which one is text."""
    *before, last = body.get("messages") or [{}]
    content = last.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [part for part in parts if part.get("type") == "text"]
    if last.get("role") != ChatRole.USER or len(texts) != 1:
        return None
    text: str = texts[0]["text"]
    changed = [{**part, "text": change(text)} if part is texts[0] else part for part in parts]
    return text, {**body, "messages": [*before, {**last, "content": changed}]}


def _reworded_contents(body: Mapping[str, Any], change: Callable[[str], str]) -> tuple[str, Mapping[str, Any]] | None:
    """The same of a body in Google's: one turn may stand alone, and says no role where the user's is meant."""
    contents = body.get("contents")
    *before, last = contents if isinstance(contents, list) and contents else [contents or {}]
    parts = last.get("parts") if isinstance(last, Mapping) else None
    if not isinstance(last, Mapping) or not isinstance(parts, list) or last.get("role", "user") != ChatRole.USER:
        return None
    texts = [part for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    if len(texts) != 1:
        return None
    changed = [{**part, "text": change(part["text"])} if part is texts[0] else part for part in parts]
    return texts[0]["text"], {**body, "contents": [*before, {**last, "parts": changed}]}
