"""What a generateContent request asks for; every field may be written in camelCase or in snake_case."""

from __future__ import annotations

from typing import Any

from tests.support.upstream_plan import Asked, Wants, texts_in
from tests.support.upstream_reading import Json, as_tuple, data_named, either, last_turn, parts_of, result_text


def read_google(body: dict[str, Any], model: str, *, stream: bool) -> Asked:
    contents = body["contents"]
    system = either(body, "systemInstruction") or {}
    parts = [part for content in (system, *contents) for part in parts_of(content.get("parts"))]
    users = [c for c in contents if c.get("role", "user") == "user"]
    said = [u for u in users if any(either(part, "functionResponse") is None for part in parts_of(u.get("parts")))]
    config = either(body, "generationConfig") or {}
    return Asked(
        model=model,
        texts=tuple(text for part in parts for text in (*texts_in(part), *_results([part]))),
        last_user_text=" ".join(texts_in(said[-1].get("parts"))) if said else "",
        stream=stream,
        cap=either(config, "maxOutputTokens"),
        body=body,
        wants=_wants(body, config, contents, said),
    )


def _results(parts: list[Json]) -> list[str]:
    answers = [either(part, "functionResponse") for part in parts]
    return [result_text(answer.get("response") or {}) for answer in answers if answer is not None]


def _wants(body: Json, config: Json, contents: list[Json], users: list[Json]) -> Wants:
    declared = [one["name"] for tool in body.get("tools") or () for one in either(tool, "functionDeclarations") or ()]
    calling = either(either(body, "toolConfig") or {}, "functionCallingConfig") or {}
    mode = str(calling.get("mode") or "AUTO").upper()
    allowed = either(calling, "allowedFunctionNames")
    schema = next(filter(None, (either(config, name) for name in ("responseJsonSchema", "responseSchema"))), None)
    turn = last_turn(contents, lambda c: c.get("role") == "model")
    return Wants(
        tools=() if mode == "NONE" else tuple(n for n in declared if not allowed or n in allowed),
        forced=mode == "ANY",
        json=either(config, "responseMimeType") == "application/json",
        schema=schema,
        thinking=thinks(config),
        stops=as_tuple(either(config, "stopSequences")),
        results=tuple(_results([part for c in turn for part in parts_of(c.get("parts"))])),
        attachments=tuple(filter(None, map(_attachment, parts_of(users[-1].get("parts"))))) if users else (),
    )


def thinking_config(body: Json) -> Json:
    return either(either(body, "generationConfig") or {}, "thinkingConfig") or {}


def thinks(config: Json) -> bool:
    """A budget of 0 switches thinking off; a level, a budget or the wish to see thoughts switch it on."""
    thinking = either(config, "thinkingConfig") or {}
    budget = either(thinking, "thinkingBudget")
    level = str(either(thinking, "thinkingLevel") or "").upper()
    if budget == 0:
        return False
    return bool(budget or level or either(thinking, "includeThoughts"))


def _attachment(part: Json) -> str | None:
    blob, link = either(part, "inlineData"), either(part, "fileData")
    if blob is not None:
        media_type = either(blob, "mimeType") or ""
        return data_named(_kind(media_type), media_type, blob.get("data"))
    if link is not None:
        return f"{_kind(either(link, 'mimeType') or '')}: {either(link, 'fileUri')}"
    return None


def _kind(media_type: str) -> str:
    kind = media_type.partition("/")[0]
    return kind if kind in ("image", "audio") else "document"
