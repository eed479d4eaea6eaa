"""Two worker processes on PostgreSQL: one gateway, whichever of them answers."""

import asyncio
import signal
from collections import Counter
from typing import Any

from src.api import bootstrap
from src.shared.settings import Settings
from tests.processes.conftest import Operator, client_of, eventually, new_user, verified
from tests.support.gateway import gateway_environment
from tests.support.upstream import Answer, Usage

CALLS = 64
PAID_FOR = 9
PRICE = 40
"""Tokens of one call, as the upstream reports them."""
SHORT: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 30,
}


async def test_two_workers_never_spend_more_than_there_is(operator: Operator, postgres_url: str) -> None:
    operator.upstream.always(Answer(text="ok", usage=Usage(input=PRICE - 5, output=5), delay_s=0.1))
    gateway = operator.configured(postgres_url, GATEWAY_WORKERS=2)
    await bootstrap.migrate(Settings(_env_file=None, **gateway_environment(postgres_url)))
    await gateway.start()
    credit = PAID_FOR * PRICE
    async with client_of(gateway) as admin:
        secret = await new_user(admin, "alice", credit)

    async def call() -> int:
        async with client_of(gateway, secret) as http:  # a connection of its own: either worker may take it
            return (await http.post("/v1/chat/completions", json=SHORT)).status_code

    statuses = Counter(await asyncio.gather(*(call() for _ in range(CALLS))))
    assert set(statuses) == {200, 429}
    assert statuses[200] <= PAID_FOR
    assert len(operator.upstream.requests) == statuses[200]
    async with client_of(gateway, secret) as http:
        found = (await http.get("/api/v1/users/me/tokens")).json()
    assert (found["balance"], found["held"]) == (credit - PRICE * statuses[200], 0)
    assert await verified(postgres_url)
    assert gateway.output().count("Started server process") == 0  # that is INFO, and WARNING was asked for


async def test_a_change_made_by_one_worker_is_soon_known_to_the_other(operator: Operator, postgres_url: str) -> None:
    gateway = operator.configured(postgres_url, GATEWAY_WORKERS=2)
    await bootstrap.migrate(Settings(_env_file=None, **gateway_environment(postgres_url)))
    await gateway.start()
    async with client_of(gateway) as admin:
        made = await admin.post("/api/v1/admin/chains", json={"name": "smart", "models": ["gpt-4o"]})
        assert made.status_code in (200, 201)
        key = (await admin.post("/api/v1/api-keys", json={"name": "to be revoked"})).json()

    async def status_everywhere(secret: str) -> set[int]:
        async def one() -> int:
            async with client_of(gateway, secret) as http:
                return (await http.post("/v1/chat/completions", json={**SHORT, "model": "smart"})).status_code

        return set(await asyncio.gather(*(one() for _ in range(12))))

    async def is_known() -> bool:
        return await status_everywhere(key["secret"]) == {200}

    await eventually(is_known)
    async with client_of(gateway) as admin:
        assert (await admin.delete(f"/api/v1/api-keys/{key['id']}")).status_code in (200, 204)

    async def is_revoked() -> bool:
        return await status_everywhere(key["secret"]) == {401}

    await eventually(is_revoked, timeout_s=4)
    gateway.signal(signal.SIGTERM)
    assert await gateway.wait() == 0
