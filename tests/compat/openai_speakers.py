"""Clients of OpenAI's two dialects."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.compat.seen import ARGUMENTS, PNG, SCHEMA, Ask, Call, Seen

_EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class ChatSpeaker:
    name = "OpenAI chat completions"
    finishes = {"stop": "stop", "length": "length", "tools": "tool_calls", "sequence": "stop"}
    wishes = {
        "temperature": 0.5,
        "top_p": 0.9,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "seed": 7,
        "stop": ["END"],
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"50256": -100},
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "store": False,
        "user": "somebody",
        "prediction": {"type": "content", "content": "x"},
        "verbosity": "low",
    }

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/chat/completions"

    def headers(self, key: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {key}"}

    def body(self, model: str, ask: Ask) -> dict[str, Any]:
        content: Any = ask.text
        if ask.image:
            image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
            content = [{"type": "text", "text": ask.text}, image]
        system = [{"role": "developer", "content": ask.system}] if ask.system else []
        body = {"model": model, "messages": [*system, {"role": "user", "content": content}], **ask.extra}
        body["max_completion_tokens"] = ask.most_tokens
        if ask.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if ask.tools:
            function = {"name": "look", "description": "Looks.", "parameters": ARGUMENTS}
            body["tools"] = [{"type": "function", "function": function}]
        if ask.schema:
            schema = {"name": "thing", "schema": SCHEMA, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if ask.thinks:
            body["reasoning_effort"] = "low"
        if ask.stop:
            body["stop"] = [ask.stop]
        return body

    def with_results(self, body: Mapping[str, Any], seen: Seen, result: str) -> dict[str, Any]:
        results = [{"role": "tool", "tool_call_id": call.id, "content": result} for call in seen.calls]
        return {**body, "messages": [*body["messages"], seen.turn, *results]}

    def whole(self, answer: Mapping[str, Any]) -> Seen:
        ChatCompletion.model_validate_json(json.dumps(answer), strict=True)
        return self._seen(answer["choices"][0]["message"], answer["choices"][0]["finish_reason"], answer["usage"])

    def streamed(self, events: Iterable[Mapping[str, Any]]) -> Seen:
        message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": []}
        finish, usage = "", None
        for event in events:
            ChatCompletionChunk.model_validate_json(json.dumps(event), strict=True)
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                finish = choice["finish_reason"] or finish
                self._add(choice["delta"], message)
        assert usage is not None
        message["tool_calls"] = message["tool_calls"] or None
        return self._seen({name: value for name, value in message.items() if value is not None}, finish, usage)

    def _add(self, delta: Mapping[str, Any], message: dict[str, Any]) -> None:
        for name in ("content", "reasoning_content"):
            if delta.get(name):
                message[name] = message.get(name, "") + delta[name]
        message.setdefault("reasoning_details", []).extend(delta.get("reasoning_details") or [])
        for piece in delta.get("tool_calls") or []:
            calls = message["tool_calls"]
            if piece["index"] == len(calls):
                calls.append({"id": piece["id"], "type": "function", "function": {"name": "", "arguments": ""}})
            call = calls[piece["index"]]
            call |= {name: value for name, value in piece.items() if name == "extra_content"}
            for name, value in (piece.get("function") or {}).items():
                call["function"][name] += value or ""

    def _seen(self, message: Mapping[str, Any], finish: str, usage: Mapping[str, Any]) -> Seen:
        calls = [
            Call(id=call["id"], name=call["function"]["name"], arguments=json.loads(call["function"]["arguments"]))
            for call in message.get("tool_calls") or []
        ]
        return Seen(
            text=message.get("content") or "",
            thoughts=message.get("reasoning_content") or "",
            calls=tuple(calls),
            finish=finish,
            input_tokens=usage["prompt_tokens"],
            output_tokens=usage["completion_tokens"],
            cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
            turn=message,
        )

    def error(self, body: Mapping[str, Any]) -> str:
        assert set(body["error"]) >= {"message", "type", "code", "param"}
        return str(body["error"]["message"])


class ResponsesSpeaker:
    name = "OpenAI Responses"
    finishes = {"stop": "completed", "length": "incomplete", "tools": "completed", "sequence": ""}
    wishes = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_logprobs": 2,
        "parallel_tool_calls": True,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "store": False,
        "truncation": "disabled",
        "safety_identifier": "somebody",
        "prompt_cache_key": "k",
        "max_tool_calls": 3,
        "tools": [{"type": "web_search"}],
        "client_metadata": {"c": "d"},
    }

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/responses"

    def headers(self, key: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {key}"}

    def body(self, model: str, ask: Ask) -> dict[str, Any]:
        parts: list[Any] = [{"type": "input_text", "text": ask.text}]
        if ask.image:
            parts.append({"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{PNG}"})
        body = {"model": model, "input": [{"role": "user", "content": parts}], "store": False, **ask.extra}
        body |= {"max_output_tokens": ask.most_tokens, "stream": ask.stream}
        if ask.system:
            body["instructions"] = ask.system
        if ask.tools:
            tool = {"type": "function", "name": "look", "parameters": ARGUMENTS, "strict": False}
            body["tools"] = [tool]
        if ask.schema:
            body["text"] = {"format": {"type": "json_schema", "name": "thing", "schema": SCHEMA, "strict": True}}
        if ask.thinks:
            body["reasoning"] = {"effort": "low", "summary": "auto"}
            body["include"] = ["reasoning.encrypted_content"]
        return body

    def with_results(self, body: Mapping[str, Any], seen: Seen, result: str) -> dict[str, Any]:
        results = [{"type": "function_call_output", "call_id": call.id, "output": result} for call in seen.calls]
        return {**body, "input": [*body["input"], *seen.turn, *results]}

    def whole(self, answer: Mapping[str, Any]) -> Seen:
        Response.model_validate_json(json.dumps(answer), strict=True)
        output = answer["output"]
        calls = [item for item in output if item["type"] == "function_call"]
        said = [part for item in output if item["type"] == "message" for part in item["content"]]
        thought = [part for item in output if item["type"] == "reasoning" for part in item["summary"]]
        usage = answer["usage"]
        return Seen(
            text="".join(part["text"] for part in said),
            thoughts="".join(part["text"] for part in thought),
            calls=tuple(
                Call(id=call["call_id"], name=call["name"], arguments=json.loads(call["arguments"])) for call in calls
            ),
            finish=answer["status"],
            input_tokens=usage["input_tokens"],
            output_tokens=usage["output_tokens"],
            cached_tokens=usage["input_tokens_details"]["cached_tokens"],
            turn=output,
        )

    def streamed(self, events: Iterable[Mapping[str, Any]]) -> Seen:
        text, last = "", {}
        for number, event in enumerate(events):
            _EVENTS.validate_json(json.dumps(event), strict=True)
            assert number or event["type"] == "response.created"
            text += event["delta"] if event["type"] == "response.output_text.delta" else ""
            last = event
        assert last["type"] in ("response.completed", "response.incomplete")
        seen = self.whole(last["response"])
        assert seen.text == text
        return seen

    def error(self, body: Mapping[str, Any]) -> str:
        assert set(body["error"]) >= {"message", "type", "code", "param"}
        return str(body["error"]["message"])
