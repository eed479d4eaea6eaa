"""What handlers ask for in their signatures: the gateway, the principal, the body, a page.

All of them are coroutines: FastAPI sends plain functions to a thread, which costs more than they do.
"""

from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Depends, Query, Request

from src.api.container import Gateway
from src.domain.identity.model import Principal
from src.shared.errors import InvalidRequest, MalformedBody, NotFound, Unauthenticated
from src.shared.ids import parse_id
from src.shared.pages import MAX_PAGE, PageRequest

MAX_CREDENTIAL = 8192

MAX_DEPTH = 100
"""How deep a body may nest: what is written back as JSON, with envelopes around it, must stay within orjson's 254."""


async def gateway(request: Request) -> Gateway:
    """The opened gateway."""
    found: Gateway = request.app.state.gateway
    return found


_GOOGLES_PATHS = ("/v1beta/", "/v1/models", "/v1/tunedModels/")

GatewayDep = Annotated[Gateway, Depends(gateway)]


async def request_id(request: Request) -> str:
    """The id that every answer carries."""
    found: str = request.state.request_id
    return found


RequestId = Annotated[str, Depends(request_id)]


def credential_of(request: Request) -> str:
    """The JWT or API key, from whichever header the client uses. Raises Unauthenticated."""
    headers = request.headers
    authorization = headers.get("authorization", "")
    scheme, _, bearer = authorization.partition(" ")
    found = bearer.strip() if scheme.lower() == "bearer" else ""
    found = found or headers.get("x-api-key", "") or headers.get("x-goog-api-key", "") or _key_in_query(request)
    if not found:
        raise Unauthenticated("Send a credential: Authorization: Bearer <JWT or API key>, x-api-key or x-goog-api-key.")
    if len(found) > MAX_CREDENTIAL:
        raise Unauthenticated(f"The credential is longer than {MAX_CREDENTIAL} characters.")
    return found


def _key_in_query(request: Request) -> str:
    """Google's clients may write it into the address. Elsewhere nobody does, and addresses are not kept secret."""
    return request.query_params.get("key", "") if request.scope["path"].startswith(_GOOGLES_PATHS) else ""


async def principal(request: Request, gateway: GatewayDep) -> Principal:
    """Who calls. Raises Unauthenticated."""
    return await gateway.authenticator.authenticate(credential_of(request))


PrincipalDep = Annotated[Principal, Depends(principal)]


async def _admin(principal: PrincipalDep) -> Principal:
    principal.require_admin()
    return principal


async def _platform_admin(principal: PrincipalDep) -> Principal:
    principal.require_platform_admin()
    return principal


AdminDep = Annotated[Principal, Depends(_admin)]
PlatformAdminDep = Annotated[Principal, Depends(_platform_admin)]


def path_id(text: str, what: str) -> UUID:
    """An id from a path; what is no id names nothing. Raises NotFound."""
    found = parse_id(text)
    if found is None:
        raise NotFound(f"No such {what}.")
    return found


async def page(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20, after: str | None = None, before: str | None = None
) -> PageRequest:
    """Which part of a list. Raises InvalidRequest for cursors that are no ids."""
    return PageRequest(limit=limit, after=_cursor(after, "after"), before=_cursor(before, "before"))


def _cursor(text: str | None, name: str) -> UUID | None:
    if text is None:
        return None
    found = parse_id(text)
    if found is None:
        raise InvalidRequest(f"{name} must be the id of a row of this list.", param=name)
    return found


PageDep = Annotated[PageRequest, Depends(page)]


def parsed_json(raw: bytes) -> Any:
    """JSON that can be stored. Raises MalformedBody: for what is no JSON, NUL characters and lone surrogates too."""
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"The body is not valid JSON: {error.msg} (line {error.lineno}).") from None
    if b"\\u0000" in raw and _has_nul(parsed):
        raise MalformedBody("The body has a NUL character in a string; remove it.")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _is_deeper(parsed, MAX_DEPTH):
        raise MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels.")
    return parsed


_NESTED = frozenset({dict, list})
"""What JSON is read as where something is inside of it: by their exact types, which are found out soonest."""


def _is_deeper(value: Any, most: int) -> bool:
    level: list[Any] = [[value]]
    for _ in range(most + 1):
        nested = [child for children in level for child in children if type(child) in _NESTED]
        if not nested:
            return False
        level = [each.values() if type(each) is dict else each for each in nested]
    return True


def _has_nul(value: Any) -> bool:
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            if "\x00" in found:
                return True
        elif isinstance(found, dict):
            waiting.extend(found.keys())
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)
    return False


async def json_object(request: Request) -> dict[str, Any]:
    """The body of a compatible endpoint, whatever its content type says. Raises MalformedBody, InvalidRequest."""
    parsed = parsed_json(await request.body())
    if not isinstance(parsed, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return parsed


JsonObject = Annotated[dict[str, Any], Depends(json_object)]
