"""What there is to measure in a prompt: its texts, and what counts whatever they say.

Of a body in a client's dialect every string counts, keys and numbers included: any of them may reach the model.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from json.encoder import encode_basestring
from typing import Any

from src.domain.catalog.model import Model
from src.domain.completion.content import Part, ToolCall, part_body
from src.domain.completion.model import ChatRequest, EmbeddingWish


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Tokens of what is no text. Files count by their bytes, between `file` and the model's window."""

    request: int
    message: int
    input: int
    tools: int
    image: int
    dear_image: int
    file: int
    bytes_per_file_token: int
    distant_file: int


MOST = Rates(
    request=32,
    message=8,
    input=8,
    # What a provider writes around tools: a system prompt of up to some 530 tokens at Anthropic.
    tools=600,
    # More than the largest picture costs at any provider but for one model: gpt-4o-mini counts up to 48,169.
    image=6_000,
    dear_image=50_000,
    file=6_000,
    # A page of a PDF is some thousand tokens on some thousand bytes; sounds and videos are far thinner.
    bytes_per_file_token=2,
    # One named by its address or id, whose size we cannot know.
    distant_file=100_000,
)
LIKELY = Rates(
    request=3,
    message=4,
    input=2,
    tools=50,
    image=1_000,
    dear_image=25_500,
    file=1_500,
    bytes_per_file_token=10,
    distant_file=10_000,
)
"""Nowhere above MOST."""

FORMAT_TOKENS = 600
"""What Anthropic writes around the schema of an answer, at most: it says that it does, and not how much."""

