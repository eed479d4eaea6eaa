"""One question in every dialect, through its stock SDK, and the answer in no dialect's words."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
from google import genai
from google.genai import types as google_types

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4 not much of it"
PNG_DATA, PDF_DATA = base64.b64encode(PNG).decode(), base64.b64encode(PDF).decode()
PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
TOOLS = ("first", "second")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`choice` is `none`, `required` or a tool's name; `results` follow on calls of the first tool."""

    text: str
    tools: bool = False
    choice: str | None = None
    parallel: bool = True
    schema: Mapping[str, Any] | None = None
    png: bool = False
    pdf: bool = False
    thinks: bool = False
    stop: str | None = None
    cap: int = 2000
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    thinking: str
    ended: str
    usage: tuple[int, int, int, int]
    """Input, output, cached and reasoning tokens."""


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, [], {})}


async def ask_chat(client: openai.AsyncOpenAI, question: Question) -> Said:
    content: list[dict[str, Any]] = [{"type": "text", "text": question.text}]
    if question.png:
        content.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG_DATA}"}})
    if question.pdf:
        content.append({"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF_DATA}"}})
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if question.results:
        function = {"name": TOOLS[0], "arguments": "{}"}
        calls = [{"id": f"c{n}", "type": "function", "function": function} for n in range(len(question.results))]
        messages.append({"role": "assistant", "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": f"c{n}", "content": r} for n, r in enumerate(question.results)]
    choice = {"type": "function", "function": {"name": question.choice}}
    options = _given(
        tools=[{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in TOOLS]
        if question.tools
        else None,
        tool_choice=question.choice if question.choice in ("none", "required", None) else choice,
        parallel_tool_calls=None if question.parallel else False,
        response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": question.schema}}
        if question.schema
        else None,
        reasoning_effort="low" if question.thinks else None,
        stop=question.stop,
        max_completion_tokens=question.cap,
    )
    reply: Any = await client.chat.completions.create(model="gpt-4o", messages=messages, **options)  # type: ignore[arg-type]
    [choice_said] = reply.choices
    message, usage = choice_said.message, reply.usage
    return Said(
        text=message.content or "",
        calls=tuple((c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or ()),
        thinking=getattr(message, "reasoning_content", ""),
        ended={"stop": "end", "tool_calls": "calls", "length": "cap"}[choice_said.finish_reason],
        usage=(
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.prompt_tokens_details.cached_tokens,
            usage.completion_tokens_details.reasoning_tokens,
        ),
    )


async def ask_responses(client: openai.AsyncOpenAI, question: Question) -> Said:
    content: list[dict[str, Any]] = [{"type": "input_text", "text": question.text}]
    if question.png:
        content.append({"type": "input_image", "image_url": f"data:image/png;base64,{PNG_DATA}", "detail": "auto"})
    if question.pdf:
        content.append({"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF_DATA}"})
    items: list[dict[str, Any]] = [{"role": "user", "content": content}]
    results = list(enumerate(question.results))
    items += [{"type": "function_call", "call_id": f"c{n}", "name": TOOLS[0], "arguments": "{}"} for n, _ in results]
    items += [{"type": "function_call_output", "call_id": f"c{n}", "output": result} for n, result in results]
    choice = {"type": "function", "name": question.choice}
    form = {"type": "json_schema", "name": "it", "schema": question.schema}
    options = _given(
        tools=[{"type": "function", "name": name, "parameters": PARAMETERS} for name in TOOLS]
        if question.tools
        else None,
        tool_choice=question.choice if question.choice in ("none", "required", None) else choice,
        parallel_tool_calls=None if question.parallel else False,
        text={"format": form} if question.schema else None,
        reasoning={"effort": "low", "summary": "auto"} if question.thinks else None,
        max_output_tokens=question.cap,
    )
    reply: Any = await client.responses.create(model="gpt-4o", input=items, **options)  # type: ignore[arg-type]
    calls = [item for item in reply.output if item.type == "function_call"]
    thoughts = [part.text for item in reply.output if item.type == "reasoning" for part in item.summary]
    usage = reply.usage
    return Said(
        text=reply.output_text,
        calls=tuple((call.name, json.loads(call.arguments)) for call in calls),
        thinking="".join(thoughts),
        ended="cap" if reply.incomplete_details else "calls" if calls else "end",
        usage=(
            usage.input_tokens,
            usage.output_tokens,
            usage.input_tokens_details.cached_tokens,
            usage.output_tokens_details.reasoning_tokens,
        ),
    )


async def ask_anthropic(client: anthropic.AsyncAnthropic, question: Question) -> Said:
    content: list[dict[str, Any]] = [{"type": "text", "text": question.text}]
    if question.png:
        content.append(_anthropic_blob("image", "image/png", PNG_DATA))
    if question.pdf:
        content.append(_anthropic_blob("document", "application/pdf", PDF_DATA))
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if question.results:
        ids = [f"c{number}" for number in range(len(question.results))]
        calls = [{"type": "tool_use", "id": identity, "name": TOOLS[0], "input": {}} for identity in ids]
        pairs = zip(ids, question.results, strict=True)
        results = [{"type": "tool_result", "tool_use_id": identity, "content": r} for identity, r in pairs]
        messages += [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]
    kinds = {None: "auto", "none": "none", "required": "any"}
    choice = {"type": kinds.get(question.choice, "tool")}
    if choice["type"] == "tool":
        choice["name"] = str(question.choice)
    if not question.parallel:
        choice["disable_parallel_tool_use"] = True  # type: ignore[assignment]
    options = _given(
        tools=[{"name": name, "input_schema": PARAMETERS} for name in TOOLS] if question.tools else None,
        tool_choice=choice if question.tools else None,
        output_config={"format": {"type": "json_schema", "schema": question.schema}} if question.schema else None,
        thinking={"type": "adaptive"} if question.thinks else None,
        stop_sequences=[question.stop] if question.stop else None,
    )
    reply: Any = await client.messages.create(model="claude", max_tokens=question.cap, messages=messages, **options)  # type: ignore[arg-type]
    usage = reply.usage
    ends = {"end_turn": "end", "stop_sequence": "end", "tool_use": "calls", "max_tokens": "cap"}
    return Said(
        text="".join(block.text for block in reply.content if block.type == "text"),
        calls=tuple((block.name, block.input) for block in reply.content if block.type == "tool_use"),
        thinking="".join(block.thinking for block in reply.content if block.type == "thinking"),
        ended=ends[reply.stop_reason],
        usage=(
            usage.input_tokens + usage.cache_read_input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.output_tokens_details.thinking_tokens,
        ),
    )


def _anthropic_blob(kind: str, media_type: str, data: str) -> dict[str, Any]:
    return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}}


