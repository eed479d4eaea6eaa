"""The commands of the command line do what they say; the log says nothing it should not."""

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

from tests.processes.conftest import Operator, client_of, new_user
from tests.support.gateway import ADMIN_KEY, ENCRYPTION_KEY, JWT_SECRET, PROVIDER_KEY
from tests.support.upstream import Answer, Fail

PROMPT = "a-question-that-nobody-else-may-read"
REPLY = "an-answer-that-nobody-else-may-read"


async def test_an_operator_looks_after_tenants_users_keys_and_books(operator: Operator) -> None:
    gateway = operator.configured()

    async def say(*arguments: str, status: int = 0) -> str:
        done = await asyncio.to_thread(gateway.command, *arguments, check=False)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return (done.stdout if status == 0 else done.stderr).strip()

    operator.migrated()
    acme = UUID(await say("tenants", "create", "acme", "Acme Ltd", "--time-zone", "Asia/Tokyo"))
    listed, user, nowhere = await asyncio.gather(
        say("tenants", "list"),
        say("users", "create", "alice", "--tenant", "acme", "--role", "tenant_admin"),
        say("tenants", "create", "other", "Other", "--time-zone", "Nowhere", status=1),
    )
    assert "time_zone" in nowhere
    assert f"{acme}\tacme\tAcme Ltd" in listed.splitlines()
    assert UUID(user)
    assert await say("users", "top-up", "alice", "500", "--tenant", "acme") == "500"
    assert await say("users", "top-up", "alice", "-200", "--tenant", "acme") == "300"
    overdrawn, secret, jwt = await asyncio.gather(
        say("users", "top-up", "alice", "-301", "--tenant", "acme", status=1),
        say("keys", "create", "alice", "--tenant", "acme"),
        say("token", "alice", "--tenant", "acme", "--minutes", "5"),
    )
    assert "cannot be deducted" in overdrawn

    await gateway.start()
    for credential in (secret, jwt):
        async with client_of(gateway, credential) as http:
            me = (await http.get("/api/v1/me")).json()
            assert (me["user"]["external_id"], me["tenant"]["slug"], me["role"]) == ("alice", "acme", "tenant_admin")
            assert me["tenant"]["time_zone"] == "Asia/Tokyo"
            assert (await http.get("/api/v1/users/me/tokens")).json()["balance"] == 300
    assert await say("ledger", "verify") == "Checked: accounts 1, holds 0, entries 2.\nThe books are right."


async def test_an_operator_limits_tenants_users_keys_and_new_users(operator: Operator) -> None:
    gateway = operator.configured()

    async def say(*arguments: str, status: int = 0) -> list[str]:
        done = await asyncio.to_thread(gateway.command, *arguments, check=False)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return (done.stdout if status == 0 else done.stderr).splitlines()

    operator.migrated()
    _, (of_tenant,) = await asyncio.gather(
        say("users", "create", "alice"), say("quota", "set", "5000", "--unit", "micro_usd", "--window", "month")
    )
    assert of_tenant.split("\t")[3:] == ["micro_usd", "month", "-", "5000", "0", "0", "5000"]
    (secret,), (of_alice,) = await asyncio.gather(
        say("keys", "create", "alice"), say("quota", "set", "100", "--user", "alice", "--model", "gpt-4o")
    )
    (of_new,) = await say("quota", "set", "70", "--new-users", "--unit", "requests", "--window", "day")
    assert await say("quota", "list") == [of_tenant, of_alice, of_new]
    quota = of_alice.split("\t")[0]
    (adjusted,) = await say("quota", "adjust", quota, "-30", "--reason", "a mistake")
    assert adjusted.split("\t")[5:] == ["gpt-4o", "70", "0", "0", "70"]

    await gateway.start()
    async with client_of(gateway, secret) as http:
        key = (await http.get("/api/v1/me")).json()["api_key"]["id"]
        await say("quota", "set", "0", "--key", key, "--unit", "requests")
        refused = await http.post("/chat", json={"content": "hello", "model": "gpt-4o"})
        assert (refused.status_code, refused.json()["error"]["details"]["scope"]) == (402, "api_key")
    (of_key,) = await say("quota", "list", "--key", key)
    assert await say("quota", "remove", of_key.split("\t")[0]) == []
    wrong = (
        ("remove", of_key.split("\t")[0]),
        ("set", "5", "--user", "nobody"),
        ("set", "5", "--user", "alice", "--new-users"),
    )
    said = await asyncio.gather(*(say("quota", *each, status=1) for each in wrong))
    assert [len(lines) for lines in said] == [1] * len(wrong)


