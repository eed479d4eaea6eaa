"""Google's generateContent, inwards."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from src.api.dialects.fields import MAX_TOKENS, flag_field, number_field, stops_field
from src.api.dialects.gemini.content import own_object, read_contents, read_system
from src.api.dialects.gemini.fields import Notes, camel, camel_fields, text_in, whole_field
from src.api.dialects.gemini.foreign import has_foreign, without_foreign
from src.api.dialects.gemini.tools import read_response_format, read_tool_choice, read_tools
from src.api.dialects.request import ParsedRequest
from src.domain.catalog.model import WireFormat
from src.domain.completion.model import ChatRequest, Parameters, WireBody
from src.domain.completion.tools import EFFORTS, Reasoning

MAX_CHOICES = 128
CONFIG = "generationConfig"

NAMES = {
    "temperature": f"{CONFIG}.temperature",
    "top_p": f"{CONFIG}.topP",
    "top_k": f"{CONFIG}.topK",
    "stop": f"{CONFIG}.stopSequences",
    "seed": f"{CONFIG}.seed",
    "presence_penalty": f"{CONFIG}.presencePenalty",
    "frequency_penalty": f"{CONFIG}.frequencyPenalty",
    "logprobs": f"{CONFIG}.responseLogprobs",
    "reasoning": f"{CONFIG}.thinkingConfig",
    "response_format": f"{CONFIG}.responseSchema",
    "tool_choice": "toolConfig",
    "thinking": "thought",
}
"""Our names of what a translation may leave out, in Google's words."""

_NOT_FORWARDED = frozenset({"x-goog-api-key", "x-goog-api-client", "x-goog-user-project"})
"""Credentials, who pays, and the version of the client, which says nothing to a model."""

_TRANSLATED = frozenset({"model", "contents", "systemInstruction", "tools", "toolConfig", CONFIG})
_TRANSLATED_CONFIG = frozenset(
    {
        "maxOutputTokens", "temperature", "topP", "topK", "stopSequences", "seed", "presencePenalty",
        "frequencyPenalty", "candidateCount", "responseMimeType", "responseSchema", "responseJsonSchema",
        "_responseJsonSchema", "responseLogprobs", "logprobs", "thinkingConfig", "responseModalities",
    }
)  # fmt: skip
_MEANT = frozenset({"responseFormat"})
"""Settings without which the answer would be no answer."""


def parse_generate_content(
    model: str, body: Mapping[str, Any], headers: Mapping[str, str], *, stream: bool = False
) -> ParsedRequest:
    """The body of a call to `model` in our words, with the original beside it. Raises InvalidRequest."""
    notes = Notes()
    fields = camel_fields(body, "The body")
    config = camel_fields(fields.get(CONFIG, {}), CONFIG)
    chat = ChatRequest(
        messages=(*read_system(fields.get("systemInstruction"), notes), *read_contents(fields, notes)),
        parameters=_parameters(config, notes),
        tools=read_tools(fields.get("tools"), notes),
        tool_choice=read_tool_choice(fields.get("toolConfig"), notes),
        stream=stream,
    )
    _note_the_rest(body, config, notes)
    foreign = has_foreign(chat.messages)
    wire = WireBody(
        format=WireFormat.GENERATE_CONTENT,
        body=without_foreign(body) if foreign else body,
        left_out=("thinking",) if foreign else (),
        headers=_forwarded(headers),
        untranslatable=tuple(notes.untranslatable),
        wants_usage=True,
    )
    return ParsedRequest(model=model, chat=replace(chat, wire=wire), untranslated=tuple(sorted(notes.untranslated)))


def parse_count_tokens(model: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> ParsedRequest:
    """The body of :countTokens, which holds contents, or a whole request with all that comes before them."""
    whole = camel_fields(body, "The body").get("generateContentRequest")
    inner = body if whole is None else own_object(whole, "generateContentRequest")
    parsed = parse_generate_content(model, inner, headers)
    assert parsed.chat.wire is not None  # noqa: S101 - it always has its original
    return replace(parsed, chat=replace(parsed.chat, wire=replace(parsed.chat.wire, body=body)))


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    lowered = ((name.lower(), value) for name, value in headers.items())
    return {name: value for name, value in lowered if name.startswith("x-goog-") and name not in _NOT_FORWARDED}


def _note_the_rest(body: Mapping[str, Any], config: Mapping[str, Any], notes: Notes) -> None:
    """Every field that is not read, by the name that the client gave it."""
    for name, value in body.items():
        if value is not None and camel(name) == "cachedContent":  # which is the beginning of the prompt
            notes.refuse(name)
        elif value is not None and camel(name) not in _TRANSLATED:
            notes.leave_out(name)
    for name in config:
        if name in _MEANT:
            notes.refuse(f"{CONFIG}.{name}")
        elif name not in _TRANSLATED_CONFIG:
            notes.leave_out(f"{CONFIG}.{name}")
    modalities = config.get("responseModalities") or []
    if not isinstance(modalities, list) or any(_is_more_than_text(each) for each in modalities):
        notes.refuse(f"{CONFIG}.responseModalities")


def _is_more_than_text(modality: Any) -> bool:
    return not isinstance(modality, str) or modality.upper() not in ("TEXT", "MODALITY_UNSPECIFIED")


def _parameters(config: Mapping[str, Any], notes: Notes) -> Parameters:
    named = {f"{CONFIG}.{name}": value for name, value in config.items()}

    def whole(name: str, least: int, most: int) -> int | None:
        return whole_field(named, f"{CONFIG}.{name}", least=least, most=most)

    def number(name: str, least: float, most: float) -> float | None:
        return number_field(named, f"{CONFIG}.{name}", least=least, most=most)

    alternatives = whole("logprobs", 0, 20)
    return Parameters(
        max_output_tokens=whole("maxOutputTokens", 1, MAX_TOKENS),
        temperature=number("temperature", 0, 2),
        top_p=number("topP", 0, 1),
        top_k=whole("topK", 0, 1_000_000),
        stop=stops_field(named, f"{CONFIG}.stopSequences"),
        seed=whole("seed", -(2**63), 2**63 - 1),
        presence_penalty=number("presencePenalty", -2, 2),
        frequency_penalty=number("frequencyPenalty", -2, 2),
        choices=whole("candidateCount", 1, MAX_CHOICES) or 1,
        logprobs=(alternatives or 0) if flag_field(named, f"{CONFIG}.responseLogprobs") else alternatives,
        reasoning=_reasoning(config.get("thinkingConfig"), notes),
        response_format=read_response_format(config, notes),
    )


def _reasoning(value: Any, notes: Notes) -> Reasoning | None:
    """A budget of -1 leaves it to the model."""
    if value is None:
        return None
    where = f"{CONFIG}.thinkingConfig"
    fields = camel_fields(value, where)
    named = {f"{where}.{name}": given for name, given in fields.items()}
    budget = whole_field(named, f"{where}.thinkingBudget", least=-1, most=MAX_TOKENS)
    level = (text_in(fields, "thinkingLevel", where) or "").lower()
    if level and level not in EFFORTS:
        if level != "thinking_level_unspecified":
            notes.leave_out(f"{where}.thinkingLevel")
        level = ""
    for unsaid in fields.keys() - {"thinkingBudget", "thinkingLevel", "includeThoughts"}:
        notes.leave_out(f"{where}.{unsaid}")
    shown = flag_field(named, f"{where}.includeThoughts")
    budget = None if budget == -1 else budget
    return (
        Reasoning(effort=level or None, budget_tokens=budget, shown=shown)
        if level or budget is not None or shown
        else None
    )
