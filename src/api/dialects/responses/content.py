"""The content of messages and of tools' results in OpenAI's Responses API, to and from parts in our words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from src.api.dialects.fields import object_at, text_at
from src.api.dialects.media import opened_data_url
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import (
    Media,
    MediaKind,
    Opaque,
    Part,
    Particulars,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    particulars_of,
)
from src.shared.errors import InvalidRequest

OWN = WireFormat.RESPONSES

_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_AUDIO_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}
_AUDIO_FORMATS = {media_type: name for name, media_type in _AUDIO_TYPES.items()}
PDF = "application/pdf"


def content_parts(content: Any, where: str) -> tuple[Part, ...]:
    """A string, or a list of parts; what has no place in our words stays as it is. Raises InvalidRequest."""
    if isinstance(content, str):
        return (Text(text=content),) if content else ()
    if not isinstance(content, list):
        raise InvalidRequest(f"{where} must be a string or a list of parts.", param=where)
    return tuple(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: Any, where: str) -> Part:
    given = object_at(part, where)
    kind = text_at(given.get("type"), f"{where}.type")
    if kind in _TEXTS:
        return Text(text=text_at(given.get("text"), f"{where}.text"), particulars=particulars(given, "text"))
    match kind:
        case "refusal":
            text = text_at(given.get("refusal"), f"{where}.refusal")
            return Refusal(text=text, particulars=particulars(given, "refusal"))
        case "input_image" if given.get("image_url") is not None:
            return _image(given, where)
        case "input_file" if given.get("file_data") is not None or given.get("file_url") is not None:
            return _file(given, where)
        case "input_audio":
            return _audio(given, where)
        case _:
            return Opaque(format=OWN, body=given)


def _image(given: Mapping[str, Any], where: str) -> Media:
    url = text_at(given["image_url"], f"{where}.image_url")
    detail = given.get("detail")
    if detail is not None:
        text_at(detail, f"{where}.detail")
    media_type, data = opened_data_url(url) or (None, None)
    return Media(
        kind=MediaKind.IMAGE, media_type=media_type, data=data, url=url if data is None else None, detail=detail
    )


def _file(given: Mapping[str, Any], where: str) -> Media:
    name = given.get("filename")
    if name is not None:
        text_at(name, f"{where}.filename")
    if given.get("file_data") is None:
        return Media(kind=MediaKind.DOCUMENT, url=text_at(given["file_url"], f"{where}.file_url"), name=name)
    told = text_at(given["file_data"], f"{where}.file_data")
    media_type, data = opened_data_url(told) or (None, told)
    return Media(kind=MediaKind.DOCUMENT, media_type=media_type or PDF, data=data, name=name)


def _audio(given: Mapping[str, Any], where: str) -> Media:
    audio = object_at(given.get("input_audio"), f"{where}.input_audio")
    name = text_at(audio.get("format"), f"{where}.input_audio.format")
    data = text_at(audio.get("data"), f"{where}.input_audio.data")
    return Media(kind=MediaKind.AUDIO, media_type=_AUDIO_TYPES.get(name, f"audio/{name}"), data=data)


def input_content(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """What somebody said to a model, as parts of a message's content."""
    return [written for part in parts if (written := _written(part)) is not None]


def particulars(given: Mapping[str, Any], *known: str) -> Particulars | None:
    """What an item or a part of content says beyond its type, its id and status and what else is known of it."""
    return particulars_of(given, {"type", "id", "status", *known}, OWN)


def told_besides(part: Text | Refusal | Thinking | ToolCall) -> Particulars:
    """What OpenAI alone can say of a part."""
    found = part.particulars
    return found if found is not None and found.format is OWN else Particulars(format=OWN)


def message_item(content: Sequence[Text | Refusal]) -> dict[str, Any]:
    """What a model said, as an item without an id."""
    said = [output_content(part) for part in content]
    return {**item_besides(content), "type": "message", "role": "assistant", "status": "completed", "content": said}


def item_besides(content: Iterable[Text | Refusal]) -> dict[str, Any]:
    """What OpenAI alone can say of the item that they are the content of."""
    return {name: value for part in content for name, value in told_besides(part).item.items()}


def output_content(part: Text | Refusal) -> dict[str, Any]:
    """What a model said, as a part of a message's content."""
    besides = dict(told_besides(part).fields)
    if isinstance(part, Refusal):
        return {**besides, "type": "refusal", "refusal": part.text}
    if "type" in besides:  # a kind of content that we have no word for
        return besides | ({"text": part.text} if part.text else {})
    lists = {name: besides.pop(name, None) for name in ("annotations", "logprobs")}
    told = {name: value if isinstance(value, list) else [] for name, value in lists.items()}
    return {**besides, "type": "output_text", "text": part.text, **told}


def _written(part: Part) -> dict[str, Any] | None:
    match part:
        case Text(text=text):
            return {**told_besides(part).fields, "type": "input_text", "text": text}
        case Refusal(text=text):
            return {"type": "input_text", "text": text}
        case Media():
            return _written_file(part)
        case Opaque(format=WireFormat.RESPONSES, body=body):
            return dict(body)
        case _:
            return None


def _written_file(media: Media) -> dict[str, Any]:
    match media.kind:
        case MediaKind.IMAGE:
            return {"type": "input_image", "image_url": _url_of(media), "detail": media.detail or "auto"}
        case MediaKind.AUDIO if media.data is not None:
            name = _AUDIO_FORMATS.get(media.media_type or "") or (media.media_type or "").partition("/")[2] or "wav"
            return {"type": "input_audio", "input_audio": {"data": media.data, "format": name}}
        case _:
            place = {"file_url": media.url} if media.data is None else {"file_data": _url_of(media)}
            return {"type": "input_file", **place, **({"filename": media.name} if media.name else {})}


def _url_of(media: Media) -> str | None:
    if media.data is None:
        return media.url
    return f"data:{media.media_type or PDF};base64,{media.data}"