async def ask_google(client: genai.Client, question: Question) -> Said:
    parts = [google_types.Part(text=question.text)]
    if question.png:
        parts.append(google_types.Part.from_bytes(data=PNG, mime_type="image/png"))
    if question.pdf:
        parts.append(google_types.Part.from_bytes(data=PDF, mime_type="application/pdf"))
    contents: list[Any] = [google_types.Content(role="user", parts=parts)]
    if question.results:
        call = google_types.Part.from_function_call(name=TOOLS[0], args={})
        answers = [
            google_types.Part.from_function_response(name=TOOLS[0], response={"result": result})
            for result in question.results
        ]
        contents.append(google_types.Content(role="model", parts=[call] * len(answers)))
        contents.append(google_types.Content(role="user", parts=answers))
    modes = {None: "AUTO", "none": "NONE"}
    calling = _given(
        mode=modes.get(question.choice, "ANY"),
        allowed_function_names=[question.choice] if question.choice in TOOLS else None,
    )
    declared = [{"name": name, "parameters_json_schema": PARAMETERS} for name in TOOLS]
    config = _given(
        tools=[{"function_declarations": declared}] if question.tools else None,
        tool_config={"function_calling_config": calling} if question.tools else None,
        response_mime_type="application/json" if question.schema else None,
        response_json_schema=question.schema,
        thinking_config={"include_thoughts": True, "thinking_level": "LOW"} if question.thinks else None,
        stop_sequences=[question.stop] if question.stop else None,
        max_output_tokens=question.cap,
    )
    automatic = {"automatic_function_calling": {"disable": True}}
    options: Any = config | automatic
    reply: Any = await client.aio.models.generate_content(model="gemini", contents=contents, config=options)
    [candidate], usage = reply.candidates, reply.usage_metadata
    said = candidate.content.parts or []
    calls = tuple((call.name, call.args) for call in reply.function_calls or ())
    return Said(
        text="".join(part.text or "" for part in said if not part.thought),
        calls=calls,
        thinking="".join(part.text or "" for part in said if part.thought),
        ended="calls" if calls else {"STOP": "end", "MAX_TOKENS": "cap"}[candidate.finish_reason.value],
        usage=(
            usage.prompt_token_count,
            usage.candidates_token_count + (usage.thoughts_token_count or 0),
            usage.cached_content_token_count or 0,
            usage.thoughts_token_count or 0,
        ),
    )
