"""OpenAI chat completions, outwards, whole or in chunks."""

from typing import Any, ClassVar
from uuid import UUID

from src.api.dialects.openai.content import OWN
from src.api.dialects.openai.reply import (
    called,
    completion,
    completion_id,
    detail,
    extra_content,
    reason_of,
    seconds,
    usage_body,
)
from src.api.dialects.openai.tools import speaks_of_functions
from src.api.dialects.relayed import objects_in, payloads_of
from src.api.dialects.request import ParsedRequest
from src.api.sse import event
from src.domain.completion.deltas import PartDelta, RefusalDelta, TextDelta, ThinkingDelta, ToolCallDelta
from src.domain.completion.model import Outcome
from src.shared.ids import made_at

DONE = b"data: [DONE]\n\n"


class OpenAIWriter:
    """Writes one answer, whole or as a stream of chunks. A stream's writer knows what it has begun."""

    tells_prompt: ClassVar[bool] = False

    def __init__(self, parsed: ParsedRequest, answer_id: UUID) -> None:
        wire = parsed.chat.wire
        self._id = completion_id(answer_id)
        self._with_usage = wire is not None and wire.wants_usage
        self._functions = wire is not None and speaks_of_functions(wire.body)
        self._model = parsed.model
        self._created = seconds(made_at(answer_id))
        self._has_role = False
        self._thoughts = 0
        self._thinking: ThinkingDelta | None = None
        """The newest piece of a thought that may go on."""
        self._custom: dict[int, bool] = {}
        """The tool calls that have begun, and whether they are of custom tools."""

    def whole(self, outcome: Outcome, model: str) -> dict[str, Any]:
        """A chat completion."""
        return completion(outcome, self._id, model, functions=self._functions)

    def first(self, model: str, prompt_tokens: int) -> bytes:
        """Nothing yet: the chunk that names the role shows whether the answer has text."""
        self._model = model
        return b""

    def delta(self, delta: PartDelta) -> bytes:
        """Some more of the answer."""
        end = b"" if isinstance(delta, ThinkingDelta) else self._end_thought()
        told = self._told(delta)
        if told is None:
            return end
        return end + self._role("" if isinstance(delta, TextDelta) else None) + self._choice(told, None)

    def _told(self, delta: PartDelta) -> dict[str, Any] | None:
        match delta:
            case ThinkingDelta():
                return self._thought(delta)
            case TextDelta(text=text):
                return {"content": text}
            case RefusalDelta(text=text):
                return {"refusal": text}
            case ToolCallDelta() if self._functions:
                return self._function_call(delta)
            case ToolCallDelta():
                return {"tool_calls": [self._tool_call(delta)]}
        return None

    def _thought(self, delta: ThinkingDelta) -> dict[str, Any]:
        """Most servers' field, and the routers' one, where the next thought begins after a signature."""
        begins = delta.redacted or self._thinking is None
        self._thoughts += begins
        self._thinking = None if delta.redacted or delta.signature else delta
        told = {"reasoning_content": delta.text} if delta.text else {}
        return told | {"reasoning_details": [detail(delta, self._thoughts - 1, begins=begins)]}

    def _end_thought(self) -> bytes:
        """Whose it was, where that is another format's model that proves nothing."""
        thought, self._thinking = self._thinking, None
        if thought is None or thought.origin in (None, OWN):
            return b""
        end = detail(ThinkingDelta(origin=thought.origin), self._thoughts - 1, begins=False, ends=True)
        return self._choice({"reasoning_details": [end]}, None)

    def _tool_call(self, delta: ToolCallDelta) -> dict[str, Any]:
        begins = delta.index not in self._custom
        is_custom = self._custom.setdefault(delta.index, delta.is_custom)
        head: dict[str, Any] = {"index": delta.index} | ({"id": delta.id or ""} if begins else {})
        name = (delta.name or "") if begins else None
        return head | called(name, delta.arguments, is_custom=is_custom) | extra_content(delta.signature)

    def _function_call(self, delta: ToolCallDelta) -> dict[str, Any] | None:
        """The first call: there is no place for a second."""
        if delta.index:
            return None
        name = {} if self._custom else {"name": delta.name or ""}
        self._custom[0] = False
        return {"function_call": {**name, "arguments": delta.arguments}}

    def last(self, outcome: Outcome) -> bytes:
        """Why it stopped, the usage where the client asked for it, and the end."""
        finish = self._end_thought() + self._role("") + self._choice({}, reason_of(outcome, functions=self._functions))
        usage = event(self._head() | {"choices": [], "usage": usage_body(outcome.usage)}) if self._with_usage else b""
        return finish + usage + DONE

    def cut(self, outcome: Outcome, relayed: bytes) -> bytes:
        """Every choice that has not ended ends here, in chunks that look like those before."""
        ended: dict[int, bool] = {}
        head: dict[str, Any] = {}
        for payload in payloads_of(relayed):
            head = {name: payload[name] for name in ("id", "object", "created", "model") if name in payload} or head
            for choice in objects_in(payload.get("choices")):
                index = index if isinstance(index := choice.get("index"), int) else 0
                ended[index] = ended.get(index, False) or choice.get("finish_reason") is not None
        reason = reason_of(outcome, functions=self._functions)
        left = [{"index": index, "delta": {}, "finish_reason": reason} for index, over in ended.items() if not over]
        usage = {**self._head(), **head, "choices": [], "usage": usage_body(outcome.usage)}
        told = event(usage) if self._with_usage else b""
        return b"".join(event({**self._head(), **head, "choices": [choice]}) for choice in left) + told + DONE

    def error(self, body: dict[str, Any], relayed: bytes = b"") -> bytes:
        """An error in the middle of a stream: an object with `error`, which every SDK raises."""
        return event(body)

    def _head(self) -> dict[str, Any]:
        """Who asked for usage finds it in every chunk, null before the last."""
        head = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "service_tier": "default",
            "system_fingerprint": None,
        }
        return {**head, "usage": None} if self._with_usage else head

    def _role(self, content: str | None) -> bytes:
        """The chunk that names the role, once."""
        if self._has_role:
            return b""
        self._has_role = True
        return self._choice({"role": "assistant", "content": content, "refusal": None}, None)

    def _choice(self, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**self._head(), "choices": [choice]})
