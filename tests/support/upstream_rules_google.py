"""What Google refuses of a generateContent, an embedContent or a batchEmbedContents request."""

from __future__ import annotations

import re
from typing import Any

from tests.support.upstream_memory import Memory
from tests.support.upstream_plan import Refused
from tests.support.upstream_reading import Json, check_known, decoded, either, names, parts_of, snake

BODY = names(
    "contents systemInstruction tools toolConfig safetySettings generationConfig cachedContent model labels "
    "serviceTier store generateContentRequest"
)
CONFIG = names(
    "stopSequences responseMimeType responseSchema responseJsonSchema responseModalities candidateCount "
    "maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty responseLogprobs logprobs "
    "enableEnhancedCivicAnswers speechConfig thinkingConfig imageConfig mediaResolution responseFormat "
    "translationConfig audioTranscriptionConfig"
)
PART = names(
    "text inlineData fileData functionCall functionResponse executableCode codeExecutionResult toolCall toolResponse "
    "thought thoughtSignature videoMetadata mediaResolution partMetadata"
)
SCHEMA = names(
    "additionalProperties defs ref anyOf default description enum example format items maxItems maxLength "
    "maxProperties maximum minItems minLength minProperties minimum nullable pattern properties propertyOrdering "
    "required title type"
)
_DATA = names(
    "text inlineData fileData functionCall functionResponse executableCode codeExecutionResult toolCall toolResponse"
)
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_SIGNING = re.compile(r"gemini-([3-9]|\d\d)")
MOST_STOPS = 5
NO_SIGNATURE = ("skip_thought_signature_validator", "context_engineering_is_the_way_to_go")
"""What Google accepts in the place of a signature that the client never had."""


def check_google(body: Json, model: str, memory: Memory) -> None:
    """Raises `Refused` as Google does."""
    contents = body.get("contents")
    if not contents:
        raise Refused("* GenerateContentRequest.contents: contents is not specified")
    _check_fields(body, BODY, "", memory)
    config = either(body, "generationConfig") or {}
    _check_fields(config, CONFIG, "generation_config", memory)
    if len(either(config, "stopSequences") or ()) > MOST_STOPS:
        raise Refused(f"* GenerateContentRequest.generation_config.stop_sequences: at most {MOST_STOPS} are allowed")
    _check_schema(either(config, "responseSchema"), "generation_config.response_schema", memory)
    _check_tools(body, memory)
    for number, content in enumerate(contents):
        _check_content(content, f"contents[{number}]", memory)
    _check_content(either(body, "systemInstruction") or {"parts": [{"text": ""}]}, "system_instruction", memory)
    _check_turns(contents)
    if _SIGNING.match(model):
        _check_signed(contents)


def check_embedding(request: Json, memory: Memory) -> None:
    """Raises `Refused` as Google does."""
    known = ("model", "content", "taskType", "title", "outputDimensionality", "autoTruncate", "embedContentConfig")
    _check_fields(request, frozenset(known), "", memory)
    if not request.get("content"):
        raise Refused("* EmbedContentRequest.content: content is not specified")
    _check_content(request["content"], "content", memory)


def _check_fields(value: Json, known: frozenset[str], place: str, memory: Memory) -> None:
    unknown = check_known(value, known | {snake(name) for name in known}, memory.accepts)
    if unknown is not None:
        where = f" at '{place}'" if place else ""
        raise Refused(f'Invalid JSON payload received. Unknown name "{unknown}"{where}: Cannot find field.')


