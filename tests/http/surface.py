"""What every answer of the gateway must look like, and what must not change when a request is refused."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2

from src.data.auditor import SqlAuditor
from src.data.engine import make_engine
from src.data.group_commit import GroupCommitLedger
from src.shared.clock import utc_now
from tests.support.gateway import ADMIN_KEY, ENCRYPTION_KEY, JWT_SECRET, PROVIDER_KEY, RunningGateway
from tests.support.upstream import Upstream

NATIVE, OPENAI, ANTHROPIC, GEMINI = "native", "openai", "anthropic", "gemini"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
MESSAGES = {"model": "claude-3-opus", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
RESPONSE = {"model": "gpt-4o", "input": "hello"}
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
VERBS = ("generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents")
JSON_TYPE = {"content-type": "application/json"}

_SECRETS = (ADMIN_KEY, ENCRYPTION_KEY, JWT_SECRET, PROVIDER_KEY)
_INNARDS = ("Traceback", 'File "', "sqlalchemy", "asyncpg", "site-packages", "pydantic")


def dialect_of(path: str) -> str:
    """The dialect that the errors of a path are told in."""
    if path.startswith("/v1/messages"):
        return ANTHROPIC
    if path.startswith(("/v1beta/", "/v1/tunedModels/")) or (path.startswith("/v1/models/") and ":" in path):
        return GEMINI
    return OPENAI if path.startswith("/v1/") else NATIVE


def bad_body_status(path: str) -> int:
    """What a body that is JSON but wrong is answered with."""
    return 422 if dialect_of(path) == NATIVE else 400


def check_answer(response: httpx2.Response) -> None:
    """No fault of ours, an id to ask about, and nothing that is nobody's business."""
    assert response.status_code != 500, response.text
    assert response.headers["x-request-id"] == response.headers["request-id"] != ""
    for private in (*_SECRETS, *_INNARDS):
        assert private not in response.text


def check_error(response: httpx2.Response, status: int, dialect: str | None = None) -> dict[str, Any]:
    """The whole envelope of the dialect (by default that of the path); returns its `error`."""
    check_answer(response)
    assert response.status_code == status, f"{response.status_code}: {response.text[:500]}"
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    error: dict[str, Any] = body["error"]
    assert isinstance(error["message"], str)
    assert error["message"]
    match dialect or dialect_of(response.url.path):
        case "native":
            assert body.keys() == {"error"}
            assert error.keys() == {"code", "type", "message", "param", "details", "request_id"}
            assert error["request_id"] == response.headers["x-request-id"]
        case "openai":
            assert body.keys() == {"error"}
            assert error.keys() - {"details"} == {"message", "type", "param", "code"}
        case "gemini":
            assert body.keys() == {"error"}
            assert error.keys() == {"code", "message", "status", "details"}
            assert error["code"] == status
        case "anthropic":
            assert body.keys() == {"type", "error", "request_id"}
            assert body["type"] == "error"
            assert error.keys() == {"type", "message", "details"}
            assert body["request_id"] == response.headers["request-id"]
    return error


@asynccontextmanager
async def nothing_changes(gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[None]:
    """No provider is called, no row of any table is added or removed, nothing is held. For SQLite."""
    called, rows = len(upstream.requests), row_counts(gateway)
    yield
    assert len(upstream.requests) == called
    assert row_counts(gateway) == rows
    assert open_holds(gateway) == 0


def row_counts(gateway: RunningGateway) -> dict[str, int]:
    """How many rows each table has."""
    with closing(_connected(gateway)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}


def open_holds(gateway: RunningGateway) -> int:
    """How many holds are open."""
    with closing(_connected(gateway)) as connection:
        found: int = connection.execute("SELECT count(*) FROM holds WHERE state = 'open'").fetchone()[0]
        return found


def _connected(gateway: RunningGateway) -> sqlite3.Connection:
    return sqlite3.connect(gateway.settings.database_url.partition(":///")[2])


async def books_are_right(gateway: RunningGateway) -> None:
    """The ledger's laws hold, on either database."""
    engine = make_engine(gateway.settings.database_url)
    try:
        auditor = SqlAuditor(engine, GroupCommitLedger(engine, clock=utc_now))
        assert await auditor.discrepancies() == []
    finally:
        await engine.dispose()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Objects that paths may name."""

    dialog_id: str
    user_id: str
    tenant_id: str

    @property
    def conversation_id(self) -> str:
        """The dialog, as OpenAI's clients know it."""
        return f"conv_{self.dialog_id.replace('-', '')}"

    def path(self, template: str) -> str:
        """The template with real ids where there are any, and fresh ones elsewhere."""
        named = {"dialog_id": self.dialog_id, "user_id": self.user_id, "tenant_id": self.tenant_id, "name": "gpt-4o"}
        if template.startswith("/v1/conversations"):
            named["name"] = self.conversation_id
        while "{" in template:
            head, _, rest = template.partition("{")
            name, _, tail = rest.partition("}")
            template = head + named.get(name.partition(":")[0], str(uuid4())) + tail
        return template


async def set_scene(gateway: RunningGateway) -> Scene:
    """A dialog of the administrator's, a user, and their tenant."""
    dialog = await gateway.http.post("/api/v1/dialogs", json={"model": "gpt-4o"})
    user = await gateway.http.post("/api/v1/admin/users", json={"external_id": f"user-{uuid4()}"})
    return Scene(dialog_id=dialog.json()["id"], user_id=user.json()["id"], tenant_id=user.json()["tenant_id"])


def body_routes(gateway: RunningGateway, *, optional: bool = False) -> list[tuple[str, str]]:
    """Method and path template of everything that must (or may) have a JSON body, found in the served document."""
    found = []
    for path, operations in gateway.app.openapi()["paths"].items():
        for method in ("post", "put", "patch"):
            operation = operations.get(method)
            if operation is None:
                continue
            if "requestBody" in operation and (optional or operation["requestBody"].get("required", False)):
                found += [(method.upper(), each) for each in _verbs_at(path)]
    return found


def _verbs_at(path: str) -> list[str]:
    """What can be called at a path: Google's verbs follow a model's name."""
    head, is_googles, _ = path.partition("{target}")
    return [f"{head}gpt-4o:{verb}" for verb in VERBS] if is_googles else [path]


async def send(http: httpx2.AsyncClient, method: str, path: str, body: Any, **headers: str) -> httpx2.Response:
    """The body as it is where it is bytes, else as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await http.request(method, path, content=raw, headers={**JSON_TYPE, **headers})
