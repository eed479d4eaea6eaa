"""Tokens counted offline: estimates for what a provider did not report, upper bounds for what a call may cost.

OpenAI's own vocabularies are here; other families are measured with OpenAI's newest and a factor. Where other
vocabularies are known to break text into more pieces (digits, runs of one character, other scripts) the bound adds to
that. Images and files count by kind and size, as `prompt_walk` says.
"""

import asyncio
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from src.domain.catalog.model import Model
from src.domain.completion.model import ChatRequest
from src.domain.completion.ports import TokenMeter
from src.integrations.llm.prompt_walk import Prompt, PromptWalk, body_of, for_anthropic, inputs_of, plain_prompt

BYTES_IN_THREAD = 200_000
"""From this size on a prompt is measured in a thread (some milliseconds of CPU, without the interpreter's lock)."""
VALUES_AT_ONCE = 10_000
"""How many values of a body are looked at before the rest is left to a thread (some milliseconds)."""
SLICE_CHARS = 32_000
"""Texts are encoded in slices, which bounds the memory; each slice adds at most a token to the count."""
BYTES_PER_TOKEN = 4
"""A rough measure for estimates without a vocabulary."""
DATA_FACTOR = 0.8
"""What providers write for a tool is shorter than JSON with spaces, which is what we measure."""

Encode = Callable[[str], list[int]]

# What begins with a character instead of a repetition is sought in half the time.
_RUN = re.compile(r"(..)\1\1{6,}|[^\w\s][^\w\s]{7,}|[^\S ] ?(?:[^\S ] ?){5,}", re.DOTALL)
"""What OpenAI's vocabularies join into few tokens and others do not: the same again and again, signs, empty lines."""
_DIGITS = b"0123456789"
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
GOOGLE = Family(bound_factor=1.5)
SMOLLM2 = Family(bound_factor=2.0, per_other_character=2.0)
OTHERS = Family(bound_factor=1.5, per_other_character=0.5)

_FAMILIES = (
    (re.compile(r"gpt-3\.5|gpt-35|gpt-4(-|$)|text-embedding-(3|ada)-"), OLDER_OPENAI),
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
        return self._text_estimate(text, family_of(model))

    async def prompt_bound(self, chat: ChatRequest, model: Model) -> int:
        return await self._measured(chat, model, self._bound)

    async def prompt_estimate(self, chat: ChatRequest, model: Model) -> int:
        return await self._measured(chat, model, self._estimate)

    async def _measured(self, chat: ChatRequest, model: Model, measure: Callable[[Prompt, Family], int]) -> int:
        """Small prompts at once, large ones in a thread."""
        family = family_of(model)
        if chat.embedding is not None and chat.is_plain:
            prompt = inputs_of(chat, chat.embedding, framed=not family.is_exact)
        elif chat.wire is None and chat.is_plain and chat.parameters.response_format is None:
            prompt = plain_prompt(chat)
        else:
            walk = PromptWalk(body_of(chat), model)
            if not walk.go_on(VALUES_AT_ONCE):
                await asyncio.to_thread(walk.go_on)
            prompt = walk.prompt()
        if family is ANTHROPIC:
            prompt = for_anthropic(prompt, chat)
        if prompt.chars > BYTES_IN_THREAD or family.vocabulary not in self._encoders:
            return await asyncio.to_thread(measure, prompt, family)
        return measure(prompt, family)

    def _bound(self, prompt: Prompt, family: Family) -> int:
        texts = (*prompt.contents, prompt.data, prompt.framing)
        return prompt.most_tokens + sum(self._text_bound(text, family) for text in texts)

    def _estimate(self, prompt: Prompt, family: Family) -> int:
        """Each of its terms has one in the bound that is no smaller."""
        data = math.ceil(self._text_estimate(prompt.data, family) * DATA_FACTOR)
        return prompt.likely_tokens + data + sum(self._text_estimate(text, family) for text in prompt.contents)

    def _text_estimate(self, text: str, family: Family) -> int:
        tokens = self._tokens(text, family.vocabulary, per_byte=1 / BYTES_PER_TOKEN)
        return min(len(text.encode(errors="replace")), math.ceil(tokens * family.estimate_factor))

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
    """Tokens by which other vocabularies exceed OpenAI's, which join three digits and long runs into one."""
    digits = len(encoded) - len(encoded.translate(None, _DIGITS))
    runs = sum(_run_surplus(match[0]) for match in _RUN.finditer(text))
    if text.isascii() or not family.per_other_character:
        return digits * 2 / 3 + runs
    others = len(text) - len(text.encode("ascii", errors="ignore"))
    emoji = len(text.encode("utf-16-le", errors="replace")) // 2 - len(text)  # those that take four bytes
    return digits * 2 / 3 + runs + others * family.per_other_character + emoji


def _run_surplus(run: str) -> float:
    return len(run) if run.isspace() and run.strip(" ") else len(run) / 2
