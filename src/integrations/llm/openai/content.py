"""Messages in our words, as OpenAI's chat completions say them."""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from src.domain.catalog.model import WireFormat
from src.domain.completion.content import (
    Media,
    MediaKind,
    Opaque,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    text_of,
)
from src.domain.completion.model import ChatMessage, ChatRole, Failure, UpstreamFailed, UpstreamRequest
from src.integrations.llm.translation import safe_call_id

GOOGLES = re.compile(r"(?:.*/)?gemini", re.I)
"""Names of models that know Google's signatures, whoever serves them."""

_DETAILS = ("auto", "low", "high", "original")
_AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
_MISTRALS = re.compile(r"(?:.*/)?(?:open-)?(?:mistral|ministral|mixtral|magistral|codestral|devstral|pixtral)", re.I)
_MISTRALS_ID = re.compile(r"[a-zA-Z0-9]{9}")


class Speaker:
    """Says one request's messages to OpenAI itself, or to a server that is compatible with it.

    `dropped` names what had to be left out of what was said so far.
    """

    def __init__(self, request: UpstreamRequest, *, is_openai: bool) -> None:
        self._is_openai = is_openai
        self._model = request.model
        # Only OpenAI itself knows the role that its models without sampling want instead of system.
        self._system = "developer" if is_openai and not request.model.capabilities.sampling else "system"
        self.dropped: dict[str, None] = {}

    def messages(self, messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
        """Results of tools follow their calls at once; what else was said among them waits.

        Raises UpstreamFailed (unsupported) for what has no place in the format.
        """
        said: list[dict[str, Any]] = []
        waiting: list[dict[str, Any]] = []
        for message in messages:
            if message.role is ChatRole.USER:
                said += (self._result(part) for part in message.parts if isinstance(part, ToolResult))
                waiting += self._questions(message)
                continue
            said += waiting
            waiting = []
            said.append(self._other(message))
        return said + waiting

    def _other(self, message: ChatMessage) -> dict[str, Any]:
        if message.role is ChatRole.ASSISTANT and message.parts:
            return self._answer(message)
        if any(isinstance(part, Media) for part in message.parts):
            raise self._unsupported("files in system messages")
        return {"role": self._system if message.role is ChatRole.SYSTEM else "assistant", "content": message.text}

    def _result(self, result: ToolResult) -> dict[str, Any]:
        """A result's words; its files follow in a message of the user's."""
        text = result.text
        if not text and result.content:
            text = "The result follows as a file."
        if result.is_error and not text.lower().startswith("error"):
            text = f"Error: {text}"
        return {"role": "tool", "tool_call_id": self._call_id(result.call_id), "content": text}

    def _questions(self, message: ChatMessage) -> list[dict[str, Any]]:
        """What the user says besides results, which may be nothing, with the files of the results."""
        if not message.parts:
            return [{"role": "user", "content": message.text}]
        content: list[dict[str, Any]] = []
        for part in message.parts:
            content += self._shown(part) if isinstance(part, ToolResult) else [self._question(part)]
        if content and all(part["type"] == "text" for part in content):
            return [{"role": "user", "content": "\n".join(part["text"] for part in content)}]
        return [{"role": "user", "content": content}] if content else []

    def _shown(self, result: ToolResult) -> list[dict[str, Any]]:
        files = [self._file(part) for part in result.content if isinstance(part, Media)]
        head = {"type": "text", "text": f"Files of the result of the tool call {self._call_id(result.call_id)}:"}
        return [head, *files] if files else []

    def _question(self, part: Part) -> dict[str, Any]:
        match part:
            case Text(text=text) | Refusal(text=text):
                return {"type": "text", "text": text}
            case Media():
                return self._file(part)
        raise self._unsupported(_name_of(part))

    def _file(self, media: Media) -> dict[str, Any]:
        match media.kind:
            case MediaKind.IMAGE:
                detail = {"detail": media.detail} if media.detail in _DETAILS else {}
                return {"type": "image_url", "image_url": {"url": _url(media, "image/png"), **detail}}
            case MediaKind.AUDIO if media.data is not None:
                form = (media.media_type or "audio/wav").partition("/")[2].partition(";")[0]
                sound = {"data": media.data, "format": _AUDIO_FORMATS.get(form, form)}
                return {"type": "input_audio", "input_audio": sound}
            case MediaKind.VIDEO if not self._is_openai:
                return {"type": "video_url", "video_url": {"url": _url(media, "video/mp4")}}
            case MediaKind.DOCUMENT if media.data is not None or not self._is_openai:
                if (text := _words(media)) is not None:
                    return {"type": "text", "text": text}
                return {"type": "file", "file": {"filename": _file_name(media), "file_data": _url(media)}}
        raise self._unsupported(f"{media.kind.value} {'by its address' if media.data is None else ''}".strip())

    def _answer(self, message: ChatMessage) -> dict[str, Any]:
        thoughts: list[Thinking] = []
        words: list[Text | Refusal] = []
        calls: list[ToolCall] = []
        for part in message.parts:
            match part:
                case Text() | Refusal():
                    words.append(part)
                case ToolCall():
                    calls.append(part)
                case Thinking():
                    thoughts.append(part)
                case Media() | ToolResult() | Opaque():
                    raise self._unsupported(_name_of(part))
        said: dict[str, Any] = {"role": "assistant", **self._words(words), **self._thoughts(thoughts)}
        if calls:
            said["tool_calls"] = [self._call(call) for call in calls]
        elif said["content"] is None and "refusal" not in said:
            said["content"] = ""
        return said

    def _words(self, words: Sequence[Text | Refusal]) -> dict[str, Any]:
        """Refusals have a field of their own, which only OpenAI knows."""
        refusal = text_of(part for part in words if isinstance(part, Refusal)) if self._is_openai else ""
        text = text_of(part for part in words if isinstance(part, Text) or not self._is_openai)
        return {"content": text or None} | ({"refusal": refusal} if refusal else {})

    def _thoughts(self, thoughts: Sequence[Thinking]) -> dict[str, Any]:
        """Those of such servers' models: the proven ones as routers have them, others as most servers do."""
        own = [] if self._is_openai else [each for each in thoughts if each.origin is WireFormat.CHAT_COMPLETIONS]
        if len(own) < len(thoughts):
            self.dropped["thinking"] = None
        text = text_of(Text(text=thought.text) for thought in own if thought.text)
        told: dict[str, Any] = {"reasoning_content": text} if text else {}
        if any(thought.signature for thought in own):
            told["reasoning_details"] = [_detail(thought) for thought in own]
        return told

    def _call(self, call: ToolCall) -> dict[str, Any]:
        called = (
            {"type": "custom", "custom": {"name": call.name, "input": call.arguments}}
            if call.is_custom
            else {"type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
        )
        said = {"id": self._call_id(call.id), **called}
        if call.signature and GOOGLES.match(self._model.upstream):
            said["extra_content"] = {"google": {"thought_signature": call.signature}}
        return said

    def _call_id(self, call_id: str) -> str:
        """Mistral's models, wherever they run, want nine letters and digits."""
        if not _MISTRALS.match(self._model.upstream):
            return safe_call_id(call_id)
        if _MISTRALS_ID.fullmatch(call_id):
            return call_id
        return hashlib.sha256(call_id.encode(errors="replace")).hexdigest()[:9]

    def _unsupported(self, what: str) -> UpstreamFailed:
        return UpstreamFailed(
            Failure.UNSUPPORTED, f"The model {self._model.name} cannot be told this in its provider's format: {what}."
        )


def _detail(thought: Thinking) -> dict[str, Any]:
    if thought.redacted:
        return {"type": "reasoning.encrypted", "data": thought.signature or ""}
    proof = {"signature": thought.signature} if thought.signature else {}
    return {"type": "reasoning.text", "text": thought.text, **proof}


def _name_of(part: Part) -> str:
    match part:
        case Media():
            return f"{part.kind.value} in an answer"
        case Opaque():
            return f"a part of the format {part.format.value}"
    return f"{type(part).__name__} by the {'assistant' if isinstance(part, ToolResult) else 'user'}"


def _url(media: Media, otherwise: str = "application/pdf") -> str:
    if media.data is None:
        return media.url or ""
    return f"data:{media.media_type or otherwise};base64,{media.data}"


def _file_name(media: Media) -> str:
    return media.name or f"document.{(media.media_type or 'application/pdf').partition('/')[2]}"


def _words(media: Media) -> str | None:
    """What a file of text says, for which the format has no files. None for other files."""
    if media.data is None or not (media.media_type or "").startswith("text/"):
        return None
    try:
        text = base64.b64decode(media.data).decode()
    except (binascii.Error, ValueError):
        return None
    return f"{media.name}:\n{text}" if media.name else text
