"""Tokens counted offline: estimates for what a provider did not report, upper bounds for what a call may cost.

OpenAI's own vocabularies are here; other families are measured with OpenAI's newest and a factor. Where other
vocabularies are known to break text into more pieces (digits, runs of one character, other scripts) the bound adds to
that. Images and files count by kind and size, as `_media_tokens` says.
"""

import asyncio
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from src.domain.catalog.model import Model
from src.domain.completion.model import ChatRequest
from src.domain.completion.ports import TokenMeter

TOKENS_PER_MESSAGE = 8
TOKENS_PER_REQUEST = 32
TOKENS_FOR_TOOLS = 600
"""What a provider writes around tools: a system prompt of up to some 530 tokens at Anthropic."""

IMAGE_TOKENS = 6_000
"""More than the largest picture costs at any provider but for one model."""
DEAR_IMAGE_TOKENS = 50_000
"""gpt-4o-mini counts each picture as up to 48,169 tokens."""
FILE_TOKENS = 6_000
"""The least a document, sound or video counts as."""
BYTES_PER_FILE_TOKEN = 2
"""A page of a PDF is some thousand tokens on some thousand bytes; sounds and videos are far thinner."""
DISTANT_FILE_TOKENS = 100_000
"""A file named by its address or id, whose size we cannot know."""

BYTES_IN_THREAD = 200_000
"""From this size on a prompt is measured in a thread (some milliseconds of CPU, without the interpreter's lock)."""
SLICE_CHARS = 32_000
"""Texts are encoded in slices, which bounds the memory; each slice adds at most a token to the count."""
BYTES_PER_TOKEN = 4
"""A rough measure for estimates without a vocabulary."""
MIN_RUN_CHARS = 16

Encode = Callable[[str], list[int]]

