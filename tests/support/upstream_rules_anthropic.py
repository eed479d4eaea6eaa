"""What Anthropic refuses of a messages request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tests.support.upstream_memory import Memory
from tests.support.upstream_plan import Refused
from tests.support.upstream_reading import Json, check_known, decoded, names, parts_of

NEWEST_VERSION = "2026-10-21"
_SAMPLING = ("temperature", "top_p", "top_k")
KNOWN_OF_COUNTING = names(
    "betas cache_control context_management mcp_servers messages model output_config output_format speed system "
    "thinking tool_choice tools user_profile_id workspace_id"
)
KNOWN = KNOWN_OF_COUNTING | names(
    "billing_policy compaction container diagnostics fallback_credit_token fallbacks inference_geo max_tokens "
    "metadata service_tier stop_sequences stream temperature thread top_k top_p"
)
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
LEAST_BUDGET = 1024
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_ID = re.compile(r"[a-zA-Z0-9_-]+")


def check_anthropic(body: Json, version: str | None, memory: Memory, *, counting: bool = False) -> None:
    """Raises `Refused` as Anthropic does."""
    if not version:
        raise Refused("anthropic-version: header is required")
    for name in ("model", "messages") if counting else ("model", "messages", "max_tokens"):
        if body.get(name) is None:
            raise Refused(f"{name}: Field required")
    _check_fields(body, version, memory, counting)
    _check_tools(body)
    _check_thinking(body)
    _check_texts(body.get("system"), "system")
    _check_roles(body["messages"])
    for number, message in enumerate(body["messages"]):
        _check_blocks(message, f"messages.{number}", memory)
    _check_tool_turns(body["messages"])


def _check_fields(body: Json, version: str, memory: Memory, counting: bool) -> None:
    known = KNOWN_OF_COUNTING if counting else KNOWN
    refused = known - set(_SAMPLING) if version == NEWEST_VERSION else known
    unknown = check_known(body, refused, lambda name: name not in _SAMPLING and memory.accepts(name))
    if unknown is not None:
        raise Refused(f"{unknown}: Extra inputs are not permitted")
    if not counting and (not isinstance(body["max_tokens"], int) or body["max_tokens"] < 0):
        raise Refused("max_tokens: Input should be a valid integer greater than or equal to 0")


def _check_tools(body: Json) -> None:
    tools = body.get("tools") or ()
    for number, tool in enumerate(tools):
        if tool.get("type") not in (None, "custom"):
            continue
        place = f"tools.{number}.custom"
        _check_name(tool.get("name"), f"{place}.name")
        if not isinstance(tool.get("input_schema"), dict):
            raise Refused(f"{place}.input_schema: Field required")
        if tool["input_schema"].get("type", "object") != "object":
            raise Refused(f"{place}.input_schema.type: Input should be 'object'")
    choice = body.get("tool_choice")
    if choice and not tools:
        raise Refused("tool_choice may only be specified while providing tools.")
    if choice and choice.get("type") not in ("auto", "any", "tool", "none"):
        raise Refused("tool_choice: Input tag does not match any of the expected tags: 'auto', 'any', 'none', 'tool'")
    if choice and choice["type"] == "tool" and choice.get("name") not in {tool.get("name") for tool in tools}:
        raise Refused(f"Tool '{choice.get('name')}' not found in provided tools")


def _check_name(name: Any, place: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refused(f"{place}: String should match pattern '^{_NAME.pattern}$'")


def _check_id(call_id: Any, place: str) -> None:
    if not isinstance(call_id, str) or not _ID.fullmatch(call_id):
        raise Refused(f"{place}: String should match pattern '^{_ID.pattern}$'")


def _check_thinking(body: Json) -> None:
    thinking = body.get("thinking") or {"type": "disabled"}
    kind, budget = thinking.get("type"), thinking.get("budget_tokens")
    if kind not in ("enabled", "disabled", "adaptive", "between_tools"):
        raise Refused(f"thinking: Input tag '{kind}' found using 'type' does not match any of the expected tags")
    if kind == "disabled":
        return
    if kind == "enabled":
        if not isinstance(budget, int) or budget < LEAST_BUDGET:
            raise Refused(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {LEAST_BUDGET}")
        if budget >= body.get("max_tokens", budget + 1):
            raise Refused("`max_tokens` must be greater than `thinking.budget_tokens`.")
    elif budget is not None:
        raise Refused(f"thinking.{kind}.budget_tokens: Extra inputs are not permitted")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise Refused("Thinking may not be enabled when tool_choice forces tool use.")
    if body.get("temperature", 1) != 1:
        raise Refused("`temperature` may only be set to 1 when thinking is enabled.")


def _check_roles(messages: Sequence[Json]) -> None:
    if not messages:
        raise Refused("messages: at least one message is required")
    for number, message in enumerate(messages):
        if message.get("role") not in ("user", "assistant", "system"):
            raise Refused(f"messages.{number}.role: Input should be 'user' or 'assistant'")
    if next((m["role"] for m in messages if m["role"] != "system"), None) != "user":
        raise Refused('messages: first message must use the "user" role')


def _check_texts(content: Any, place: str) -> None:
    for number, block in enumerate(parts_of(content)):
        if block.get("type") != "text" or (isinstance(content, str) and place == "system"):
            continue
        if not isinstance(block.get("text"), str):
            raise Refused(f"{place}.{number}.text: Input should be a valid string")
        if not block["text"].strip():
            raise Refused(f"{place}: text content blocks must be non-empty")


def _check_blocks(message: Json, place: str, memory: Memory) -> None:
    if message.get("content") in (None, "", []) and not (message["role"] == "system" and message.get("output_config")):
        raise Refused(f"{place}: all messages must have non-empty content")
    _check_texts(message.get("content"), place)
    for number, block in enumerate(parts_of(message.get("content"))):
        at = f"{place}.content.{number}"
        match block.get("type"):
            case "thinking" | "redacted_thinking":
                _check_thought(block, at, memory)
            case "image":
                _check_image(block.get("source") or {}, f"{at}.image.source")
            case "tool_use":
                _check_name(block.get("name"), f"{at}.tool_use.name")
                _check_id(block.get("id"), f"{at}.tool_use.id")
                if not isinstance(block.get("input"), dict):
                    raise Refused(f"{at}.tool_use.input: Input should be a valid dictionary")
            case "tool_result":
                _check_texts(block.get("content"), f"{at}.tool_result")
                _check_id(block.get("tool_use_id"), f"{at}.tool_result.tool_use_id")
            case None:
                raise Refused(f"{at}: Unable to extract tag using discriminator 'type'")


def _check_thought(block: Json, at: str, memory: Memory) -> None:
    if block["type"] == "redacted_thinking":
        if block.get("data") not in memory.redacted:
            raise Refused(f"{at}: Invalid `data` in `redacted_thinking` block")
    elif not memory.signed(block.get("signature"), str(block.get("thinking"))):
        raise Refused(f"{at}: Invalid `signature` in `thinking` block")


def _check_image(source: Json, at: str) -> None:
    match source.get("type"):
        case "base64":
            if source.get("media_type") not in IMAGE_TYPES:
                raise Refused(f"{at}.base64.media_type: Input should be {', '.join(map(repr, IMAGE_TYPES))}")
            decoded(source.get("data"))
        case "url":
            if not str(source.get("url")).startswith(("http://", "https://")):
                raise Refused(f"{at}.url.url: Only HTTPS URLs are supported.")
        case "file":
            return
        case other:
            raise Refused(f"{at}: Input tag '{other}' found using 'type' does not match any of the expected tags")


def _check_tool_turns(messages: Sequence[Json]) -> None:
    """Consecutive messages of one role are one turn."""
    turns: list[tuple[str, list[Json]]] = []
    for role, group in groupby((m for m in messages if m["role"] != "system"), key=lambda m: str(m["role"])):
        turns.append((role, [block for message in group for block in parts_of(message["content"])]))
    asked: list[str] = []
    known: set[str] = set()
    for number, (role, blocks) in enumerate(turns):
        answered = [str(b.get("tool_use_id")) for b in blocks if b.get("type") == "tool_result"]
        strangers = [one for one in answered if one not in asked or role != "user"]
        if strangers:
            raise Refused(
                f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(strangers)}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        _check_answered(asked, answered, blocks, number)
        asked = [str(block.get("id")) for block in blocks if block.get("type") == "tool_use"]
        if len(known | set(asked)) < len(known) + len(asked):
            raise Refused(f"messages.{number}: `tool_use` ids must be unique")
        known.update(asked)
    _check_answered(asked, [], [], len(turns))


def _check_answered(asked: list[str], answered: list[str], blocks: list[Json], number: int) -> None:
    silent = [one for one in asked if one not in answered]
    if silent:
        raise Refused(
            f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(silent)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
            "message."
        )
    kinds = [block.get("type") == "tool_result" for block in blocks]
    if len(answered) != len(set(answered)):
        raise Refused(f"messages.{number}: each tool_use must have a single result.")
    if kinds != sorted(kinds, reverse=True):
        raise Refused(f"messages.{number}: `tool_result` blocks must come first in the content of a user turn.")
