"""Requests in Anthropic's words, for the stock SDK."""

import re
from dataclasses import dataclass
from typing import Any

from src.domain.completion.model import UpstreamRequest
from src.domain.completion.tools import ResponseFormat
from src.integrations.llm.anthropic.blocks import OWN
from src.integrations.llm.anthropic.schema import closed_schema
from src.integrations.llm.anthropic.thinking import Thought, thinking
from src.integrations.llm.anthropic.tools import tool_arguments, tools_left_out
from src.integrations.llm.anthropic.turns import turns_of
from src.integrations.llm.translation import left_out, refuse_choices, sayable, system_text

SAMPLING_VERSION = "2023-06-01"
"""The newest API version refuses temperature, top_p and top_k; this one passes them to the models that know them."""

JSON_ONLY = "Answer with one JSON object and nothing else."
"""There is no format for JSON of any form."""

_ONE_OF_BOTH = re.compile(r"claude-(opus-4-[1-9]|(sonnet|haiku)-4-[5-9])(?!\d)")
"""Models that refuse temperature and top_p together."""

LEAST_TOP_P = 0.95
"""While it thinks, a model takes no smaller one, and no other sampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The SDK's arguments, and the names of what they do not say."""

    arguments: dict[str, Any]
    dropped: tuple[str, ...]


def asked_of(request: UpstreamRequest) -> Asked:
    """Raises UpstreamFailed (unsupported) for what cannot be said and must not go missing."""
    request, items = sayable(request, OWN)
    refuse_choices(request)
    chat = request.chat
    turns = turns_of(chat.messages)
    cap = request.max_output_tokens
    max_tokens = request.model.max_output if cap is None else cap
    thought = thinking(request, max_tokens, turns)
    sampling = _sampling(request, thought)
    arguments: dict[str, Any] = {
        "model": request.model.upstream,
        "messages": turns.as_messages(),
        "max_tokens": max_tokens,
        **tool_arguments(chat, turns.called),
        **thought.arguments,
        **_output_config(chat.parameters.response_format, thought),
        **_sampling_arguments(sampling),
    }
    if system := _system(request):
        arguments["system"] = system
    stops = [stop for stop in chat.parameters.stop if stop.strip()]  # blank ones are refused
    if stops:
        arguments["stop_sequences"] = stops
    taken = {"parallel_tool_calls", "response_format", *sampling}
    taken |= {"stop"} if len(stops) == len(chat.parameters.stop) else set()
    taken |= {"reasoning"} if thought.is_wished else set()
    dropped = (*left_out(request, taken), *tools_left_out(chat), *turns.left_out, *items)
    return Asked(arguments=arguments, dropped=dropped)


def _system(request: UpstreamRequest) -> str:
    wanted = request.chat.parameters.response_format
    said = system_text(request.chat.messages)
    if wanted is None or wanted.schema is not None:
        return said
    return f"{said}\n\n{JSON_ONLY}" if said else JSON_ONLY


def _output_config(wanted: ResponseFormat | None, thought: Thought) -> dict[str, Any]:
    config: dict[str, Any] = {} if thought.effort is None else {"effort": thought.effort}
    if wanted is not None and wanted.schema is not None:
        config["format"] = {"type": "json_schema", "schema": closed_schema(wanted.schema)}
    return {"output_config": config} if config else {}


def _sampling(request: UpstreamRequest, thought: Thought) -> dict[str, Any]:
    """What is said of it."""
    if not request.model.capabilities.sampling:
        return {}
    wished = request.chat.parameters
    named = {"temperature": wished.temperature, "top_p": wished.top_p, "top_k": wished.top_k}
    given = {name: value for name, value in named.items() if value is not None}
    if "temperature" in given and _ONE_OF_BOTH.search(request.model.upstream):
        given.pop("top_p", None)
    if thought.is_on:
        return {name: value for name, value in given.items() if name == "top_p" and value >= LEAST_TOP_P}
    return given


def _sampling_arguments(sampling: dict[str, Any]) -> dict[str, Any]:
    if not sampling:
        return {}
    return {"extra_body": sampling, "extra_headers": {"anthropic-version": SAMPLING_VERSION}}
