"""Anthropic messages, inwards."""

from collections.abc import Mapping
from typing import Any

from src.api.dialects.anthropic.content import Notes, messages_of, system_message
from src.api.dialects.anthropic.foreign import without_foreign
from src.api.dialects.anthropic.tools import choice_of, tools_of
from src.api.dialects.fields import (
    MAX_TOKENS,
    flag_field,
    integer_field,
    messages_field,
    model_field,
    sampling_fields,
    stops_field,
)
from src.api.dialects.request import ParsedRequest
from src.domain.catalog.model import WireFormat
from src.domain.completion.model import ChatRequest, Parameters, WireBody
from src.domain.completion.tools import EFFORTS, Reasoning, ResponseFormat
from src.shared.errors import InvalidRequest

NAMES = {
    "max_output_tokens": "max_tokens",
    "stop": "stop_sequences",
    "reasoning": "thinking",
    "response_format": "output_config.format",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}
"""Our names of parameters in the words of this dialect, where it has others."""

_NOT_FORWARDED = frozenset(
    {"anthropic-dangerous-direct-browser-access", "anthropic-organization-id", "anthropic-workspace-id"}
)
"""What is between the client's page and us, or chooses among accounts of the operator's."""

NO_THREADS = "thread_unsupported_request"
"""Clients that read this send the whole conversation instead."""

_LEFT_TO_CHAINS = "fallbacks"
"""Other models to answer, which are the gateway's to choose: keys are scoped and calls are paid for by model."""

_TRANSLATED = frozenset(
    {
        *("model", "messages", "system", "stream", "max_tokens", "temperature", "top_p", "top_k", "stop_sequences"),
        *("tools", "tool_choice", "thinking", "output_config", "output_format"),
    }
)


def parse_messages(body: Mapping[str, Any], headers: Mapping[str, str]) -> ParsedRequest:
    """The body of POST /v1/messages in our words, with the original beside it. Raises InvalidRequest."""
    most = integer_field(body, "max_tokens", least=0, most=MAX_TOKENS)
    if most is None:
        raise InvalidRequest("max_tokens is required.", param="max_tokens")
    return _parsed(body, headers, most)


def parse_count(body: Mapping[str, Any], headers: Mapping[str, str]) -> ParsedRequest:
    """The same for POST /v1/messages/count_tokens, where nothing is generated."""
    return _parsed(body, headers, None)


def _parsed(body: Mapping[str, Any], headers: Mapping[str, str], most: int | None) -> ParsedRequest:
    _refuse_threads(body)
    notes = Notes()
    notes.leave_out_rest(body, _TRANSLATED)
    model, messages = model_field(body), messages_field(body)
    system = system_message(body.get("system"), notes)
    said = messages_of(messages, notes)
    tools = tools_of(body, notes)
    choice, parallel = choice_of(body, tools, notes)
    if most == 0:
        notes.keep_out("max_tokens: 0")  # it fills the prompt's cache, which other formats cannot ask for
    parameters = _parameters(body, most, parallel, notes)
    told, left_out = _for_anthropic(body, notes)
    wire = WireBody(
        format=WireFormat.MESSAGES,
        body=told,
        left_out=left_out,
        headers=_forwarded(headers),
        untranslatable=tuple(notes.untranslatable),
        wants_usage=True,
    )
    chat = ChatRequest(
        messages=((system,) if system else ()) + said,
        parameters=parameters,
        tools=tools,
        tool_choice=choice,
        stream=flag_field(body, "stream"),
        wire=wire,
    )
    return ParsedRequest(model=model, chat=chat, untranslated=tuple(sorted(notes.untranslated)))


def _refuse_threads(body: Mapping[str, Any]) -> None:
    """Conversations kept at the provider would be one tenant's as much as another's, and of any length."""
    if body.get("thread") is not None:
        raise InvalidRequest(
            "Threads are not kept here: send the whole conversation, without thread.", param="thread", code=NO_THREADS
        )


def _for_anthropic(body: Mapping[str, Any], notes: Notes) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The body as it may be relayed: mostly as it is. And names of what it says no more."""
    left_out: tuple[str, ...] = ()
    if _LEFT_TO_CHAINS in body:
        body = {name: value for name, value in body.items() if name != _LEFT_TO_CHAINS}
        left_out = (_LEFT_TO_CHAINS,)
    if not notes.has_foreign:
        return body, left_out
    body, foreign = without_foreign(body)
    return body, left_out + foreign


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """One that comes in several lines, as lists of betas may, is one list."""
    found: dict[str, list[str]] = {}
    for name, value in headers.items():
        found.setdefault(name.lower(), []).append(value)
    return {
        name: ",".join(dict.fromkeys(values))
        for name, values in found.items()
        if name.startswith("anthropic-") and name not in _NOT_FORWARDED
    }


def _parameters(body: Mapping[str, Any], most: int | None, parallel: bool | None, notes: Notes) -> Parameters:
    return Parameters(
        max_output_tokens=most,
        top_k=integer_field(body, "top_k", least=0, most=1_000_000),
        stop=stops_field(body, "stop_sequences"),
        parallel_tool_calls=parallel,
        reasoning=_reasoning(body, notes),
        response_format=_response_format(body, notes),
        **sampling_fields(body),
    )


def _object_field(body: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"{where} must be an object.", param=where)
    return value or {}


def _reasoning(body: Mapping[str, Any], notes: Notes) -> Reasoning | None:
    """From `thinking`, and the effort of `output_config`, which is meant for the whole answer."""
    thinking = _object_field(body, "thinking", "thinking")
    effort = _effort(_object_field(body, "output_config", "output_config"), notes)
    shown = thinking.get("display") != "omitted"
    match thinking.get("type"):
        case "enabled":
            budget = integer_field(thinking, "budget_tokens", least=1, most=MAX_TOKENS)
            if budget is None:
                raise InvalidRequest("thinking.budget_tokens is required.", param="thinking.budget_tokens")
            return Reasoning(effort=effort, budget_tokens=budget, shown=shown)
        case "adaptive" | "between_tools":
            return Reasoning(effort=effort, shown=shown)
        case "disabled":
            if effort is not None:
                notes.leave_out("output_config.effort")
            return Reasoning(effort="none")
        case _:
            if body.get("thinking") is not None:
                notes.leave_out("thinking")
            return None if effort is None else Reasoning(effort=effort)


def _effort(config: Mapping[str, Any], notes: Notes) -> str | None:
    notes.leave_out_rest(config, ("effort", "format"), "output_config.")
    effort = config.get("effort")
    if effort is None:
        return None
    if not isinstance(effort, str):
        raise InvalidRequest("output_config.effort must be a string.", param="output_config.effort")
    if effort not in EFFORTS:
        notes.leave_out("output_config.effort")
        return None
    return effort


def _response_format(body: Mapping[str, Any], notes: Notes) -> ResponseFormat | None:
    """`output_config.format`, or `output_format`, as it was called before."""
    config = _object_field(body, "output_config", "output_config")
    where = "output_format" if config.get("format") is None else "output_config.format"
    wanted = _object_field(*((config, "format") if where == "output_config.format" else (body, "output_format")), where)
    if wanted.get("type") == "json_schema":
        if wanted.get("schema") is None:
            raise InvalidRequest(f"{where}.schema is required.", param=f"{where}.schema")
        return ResponseFormat(schema=_object_field(wanted, "schema", f"{where}.schema"))
    if wanted:
        notes.leave_out(where)
    return None
