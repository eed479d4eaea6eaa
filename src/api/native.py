"""How the native endpoints read bodies and write answers."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from src.api.deps import parsed_json
from src.api.json import dumps
from src.shared.pages import Page


class StrictJsonRequest(Request):
    """Parses bodies with the same rules as the compatible endpoints."""

    async def json(self) -> Any:
        return parsed_json(await self.body())


class NativeRoute(APIRoute):
    """A route whose JSON body is parsed strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictJsonRequest(request.scope, request.receive))

        return strict


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON with our forms of times (ISO 8601 UTC) and ids."""
    return Response(dumps(content), status_code=status, media_type="application/json", headers=dict(headers or {}))


def listed(page: Page[Any], shape: Callable[[Any], Mapping[str, Any]]) -> Response:
    """A page in the envelope of all lists."""
    rows = [shape(row) for row in page.rows]
    return answer(
        {
            "data": rows,
            "first_id": rows[0]["id"] if rows else None,
            "last_id": rows[-1]["id"] if rows else None,
            "has_more": page.has_more,
        }
    )


def everything(rows: list[dict[str, Any]]) -> Response:
    """A short list, whole, in the same envelope."""
    first, last = (rows[0].get("id"), rows[-1].get("id")) if rows else (None, None)
    return answer({"data": rows, "first_id": first, "last_id": last, "has_more": False})
