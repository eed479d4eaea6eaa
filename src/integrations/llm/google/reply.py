"""Answers of Google's SDK in our words."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import Opaque, Text, text_of
from src.domain.completion.deltas import OpaqueDelta, PartDelta, TextDelta, ThinkingDelta, ToolCallDelta, parts_of
from src.domain.completion.model import Failure, Finished, Reply
from src.integrations.llm.failures import failed_with, told
from src.integrations.llm.google.relay import reason_of

if TYPE_CHECKING:
    from google.genai.types import Candidate, GenerateContentResponse, Part

_OWN = WireFormat.GENERATE_CONTENT

_NO_ANSWER = frozenset(
    {
        *("MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"),
        *("MISSING_THOUGHT_SIGNATURE", "NO_IMAGE", "IMAGE_OTHER", "OTHER"),
    }
)
"""The model meant to say something and did not: with nothing said, another try is better."""


def reply_of(response: "GenerateContentResponse", dropped: tuple[str, ...]) -> Reply:
    """A whole answer. Raises UpstreamFailed (malformed) for one without an end."""
    end = Told()
    parts = parts_of(end.hear(response))
    finished = end.finished()
    if all(isinstance(part, Text) for part in parts) and len(parts) <= 1:
        return Reply(text=text_of(parts), finished=finished, dropped=dropped)
    return Reply(text=text_of(parts), parts=parts, finished=finished, dropped=dropped)


@dataclass(slots=True)
class Told:
    """What the chunks of an answer, or the one of a whole answer, have said about its end so far."""

    reason: str | None = None
    is_blocked: bool = False
    usage: Usage | None = None
    upstream_model: str | None = None
    calls: int = 0
    has_said: bool = False

    def hear(self, chunk: "GenerateContentResponse") -> Iterator[PartDelta]:
        """The pieces in a chunk, often one."""
        self.upstream_model = told(chunk.model_version) or self.upstream_model
        self.usage = usage_of(chunk.usage_metadata) or self.usage
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
            self.is_blocked = True
        if chunk.candidates:
            yield from self._hear(chunk.candidates[0])

    def _hear(self, candidate: "Candidate") -> Iterator[PartDelta]:
        if candidate.finish_reason is not None and candidate.finish_reason.value != "FINISH_REASON_UNSPECIFIED":
            self.reason = candidate.finish_reason.value
        for part in (candidate.content.parts if candidate.content else None) or ():
            delta = self._delta(part)
            if delta is not None:
                self.has_said = True
                yield delta

    def _delta(self, part: "Part") -> PartDelta | None:
        if part.function_call is not None:
            return self._call(part)
        if part.thought:
            return ThinkingDelta(told(part.text), signature_of(part), origin=_OWN)
        if part.text is not None:
            return TextDelta(told(part.text)) if part.text else None
        body = part.model_dump(mode="json", by_alias=True, exclude_none=True)
        return OpaqueDelta(Opaque(format=_OWN, body=body)) if body.keys() - {"thoughtSignature"} else None

    def _call(self, part: "Part") -> ToolCallDelta:
        call = part.function_call
        assert call is not None  # noqa: S101 - asked before
        index, self.calls = self.calls, self.calls + 1
        return ToolCallDelta(
            index,
            told(call.id) or f"call_{uuid4().hex[:24]}",
            told(call.name),
            told(json.dumps(call.args or {}, ensure_ascii=False, separators=(",", ":"))),
            signature=signature_of(part),
        )

    def finished(self) -> Finished:
        """Raises UpstreamFailed (malformed) for an answer that has no end, or nothing before it that was meant."""
        if self.reason is None and not self.is_blocked:
            raise failed_with(Failure.MALFORMED)
        if self.reason in _NO_ANSWER and not self.has_said:
            raise failed_with(Failure.MALFORMED)
        reason = reason_of(self.reason, called=self.calls > 0)
        return Finished(reason=reason, usage=self.usage, upstream_model=self.upstream_model)


def signature_of(part: "Part") -> str | None:
    """As base64, which JSON writes it in."""
    return base64.b64encode(part.thought_signature).decode() if part.thought_signature else None


def usage_of(reported: Any) -> Usage | None:
    """Google's prompt tokens include the cached ones, as ours do; its thoughts are counted beside the answer."""
    if reported is None or reported.prompt_token_count is None:
        return None
    thoughts = reported.thoughts_token_count or 0
    return Usage(
        input_tokens=reported.prompt_token_count + (reported.tool_use_prompt_token_count or 0),
        output_tokens=(reported.candidates_token_count or 0) + thoughts,
        cache_read_tokens=reported.cached_content_token_count or 0,
        reasoning_tokens=thoughts,
    )
