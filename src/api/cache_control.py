"""What a request wishes of the response cache, and what its answer tells of it."""

from collections.abc import Mapping
from dataclasses import replace

from src.domain.completion.model import CacheUse, CacheWish
from src.shared.errors import InvalidRequest

HEADER = "x-gateway-cache"

_WISHES = {"on": CacheWish(on=True), "off": CacheWish(on=False), "refresh": CacheWish(on=True, fresh=True)}


def cache_wish(headers: Mapping[str, str], default: CacheWish | None = None) -> CacheWish:
    """The wish of `x-gateway-cache`, else the default; `cache-control` may only ask for less. Raises InvalidRequest."""
    said = headers.get(HEADER)
    wish = (default or CacheWish()) if said is None else _WISHES.get(said.strip().lower())
    if wish is None:
        raise InvalidRequest(f"{HEADER} must be on, off or refresh.", param=HEADER)
    directives = {each.strip().lower() for each in headers.get("cache-control", "").split(",")}
    if "no-store" in directives:
        return _WISHES["off"]
    return replace(wish, fresh=True) if "no-cache" in directives else wish


def cache_header(use: CacheUse | None) -> dict[str, str]:
    """Whether the answer was there, or that of a similar question; nothing where the cache is off."""
    if use is None:
        return {}
    return {HEADER: (CacheUse.HIT if use is CacheUse.JOINED else use).value}