def _check_content(content: Json, place: str, memory: Memory) -> None:
    _check_fields(content, frozenset(("role", "parts")), place, memory)
    if content.get("role", "user") not in ("user", "model") and place != "system_instruction":
        raise Refused("Please use a valid role: user, model.")
    if not content.get("parts"):
        raise Refused(f"* GenerateContentRequest.{place}.parts: contents.parts must not be empty.")
    for number, part in enumerate(parts_of(content["parts"])):
        at = f"{place}.parts[{number}]"
        _check_fields(part, PART, at, memory)
        data = [name for name in _DATA if either(part, name) is not None]
        if len(data) != 1 and not any(memory.accepts(name) for name in part):
            raise Refused(f"* GenerateContentRequest.{at}.data: required oneof field 'data' must have one field set")
        _check_call(either(part, "functionCall"), either(part, "thoughtSignature"), at, memory)
        blob = either(part, "inlineData")
        if blob is not None and not either(blob, "mimeType"):
            raise Refused(f"* GenerateContentRequest.{at}.inline_data.mime_type: mime_type must be set")


def _check_call(call: Json | None, signature: Any, at: str, memory: Memory) -> None:
    """A call that was given with a signature comes back with it; any signature is one that was given."""
    given = None if call is None else memory.call_signature(call.get("id"), call["name"], call.get("args") or {})
    if given and not signature:
        raise Refused(f"Function call is missing a thought_signature in functionCall parts. ({at})")
    if signature and signature not in NO_SIGNATURE:
        said = decoded(signature).decode(errors="replace")
        if said in NO_SIGNATURE:
            return
        if said not in memory.thoughts or (given and said != given):
            raise Refused(f"Thought signature is not valid. ({at})")


def _check_tools(body: Json, memory: Memory) -> None:
    for tool in body.get("tools") or ():
        for declared in either(tool, "functionDeclarations") or ():
            if not _NAME.fullmatch(str(declared.get("name"))):
                raise Refused("* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid function name.")
            known = names("name description parameters parametersJsonSchema response responseJsonSchema behavior")
            _check_fields(declared, known, "tools[0].function_declarations[0]", memory)
            _check_schema(declared.get("parameters"), "tools[0].function_declarations[0].parameters", memory)


def _check_schema(schema: Any, place: str, memory: Memory) -> None:
    """Google's own schemas know few words; `$ref`, `const`, `oneOf` and others are none of them."""
    if not isinstance(schema, dict):
        return
    _check_fields(schema, SCHEMA, place, memory)
    for name, value in (schema.get("properties") or {}).items():
        _check_schema(value, f"{place}.properties[{name}]", memory)
    _check_schema(schema.get("items"), f"{place}.items", memory)
    for value in either(schema, "anyOf") or ():
        _check_schema(value, f"{place}.any_of", memory)


def _check_turns(contents: list[Json]) -> None:
    """Consecutive contents of one role are one turn."""
    turns: list[tuple[str, list[Json]]] = []
    for content in contents:
        role, parts = content.get("role", "user"), parts_of(content["parts"])
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        else:
            turns.append((role, list(parts)))
    if turns[0][0] == "model" and _named(turns[0][1], "functionCall"):
        raise Refused("Please ensure that function call turn comes immediately after a user turn.")
    called: list[str] = []
    for role, parts in turns:
        answered = _named(parts, "functionResponse") if role == "user" else []
        if sorted(answered) != sorted(called):
            raise Refused(
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn, and that they have the same names."
            )
        called = _named(parts, "functionCall") if role == "model" else []
    if called:
        raise Refused("Please ensure that single turn requests end with a user role or the function response turn.")


def _check_signed(contents: list[Json]) -> None:
    """Newer models want the first call of each step of the current turn signed."""
    for number in range(len(contents) - 1, -1, -1):
        parts = parts_of(contents[number]["parts"])
        if contents[number].get("role") == "model":
            first = next((part for part in parts if either(part, "functionCall") is not None), None)
            if first is not None and not either(first, "thoughtSignature"):
                raise Refused(
                    f"Function call is missing a thought_signature in functionCall parts. (contents[{number}])"
                )
        elif not _named(parts, "functionResponse"):
            return


def _named(parts: list[Json], kind: str) -> list[str]:
    return [str(either(part, kind).get("name")) for part in parts if either(part, kind) is not None]