async def test_wrong_books_are_told_and_only_what_expired_is_closed(operator: Operator) -> None:
    gateway = operator.configured()
    operator.migrated()

    def verify(*options: str) -> tuple[int, str]:
        done = gateway.command("ledger", "verify", *options, check=False)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    def by_hand(sql: str, *values: Any) -> None:
        with closing(sqlite3.connect(operator.directory / "gateway.db")) as database, database:
            database.execute(sql, values)

    gateway.command("users", "create", "alice")
    gateway.command("users", "top-up", "alice", "500")
    by_hand(
        "INSERT INTO holds (id, tenant_id, user_id, model, request_id, state, created_at, expires_at, cancel_requested)"
        " SELECT ?, tenant_id, id, 'm', 'r', 'open', ?, ?, 0 FROM users WHERE external_id = 'alice'",
        uuid4().hex,
        *["2026-01-01 00:00:00.000000"] * 2,
    )
    assert (await asyncio.to_thread(verify))[0] == 0
    assert "Expired holds still open: 1." in (await asyncio.to_thread(verify))[1]
    by_hand("UPDATE accounts SET balance = balance + 1")
    status, told = await asyncio.to_thread(verify, "--repair")
    assert status == 1
    assert "Expired holds closed: 1.\nChecked: accounts 1, holds 1, entries 1.\n" in told
    assert "Broken: An account's balance is the sum of its entries.\n" in told
    assert "expected 500, found 501\n" in told
    assert "The books are wrong." in told
    status, told = await asyncio.to_thread(verify, "--json")
    report = json.loads(told)
    assert (status, report["right"], report["closed"], report["overdue"]) == (1, False, 0, 0)
    (breach,) = report["breaches"]
    assert (breach["count"], breach["examples"][0]["found"]) == (1, 501)


async def test_an_operator_sees_what_is_configured(operator: Operator) -> None:
    gateway = operator.configured(OPENROUTER_API_KEY="")
    (operator.directory / "models.yaml").write_text(
        "models:\n  - {name: own, provider: openai, context_window: 1000, max_output: 100,"
        " price: {input: 0.15, output: 0.6}}\n"
    )
    operator.migrated()
    told = (await asyncio.to_thread(gateway.command, "doctor")).stdout.splitlines()
    assert "database: sqlite, migrated" in told
    assert "provider openai: ready" in told
    assert "provider openrouter: set OPENROUTER_API_KEY" in told
    with_file = operator.configured(GATEWAY_CONFIG=str(operator.directory / "models.yaml"))
    assert (await asyncio.to_thread(with_file.command, "models", "sync")).stdout == "1 rows changed.\n"
    listed = (await asyncio.to_thread(with_file.command, "models", "list")).stdout.splitlines()
    assert "own\topenai\t1000\t0.15/0.6\tactive" in listed
    assert "gpt-4-turbo\topenai\t128000\t10/30\tretired" in listed
    assert "smollm2-135m\tbuiltin\t2048\t0/0\tactive" in listed


async def test_the_openapi_document_describes_the_surface(operator: Operator) -> None:
    printed = (await asyncio.to_thread(operator.configured().command, "openapi")).stdout
    document: dict[str, Any] = json.loads(printed)
    assert {"/v1/chat/completions", "/v1/messages", "/api/v1/dialogs", "/chat", "/health"} <= set(document["paths"])
    assert set(document["components"]["securitySchemes"]) >= {"bearer", "x-api-key"}


async def test_the_log_is_json_without_secrets_prompts_and_answers(operator: Operator) -> None:
    gateway = await operator.started(operator.configured(GATEWAY_LOG_LEVEL="DEBUG"))
    operator.upstream.script(Answer(text=REPLY), Answer(text=REPLY), Fail(status=500, message=REPLY))
    body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 50}
    request_id = "a-request-of-ours"
    async with client_of(gateway) as http:
        for model in ("gpt-4o", "claude-3-opus", "gemini-2.5-flash"):
            await http.post("/v1/chat/completions", json={**body, "model": model}, headers={"x-request-id": request_id})
        await http.get("/api/v1/me", params={"key": ADMIN_KEY})
        await new_user(http, "alice", 100)
    jwt = (await asyncio.to_thread(gateway.command, "token", "alice")).stdout.strip()
    async with client_of(gateway, jwt) as http:
        assert (await http.get("/api/v1/me")).status_code == 200
    await gateway.stop()

    printed = gateway.output()
    greeting, _, logged = printed.partition("\n\n{")
    lines = [json.loads(line) for line in ("{" + logged).splitlines()]
    assert "LLM Gateway" in greeting
    asked = [line for line in lines if line.get("request_id") == request_id and line["event"] == "request"]
    assert [(line["path"], line["status"]) for line in asked] == [
        ("/v1/chat/completions", 200),
        ("/v1/chat/completions", 200),
        ("/v1/chat/completions", 502),
    ]
    assert all({"timestamp", "level", "event"} <= set(line) for line in lines)
    for secret in (ADMIN_KEY, ENCRYPTION_KEY, JWT_SECRET, PROVIDER_KEY, PROMPT, REPLY, jwt.rpartition(".")[2]):
        assert secret not in printed
    assert not re.search(r"Traceback|Task exception|never retrieved", printed)