_RUN = re.compile(rf"(.)\1{{{MIN_RUN_CHARS - 1},}}", re.DOTALL)
_DIGITS = b"0123456789"
_MEDIA_TYPES = frozenset(
    {
        "image",
        "image_url",
        "input_image",
        "document",
        "file",
        "input_file",
        "input_audio",
        "audio",
        "video",
        "video_url",
    }
)
_MEDIA_KEYS = frozenset({"inline_data", "inlineData", "file_data", "fileData"})
_BINARY_KEYS = frozenset({"data", "file_data"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How the models of a family count, against a vocabulary of OpenAI's."""

    vocabulary: str = "o200k_base"
    estimate_factor: float = 1.0
    bound_factor: float = 1.0
    is_exact: bool = False
    per_other_character: float = 0.0
    """Tokens the bound adds for each character outside ASCII."""


OPENAI = Family(is_exact=True)
OLDER_OPENAI = Family(vocabulary="cl100k_base", is_exact=True)
ANTHROPIC = Family(estimate_factor=1.25, bound_factor=1.5, per_other_character=0.5)
GOOGLE = Family(bound_factor=1.3)
SMOLLM2 = Family(bound_factor=2.0, per_other_character=2.0)
OTHERS = Family(bound_factor=1.5, per_other_character=0.5)

_FAMILIES = (
    (re.compile(r"gpt-3\.5|gpt-35|gpt-4(-|$)"), OLDER_OPENAI),
    (re.compile(r"gpt-(4o|[4-9]\.\d|[5-9])|o[1-9](-|$)|chatgpt-|codex-"), OPENAI),
    (re.compile(r"claude"), ANTHROPIC),
    (re.compile(r"gemini|gemma"), GOOGLE),
    (re.compile(r"smollm", re.IGNORECASE), SMOLLM2),
)


class SplintrMeter(TokenMeter):
    """Vocabularies are loaded at first use (20 to 40 MiB each). Without splintr, bytes are counted."""

    def __init__(self) -> None:
        self._loading = threading.Lock()
        self._encoders: dict[str, Encode | None] = {}

    def count(self, text: str, model: Model) -> int:
        family = family_of(model)
        return math.ceil(self._tokens(text, family.vocabulary, per_byte=1 / BYTES_PER_TOKEN) * family.estimate_factor)

    async def prompt_bound(self, chat: ChatRequest, model: Model) -> int:
        prompt = _wire_prompt(chat.wire.body, model) if chat.wire is not None else _plain_prompt(chat)
        family = family_of(model)
        size = sum(map(len, prompt.texts))
        if size > BYTES_IN_THREAD or family.vocabulary not in self._encoders:
            return prompt.fixed_tokens + await asyncio.to_thread(self._bound, prompt.texts, family)
        return prompt.fixed_tokens + self._bound(prompt.texts, family)

    async def prompt_estimate(self, chat: ChatRequest, model: Model) -> int:
        prompt = _wire_prompt(chat.wire.body, model) if chat.wire is not None else _plain_prompt(chat)
        family = family_of(model)
        return prompt.fixed_tokens // 2 + await asyncio.to_thread(self._estimate, prompt.texts, family)

    def _estimate(self, texts: tuple[str, ...], family: Family) -> int:
        return sum(self._text_estimate(text, family) for text in texts)

    def _text_estimate(self, text: str, family: Family) -> int:
        tokens = self._tokens(text, family.vocabulary, per_byte=1 / BYTES_PER_TOKEN) * family.estimate_factor
        return min(len(text.encode(errors="replace")), math.ceil(tokens))

    def _bound(self, texts: tuple[str, ...], family: Family) -> int:
        return sum(self._text_bound(text, family) for text in texts)

    def _text_bound(self, text: str, family: Family) -> int:
        """Every vocabulary here works on bytes, so none makes more tokens than there are bytes."""
        encoded = text.encode(errors="replace")
        tokens = self._tokens(text, family.vocabulary, per_byte=1)
        if family.is_exact:
            return min(len(encoded), tokens)
        return min(len(encoded), math.ceil(tokens * family.bound_factor + _surplus(text, encoded, family)))

    def _tokens(self, text: str, vocabulary: str, *, per_byte: float) -> int:
        encode = self._encoder(vocabulary)
        if encode is None:
            return math.ceil(len(text.encode(errors="replace")) * per_byte)
        return sum(len(encode(piece)) for piece in _slices(text))

    def _encoder(self, vocabulary: str) -> Encode | None:
        if vocabulary not in self._encoders:
            with self._loading:
                if vocabulary not in self._encoders:
                    self._encoders[vocabulary] = _load(vocabulary)
        return self._encoders[vocabulary]


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What is to be measured: texts, and the tokens that do not depend on them."""

    texts: tuple[str, ...]
    fixed_tokens: int


@lru_cache(maxsize=1024)
def _family_named(upstream: str) -> Family:
    name = upstream.rpartition("/")[2].removeprefix("ft:")
    return next((family for pattern, family in _FAMILIES if pattern.match(name)), OTHERS)


def family_of(model: Model) -> Family:
    """By the upstream's name, of which prefixes like `anthropic/` and `ft:` are no part."""
    return _family_named(model.upstream)


def _load(vocabulary: str) -> Encode | None:
    try:
        import splintr

        encode: Encode = splintr.Tokenizer.from_pretrained(vocabulary).encode_ordinary
        encode("The first text compiles the patterns, which takes a moment.")
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, bytes will do
        log.warning("Tokens are counted by bytes, the vocabulary %s cannot be loaded: %s", vocabulary, error)
        return None
    return encode


def _slices(text: str) -> Iterator[str]:
    # Lone surrogates cannot be encoded; providers never see them either.
    whole = text if text.isascii() else text.encode(errors="replace").decode()
    for start in range(0, len(whole), SLICE_CHARS):
        yield whole[start : start + SLICE_CHARS]


def _surplus(text: str, encoded: bytes, family: Family) -> float:
    """Tokens by which other vocabularies exceed OpenAI's, which joins three digits and long runs into one."""
    digits = len(encoded) - len(encoded.translate(None, _DIGITS))
    runs = sum(len(match[0]) if match[1] == "\n" else len(match[0]) / 2 for match in _RUN.finditer(text))
    if text.isascii() or not family.per_other_character:
        return digits * 2 / 3 + runs
    others = len(text) - len(text.encode("ascii", errors="ignore"))
    emoji = len(text.encode("utf-16-le", errors="replace")) // 2 - len(text)  # those that take four bytes
    return digits * 2 / 3 + runs + others * family.per_other_character + emoji


def _plain_prompt(chat: ChatRequest) -> _Prompt:
    return _Prompt(
        texts=tuple(message.text for message in chat.messages),
        fixed_tokens=TOKENS_PER_REQUEST + TOKENS_PER_MESSAGE * len(chat.messages),
    )


def _wire_prompt(body: Mapping[str, Any], model: Model) -> _Prompt:
    """All strings of a body, keys and numbers included: any of them may reach the model."""
    fixed_tokens = TOKENS_PER_REQUEST + (TOKENS_FOR_TOOLS if body.get("tools") or body.get("functions") else 0)
    for name in ("messages", "contents", "input"):
        if isinstance(turns := body.get(name), list):
            fixed_tokens += TOKENS_PER_MESSAGE * len(turns)
    texts: list[str] = []
    # A pair: a value, and whether it is inside an image or file.
    waiting: list[tuple[Any, bool]] = [(body, False)]
    while waiting:
        value, in_media = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            if not in_media and _is_media(value):
                in_media = True
                fixed_tokens += _media_tokens(value, model)
            texts.extend(value)
            waiting.extend(
                (item, in_media) for key, item in value.items() if not (in_media and _is_binary(key, item, value))
            )
        elif isinstance(value, list):
            waiting.extend((item, in_media) for item in value)
        elif value is not None:
            texts.append(str(value))
    return _Prompt(texts=("\n".join(texts),), fixed_tokens=fixed_tokens)


def _is_media(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")
    return (isinstance(kind, str) and kind in _MEDIA_TYPES) or not _MEDIA_KEYS.isdisjoint(part)


def _is_binary(key: str, value: Any, owner: Mapping[str, Any]) -> bool:
    """Whether a string inside an image or file is its base64 data; a document's plain text is not."""
    if not isinstance(value, str):
        return False
    return value.startswith("data:") or (key in _BINARY_KEYS and owner.get("type") != "text")


def _media_tokens(part: Mapping[str, Any], model: Model) -> int:
    """An image counts as a constant, anything else by its size, or as a large constant where it is elsewhere."""
    sizes = [len(value) for value in _binaries(part)]
    if _is_image(part):
        return DEAR_IMAGE_TOKENS if "gpt-4o-mini" in model.upstream else IMAGE_TOKENS
    if not sizes:
        return min(DISTANT_FILE_TOKENS, model.context_window)
    file_bytes = sum(sizes) * 3 // 4
    return max(FILE_TOKENS, min(file_bytes // BYTES_PER_FILE_TOKEN, model.context_window))


def _is_image(part: Mapping[str, Any]) -> bool:
    if "image" in str(part.get("type", "")):
        return True
    held: Mapping[str, Any] = next((part[key] for key in _MEDIA_KEYS if isinstance(part.get(key), Mapping)), {})
    return str(held.get("mimeType") or held.get("mime_type") or "").startswith("image/")


def _binaries(part: Mapping[str, Any]) -> Iterator[str]:
    waiting: list[Any] = [part]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            for key, item in value.items():
                if _is_binary(key, item, value):
                    yield item
                else:
                    waiting.append(item)
        elif isinstance(value, list):
            waiting.extend(value)
