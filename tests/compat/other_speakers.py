"""Clients of Anthropic's and of Google's dialect."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from google.genai.types import GenerateContentResponse
from pydantic import TypeAdapter

from tests.compat.seen import ARGUMENTS, PNG, SCHEMA, Ask, Call, Seen

_EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


class MessagesSpeaker:
    name = "Anthropic messages"
    finishes = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use", "sequence": "stop_sequence"}
    wishes = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "somebody"},
        "service_tier": "auto",
        "context_management": {"edits": []},
        "cache_control": {"type": "ephemeral"},
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
    }

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/messages"

    def headers(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key, "anthropic-version": "2023-06-01", "anthropic-beta": "context-management-2025-06-27"}

    def body(self, model: str, ask: Ask) -> dict[str, Any]:
        content: Any = ask.text
        if ask.image:
            source = {"type": "base64", "media_type": "image/png", "data": PNG}
            content = [{"type": "image", "source": source}, {"type": "text", "text": ask.text}]
        body = {"model": model, "messages": [{"role": "user", "content": content}], **ask.extra}
        body |= {"max_tokens": ask.most_tokens, "stream": ask.stream}
        if ask.system:
            body["system"] = [{"type": "text", "text": ask.system}]
        if ask.tools:
            body["tools"] = [{"name": "look", "description": "Looks.", "input_schema": ARGUMENTS}]
        if ask.schema:
            body["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
        if ask.thinks:
            body["thinking"] = {"type": "enabled", "budget_tokens": 1024}
        if ask.stop:
            body["stop_sequences"] = [ask.stop]
        return body

    def with_results(self, body: Mapping[str, Any], seen: Seen, result: str) -> dict[str, Any]:
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": result} for call in seen.calls]
        said = [{"role": "assistant", "content": seen.turn}, {"role": "user", "content": results}]
        return {**body, "messages": [*body["messages"], *said]}

    def whole(self, answer: Mapping[str, Any]) -> Seen:
        Message.model_validate_json(json.dumps(answer), strict=True)
        blocks, usage = answer["content"], answer["usage"]
        read = usage.get("cache_read_input_tokens") or 0
        return Seen(
            text="".join(block["text"] for block in blocks if block["type"] == "text"),
            thoughts="".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
            calls=tuple(
                Call(id=block["id"], name=block["name"], arguments=block["input"])
                for block in blocks
                if block["type"] == "tool_use"
            ),
            finish=answer["stop_reason"],
            input_tokens=usage["input_tokens"] + read + (usage.get("cache_creation_input_tokens") or 0),
            output_tokens=usage["output_tokens"],
            cached_tokens=read,
            turn=blocks,
        )

    def streamed(self, events: Iterable[Mapping[str, Any]]) -> Seen:
        message: dict[str, Any] = {}
        pieces: dict[int, str] = {}
        for event in events:
            _EVENTS.validate_json(json.dumps(event), strict=True) if event["type"] != "ping" else None
            match event["type"]:
                case "message_start":
                    message = dict(event["message"])
                case "content_block_start":
                    assert event["index"] == len(message["content"])
                    message["content"].append(dict(event["content_block"]))
                case "content_block_delta":
                    self._add(message["content"][event["index"]], event["delta"], pieces, event["index"])
                case "message_delta":
                    message |= event["delta"]
                    message["usage"] = {**message["usage"], **event["usage"]}
        assert event["type"] == "message_stop"
        for index, text in pieces.items():
            message["content"][index]["input"] = json.loads(text or "{}")
        return self.whole(message)

    def _add(self, block: dict[str, Any], delta: Mapping[str, Any], pieces: dict[int, str], index: int) -> None:
        match delta["type"]:
            case "text_delta":
                block["text"] += delta["text"]
            case "thinking_delta":
                block["thinking"] += delta["thinking"]
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "input_json_delta":
                pieces[index] = pieces.get(index, "") + delta["partial_json"]

    def error(self, body: Mapping[str, Any]) -> str:
        assert (body["type"], set(body["error"]) >= {"type", "message"}) == ("error", True)
        return str(body["error"]["message"])


class GeminiSpeaker:
    name = "Gemini"
    finishes = {"stop": "STOP", "length": "MAX_TOKENS", "tools": "STOP", "sequence": "STOP"}
    wishes = {
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 5,
            "seed": 7,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.1,
            "stopSequences": ["END"],
            "responseLogprobs": True,
            "logprobs": 2,
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
        },
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "tools": [{"googleSearch": {}}],
        "labels": {"a": "b"},
    }

    def path(self, model: str, *, stream: bool) -> str:
        return f"/v1beta/models/{model}:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"

    def headers(self, key: str) -> Mapping[str, str]:
        return {"x-goog-api-key": key}

    def body(self, model: str, ask: Ask) -> dict[str, Any]:
        parts: list[Any] = [{"text": ask.text}]
        if ask.image:
            parts.append({"inlineData": {"mimeType": "image/png", "data": PNG}})
        extra = dict(ask.extra)
        config = {"maxOutputTokens": ask.most_tokens, **extra.pop("generationConfig", {})}
        body = {"contents": [{"role": "user", "parts": parts}], **extra, "generationConfig": config}
        if ask.system:
            body["systemInstruction"] = {"parts": [{"text": ask.system}]}
        if ask.tools:
            declared = {"name": "look", "description": "Looks.", "parametersJsonSchema": ARGUMENTS}
            body["tools"] = [{"functionDeclarations": [declared]}]
        if ask.schema:
            config |= {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
        if ask.thinks:
            config["thinkingConfig"] = {"thinkingBudget": 1024, "includeThoughts": True}
        if ask.stop:
            config["stopSequences"] = [ask.stop]
        return body

    def with_results(self, body: Mapping[str, Any], seen: Seen, result: str) -> dict[str, Any]:
        results = [
            {"functionResponse": {"id": call.id, "name": call.name, "response": {"result": result}}}
            for call in seen.calls
        ]
        return {**body, "contents": [*body["contents"], seen.turn, {"role": "user", "parts": results}]}

    def whole(self, answer: Mapping[str, Any]) -> Seen:
        GenerateContentResponse.model_validate(answer)
        candidate, usage = answer["candidates"][0], answer["usageMetadata"]
        parts = candidate["content"]["parts"]
        return Seen(
            text="".join(part.get("text", "") for part in parts if not part.get("thought")),
            thoughts="".join(part.get("text", "") for part in parts if part.get("thought")),
            calls=tuple(
                Call(id=call.get("id") or "", name=call["name"], arguments=call.get("args") or {})
                for part in parts
                if (call := part.get("functionCall"))
            ),
            finish=candidate["finishReason"],
            input_tokens=usage["promptTokenCount"],
            output_tokens=(usage.get("candidatesTokenCount") or 0) + (usage.get("thoughtsTokenCount") or 0),
            cached_tokens=usage.get("cachedContentTokenCount") or 0,
            turn=candidate["content"],
        )

    def streamed(self, events: Iterable[Mapping[str, Any]]) -> Seen:
        parts: list[Any] = []
        last: Mapping[str, Any] = {}
        for event in events:
            GenerateContentResponse.model_validate(event)
            for candidate in event.get("candidates") or []:
                parts.extend((candidate.get("content") or {}).get("parts") or [])
                last = candidate if candidate.get("finishReason") else last
        candidate = {**last, "content": {"role": "model", "parts": parts}}
        return self.whole({**event, "candidates": [candidate]})

    def error(self, body: Mapping[str, Any]) -> str:
        assert set(body["error"]) >= {"code", "message", "status"}
        return str(body["error"]["message"])