_MEDIA_TYPES = frozenset(
    {
        *("image", "image_url", "input_image", "document", "file", "input_file"),
        *("input_audio", "audio", "video", "video_url"),
    }
)
_MEDIA_KEYS = frozenset({"inline_data", "inlineData", "file_data", "fileData"})
_BINARY_KEYS = frozenset({"data", "file_data"})
_ADDRESS_KEYS = frozenset({"url", "image_url", "file_url", "video_url"})
_TURNS = ("messages", "contents", "input")
_DATA_KEYS = frozenset(
    {
        *("tools", "functions", "input", "arguments", "args", "response"),
        *("response_format", "output_config", "output_format", "json_schema", "generationConfig"),
    }
)
"""Lists and objects under these names are shown to the model as JSON."""
_FRAME_KEYS = frozenset(
    {
        *("role", "type", "content", "parts", "text", "source", "cache_control"),
        *("id", "name", "tool_call_id", "tool_use_id", "tool_calls", "function"),
        *("image_url", "url", "detail", "media_type", "data", *_DATA_KEYS),
    }
)
_LABELS = frozenset({"role", "type"})
_SETTINGS = frozenset(
    {
        *("model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "seed", "user", "store"),
        *("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs"),
        *("top_logprobs", "stop", "stop_sequences", "metadata", "service_tier", "thinking", "reasoning_effort"),
        *("parallel_tool_calls", "prompt_cache_key", "safety_identifier"),
    }
)
"""Fields of a body that no provider writes into the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is to be measured. `framing` is what may reach the model and probably does not, like names of fields.

    `data` is JSON shown to the model: tools, formats of answers, arguments of calls. The token counts are for what does
    not depend on any text.
    """

    contents: tuple[str, ...]
    data: str = ""
    framing: str = ""
    most_tokens: int
    likely_tokens: int

    @property
    def chars(self) -> int:
        """How much there is to encode."""
        return sum(map(len, self.contents)) + len(self.data) + len(self.framing)


def body_of(chat: ChatRequest) -> Mapping[str, Any]:
    """What there is to measure of a request that came in no client's format."""
    if chat.wire is not None:
        return chat.wire.body
    wanted = chat.parameters.response_format
    return {
        "messages": [
            {"role": message.role.value, "content": list(map(_shown, message.all_parts))} for message in chat.messages
        ],
        "tools": [{"name": tool.name, "description": tool.description, "schema": tool.schema} for tool in chat.tools],
        "json_schema": wanted and wanted.schema,
    }


def _shown(part: Part) -> Mapping[str, Any]:
    """A part as models of any format are told it."""
    return {name: value for name, value in part_body(part).items() if name != "particulars"}


def plain_prompt(chat: ChatRequest) -> Prompt:
    """Of a conversation in our own words, which is text alone."""
    turns = len(chat.messages)
    return Prompt(
        contents=tuple(message.text for message in chat.messages),
        most_tokens=MOST.request + MOST.message * turns,
        likely_tokens=LIKELY.request + LIKELY.message * turns,
    )


def inputs_of(chat: ChatRequest, wish: EmbeddingWish, *, framed: bool) -> Prompt:
    """Of which vectors are to be made: texts, and tokens that count for themselves. Some models frame each of them."""
    frames = len(chat.messages) if framed else 0
    return Prompt(
        contents=(*(message.text for message in chat.messages), *wish.titles),
        most_tokens=wish.tokens + MOST.input * frames,
        likely_tokens=wish.tokens + LIKELY.input * frames,
    )


def for_anthropic(prompt: Prompt, chat: ChatRequest) -> Prompt:
    """The same with what is written for Anthropic's models alone, which may all be read.

    Tools that were called and are offered no more are told all the same, and the form of an answer is explained.
    """
    parts = () if chat.tools else (part for message in chat.messages for part in message.parts)
    called = dict.fromkeys(part.name for part in parts if isinstance(part, ToolCall))
    schema = {"type": "object", "properties": {}}
    declared = [json.dumps({"name": name, "input_schema": schema}, ensure_ascii=False) for name in called]
    added = (MOST.tools if declared else 0) + (0 if chat.parameters.response_format is None else FORMAT_TOKENS)
    framing = "\n".join((prompt.framing, *declared))
    return replace(prompt, framing=framing, most_tokens=prompt.most_tokens + added)


class _Place(Enum):
    """Where in a body a value is. A piece is finished text between the values of some data."""

    CONTENT = auto()
    MEDIA = auto()
    FRAMING = auto()
    DATA = auto()
    PIECE = auto()


# Looking up a member of an Enum takes longer than most of what is done with a value.
_CONTENT, _MEDIA, _FRAMING, _DATA, _PIECE = _Place


class PromptWalk:
    """Goes through a client's body, a part at a time if need be: it may hold millions of values, at any depth."""

    def __init__(self, body: Mapping[str, Any], model: Model) -> None:
        self._model = model
        self._contents: list[str] = []
        self._data: list[str] = []
        self._framing: list[str] = []
        self._most_tokens = _body_tokens(body, MOST)
        self._likely_tokens = _body_tokens(body, LIKELY)
        self._waiting: list[tuple[Any, _Place]] = []
        for key, value in body.items():
            self._framing.append(key)
            self._waiting.append((value, _FRAMING if key in _SETTINGS else _place_of(key, value, _CONTENT)))

    def go_on(self, most_values: int | None = None) -> bool:
        """Look at that many values more, or at all there are. Whether none is left."""
        left = most_values
        while self._waiting and left != 0:
            value, place = self._waiting.pop()
            if place is _PIECE:
                self._data.append(value)
            elif place is _DATA:
                self._take_data(value)
            else:
                self._take(value, place)
            left = left and left - 1
        return not self._waiting

    def prompt(self) -> Prompt:
        """What was found."""
        return Prompt(
            contents=("\n".join(self._contents),),
            data="".join(self._data),
            framing="\n".join(self._framing),
            most_tokens=self._most_tokens,
            likely_tokens=self._likely_tokens,
        )

    def _take(self, value: Any, place: _Place) -> None:
        if isinstance(value, str):
            (self._framing if place is _FRAMING else self._contents).append(value)
        elif isinstance(value, dict):
            self._take_fields(value, place)
        elif isinstance(value, list):
            self._waiting.extend([(item, place) for item in value])
        else:
            is_framing = place is _FRAMING or value is None
            (self._framing if is_framing else self._contents).append(str(value))

    def _take_fields(self, fields: Mapping[str, Any], place: _Place) -> None:
        if place is _CONTENT and _is_media(fields):
            place = _MEDIA
            self._most_tokens += _media_tokens(fields, self._model, MOST)
            self._likely_tokens += _media_tokens(fields, self._model, LIKELY)
        for key, value in fields.items():
            is_framing = place is _FRAMING or key in _FRAME_KEYS
            (self._framing if is_framing else self._contents).append(key)
            if not (place is _MEDIA and _is_binary(key, value, fields)):
                self._waiting.append((value, _place_of(key, value, place)))

    def _take_data(self, value: Any) -> None:
        """As JSON in its wordiest usual form, with a comma after each value."""
        if isinstance(value, str):
            self._data.append(f"{encode_basestring(value)}, ")
        elif not value and isinstance(value, (dict, list)):
            self._data.append("{ }, ")  # many of them in a row would melt together
        elif isinstance(value, dict):
            self._data.append("{")
            self._waiting.append(("}, ", _PIECE))
            for key, item in reversed(value.items()):
                if isinstance(item, str):
                    self._waiting.append((f"{encode_basestring(key)}: {encode_basestring(item)}, ", _PIECE))
                else:
                    self._waiting.append((item, _DATA))
                    self._waiting.append((f"{encode_basestring(key)}: ", _PIECE))
        elif isinstance(value, list):
            self._data.append("[")
            self._waiting.append(("], ", _PIECE))
            self._waiting.extend([(item, _DATA) for item in reversed(value)])
        else:
            self._data.append(f"{json.dumps(value)}, ")


def _place_of(key: str, value: Any, owner: _Place) -> _Place:
    if owner is _FRAMING:
        return owner
    if isinstance(value, str):
        is_framing = key in _LABELS or (owner is _MEDIA and key in _ADDRESS_KEYS)
        return _FRAMING if is_framing else owner
    is_data = isinstance(value, dict) or (isinstance(value, list) and key != "input")
    return _DATA if key in _DATA_KEYS and is_data else owner


def _body_tokens(body: Mapping[str, Any], rates: Rates) -> int:
    turns = sum(len(body[name]) for name in _TURNS if isinstance(body.get(name), list))
    has_tools = body.get("tools") or body.get("functions")
    return rates.request + rates.message * turns + (rates.tools if has_tools else 0)


def _is_media(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")
    return (isinstance(kind, str) and kind in _MEDIA_TYPES) or not _MEDIA_KEYS.isdisjoint(part)


def _is_binary(key: str, value: Any, owner: Mapping[str, Any]) -> bool:
    """Whether a string inside an image or file is its base64 data; a document's plain text is not."""
    if not isinstance(value, str) or owner.get("type") == "text":
        return False
    return key in _BINARY_KEYS or (key in _ADDRESS_KEYS and value.startswith("data:"))


def _media_tokens(part: Mapping[str, Any], model: Model, rates: Rates) -> int:
    """An image counts as a constant, anything else by its size, or as a large constant where it is elsewhere.

    A document that is given as text or as parts counts as these and nothing more.
    """
    sizes = [len(value) for value in _binaries(part)]
    if _is_image(part):
        return rates.dear_image if "gpt-4o-mini" in model.upstream else rates.image
    source = part.get("source")
    if isinstance(source, dict) and source.get("type") in ("text", "content"):
        return 0
    if not sizes:
        return min(rates.distant_file, model.context_window)
    file_bytes = sum(sizes) * 3 // 4
    return max(rates.file, min(file_bytes // rates.bytes_per_file_token, model.context_window))


def _is_image(part: Mapping[str, Any]) -> bool:
    if "image" in str(part.get("type", "")):
        return True
    held = [found for key in _MEDIA_KEYS if isinstance(found := part.get(key), dict)]
    types = [str(each.get("mimeType") or each.get("mime_type")) for each in held]
    return bool(types) and all(each.startswith("image/") for each in types)


def _binaries(part: Mapping[str, Any]) -> Iterator[str]:
    waiting: list[Any] = [part]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key, item in value.items():
                if _is_binary(key, item, value):
                    yield item
                else:
                    waiting.append(item)
        elif isinstance(value, list):
            waiting.extend(value)
