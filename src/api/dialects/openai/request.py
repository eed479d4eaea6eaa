"""OpenAI chat completions, inwards."""

from collections.abc import Mapping
from typing import Any

from src.api.dialects.fields import (
    MAX_TOKENS,
    flag_field,
    integer_field,
    messages_field,
    model_field,
    number_field,
    sampling_fields,
    stops_field,
    text_field,
)
from src.api.dialects.openai.content import OWN, MessageReader
from src.api.dialects.openai.foreign import without_foreign
from src.api.dialects.openai.tools import Untranslated, choice_of, format_of, speaks_of_functions, tools_of
from src.api.dialects.request import ParsedRequest
from src.domain.completion.model import ChatRequest, Parameters, WireBody
from src.domain.completion.tools import EFFORTS, Reasoning

FORWARDED_HEADERS = ("openai-beta",)
"""Not the organization and the project: those choose among accounts of the operator's."""
NAMES = {"reasoning": "reasoning_effort", "thinking": "reasoning_content"}
"""The dialect's names of what a translation leaves out, where they are not ours."""

MAX_CHOICES = 128
MAX_LOGPROBS = 100

_TRANSLATED = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
        "top_k", "stop", "presence_penalty", "frequency_penalty", "seed", "n", "tools", "functions", "tool_choice",
        "function_call", "parallel_tool_calls", "response_format", "modalities", "audio", "logprobs", "top_logprobs",
        "reasoning_effort", "reasoning",
    }
)  # fmt: skip
_TELLS_NOTHING = frozenset({"user", "safety_identifier", "prompt_cache_key"})
"""Fields that are no matter of the model's."""
_HARMLESS: Mapping[str, tuple[Any, ...]] = {"store": (False,), "service_tier": ("auto", "default"), "logit_bias": ({},)}
"""Values that wish for nothing else than what is done anyway."""


def parse_chat_completion(body: Mapping[str, Any], headers: Mapping[str, str]) -> ParsedRequest:
    """The body of POST /v1/chat/completions in our words, with the original beside it. Raises InvalidRequest."""
    stream_options = body.get("stream_options")
    untranslated = _untranslated(body)
    reader = MessageReader(untranslated=untranslated)
    messages = reader.read(messages_field(body))
    _read_modalities(body, reader.untranslatable, untranslated)
    relayed, foreign = without_foreign(body)
    chat = ChatRequest(
        messages=messages,
        parameters=_parameters(body, untranslated),
        tools=tools_of(body, untranslated),
        tool_choice=choice_of(body, untranslated),
        stream=flag_field(body, "stream"),
        wire=WireBody(
            format=OWN,
            body=relayed,
            headers={name: headers[name] for name in FORWARDED_HEADERS if name in headers},
            untranslatable=tuple(reader.untranslatable),
            left_out=foreign,
            wants_usage=isinstance(stream_options, dict) and stream_options.get("include_usage") is True,
        ),
    )
    return ParsedRequest(model=model_field(body), chat=chat, untranslated=tuple(sorted(untranslated)))


def _untranslated(body: Mapping[str, Any]) -> Untranslated:
    known = _TRANSLATED | _TELLS_NOTHING
    return {
        name: None
        for name, value in body.items()
        if name not in known and value is not None and value not in _HARMLESS.get(name, ())
    }


def _read_modalities(body: Mapping[str, Any], untranslatable: Untranslated, untranslated: Untranslated) -> None:
    wished = body.get("modalities")
    others = [each for each in wished if each != "text"] if isinstance(wished, list) else []
    if body.get("audio") is not None or "audio" in others:
        untranslatable["audio"] = None
    elif others:
        untranslated["modalities"] = None


def _parameters(body: Mapping[str, Any], untranslated: Untranslated) -> Parameters:
    most = integer_field(body, "max_completion_tokens", least=1, most=MAX_TOKENS)
    older = integer_field(body, "max_tokens", least=1, most=MAX_TOKENS)
    top_k = integer_field(body, "top_k", least=-1, most=1_000_000)
    alternatives = integer_field(body, "top_logprobs", least=0, most=MAX_LOGPROBS) or 0
    return Parameters(
        max_output_tokens=older if most is None else most,
        top_k=top_k if top_k is not None and top_k > 0 else None,
        stop=stops_field(body, "stop"),
        presence_penalty=number_field(body, "presence_penalty", least=-2, most=2),
        frequency_penalty=number_field(body, "frequency_penalty", least=-2, most=2),
        seed=integer_field(body, "seed", least=-(2**63), most=2**63 - 1),
        choices=integer_field(body, "n", least=1, most=MAX_CHOICES) or 1,
        logprobs=alternatives if flag_field(body, "logprobs") else None,
        parallel_tool_calls=_parallel(body),
        reasoning=_reasoning(body, untranslated),
        response_format=format_of(body, untranslated),
        **sampling_fields(body),
    )


def _parallel(body: Mapping[str, Any]) -> bool | None:
    """Answers of the time before tools have place for one call."""
    if speaks_of_functions(body):
        return False
    return None if body.get("parallel_tool_calls") is None else flag_field(body, "parallel_tool_calls")


def _reasoning(body: Mapping[str, Any], untranslated: Untranslated) -> Reasoning | None:
    """OpenAI's effort, or the object that routers have for it. Whoever wants thoughts gets to see them."""
    effort = text_field(body, "reasoning_effort", longest=100)
    if effort is not None:
        return _of_effort(effort, "reasoning_effort", untranslated)
    wished = body.get("reasoning")
    if not isinstance(wished, dict):
        if wished is not None:
            untranslated["reasoning"] = None
        return None
    shown = wished.get("exclude") is not True
    if isinstance(effort := wished.get("effort"), str):
        return _of_effort(effort, "reasoning", untranslated, shown=shown)
    where = "reasoning.max_tokens"
    budget = integer_field({where: wished.get("max_tokens")}, where, least=0, most=MAX_TOKENS)
    if budget is not None:
        return Reasoning(budget_tokens=budget, shown=shown)
    enabled = wished.get("enabled")
    return Reasoning(effort="medium" if enabled else "none", shown=shown) if isinstance(enabled, bool) else None


def _of_effort(effort: str, name: str, untranslated: Untranslated, *, shown: bool = True) -> Reasoning | None:
    if effort not in EFFORTS:
        untranslated[name] = None
        return None
    return Reasoning(effort=effort, shown=shown and effort != "none")
