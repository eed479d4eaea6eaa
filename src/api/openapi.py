"""The served document: what FastAPI finds in the routes, and what it cannot."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts

from src.api.deps import json_object

_CREDENTIALS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A JWT or an API key."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "x-goog-api-key": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
    "key": {"type": "apiKey", "in": "query", "name": "key", "description": "Below Google's paths only."},
}
"""One of them is enough, whichever a client uses."""

_ANY_OBJECT = {
    "required": True,
    "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}},
}
"""Bodies of stock clients: what a dialect knows, and whatever else its newest clients send."""


def add_openapi(app: FastAPI) -> None:
    """Make `app.openapi` tell how to authenticate, and which endpoints take bodies of their dialect."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schema.setdefault("components", {})["securitySchemes"] = _CREDENTIALS
            schema["security"] = [{name: []} for name in _CREDENTIALS]
            for path, method in _free_bodies(app):
                schema["paths"][path][method]["requestBody"] = _ANY_OBJECT
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _free_bodies(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Path and method of everything that reads its body by itself."""
    for route in iter_route_contexts(app.routes):
        needs = route.dependant.dependencies if isinstance(route.original_route, APIRoute) else ()
        if any(each.call is json_object for each in needs):
            yield from ((str(route.path_format), method.lower()) for method in route.methods or ())
