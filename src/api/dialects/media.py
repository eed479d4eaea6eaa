"""Files as clients write them into JSON."""

import base64
from urllib.parse import unquote_to_bytes

from src.domain.completion.content import MediaKind

_KINDS = {"image": MediaKind.IMAGE, "audio": MediaKind.AUDIO, "video": MediaKind.VIDEO}


def opened_data_url(url: str) -> tuple[str | None, str] | None:
    """The media type, where it is named, and the data in base64; None for what is no data URL."""
    head, comma, data = url.partition(",")
    if not comma or head[:5].lower() != "data:":
        return None
    media_type, *options = (part.strip().lower() for part in head[5:].split(";"))
    if "base64" not in options:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return media_type or None, data


def kind_of(media_type: str | None) -> MediaKind:
    """What a file of the type is to a model; what is not seen or heard is read."""
    return _KINDS.get((media_type or "").partition("/")[0].lower(), MediaKind.DOCUMENT)
