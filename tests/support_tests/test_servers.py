"""PostgreSQL, Valkey, the JWKS publisher and the provider process are real: they serve, crash, hang and come back."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request

import asyncpg
import jwt
import pytest
import redis.asyncio
from aiohttp import ClientSession, ClientTimeout
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support.jwks import JwksServer
from tests.support.postgres import PostgresServer
from tests.support.redis_server import RedisServer


def client_of(server: RedisServer) -> redis.asyncio.Redis:
    return redis.asyncio.from_url(server.url, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))


class TestPostgres:
    async def test_each_test_has_an_empty_database(self, postgres_url: str) -> None:
        connection = await asyncpg.connect(postgres_url)
        try:
            await connection.execute("CREATE TABLE things (id int PRIMARY KEY)")
            assert await connection.fetchval("SELECT count(*) FROM things") == 0
        finally:
            await connection.close()

    async def test_a_database_is_copied_from_a_template(self, postgres_server: PostgresServer) -> None:
        async with postgres_server.database() as template_url:
            template = await asyncpg.connect(template_url)
            await template.execute("CREATE TABLE things AS SELECT 7 AS id")
            await template.close()
            async with postgres_server.database(template_url.rpartition("/")[2]) as copy_url:
                copy = await asyncpg.connect(copy_url)
                assert await copy.fetchval("SELECT id FROM things") == 7
                copy.terminate()

    async def test_a_crashed_server_comes_back_with_what_was_committed(self) -> None:
        server = PostgresServer.start_own()
        try:
            connection = await asyncpg.connect(server.admin_url)
            await connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
            server.crash()
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await connection.fetchval("SELECT 1")
            connection.terminate()
            server.restart()
            again = await asyncpg.connect(server.admin_url)
            assert await again.fetchval("SELECT id FROM kept") == 1
            await again.close()
        finally:
            server.stop()


class TestRedis:
    async def test_the_shared_server_answers(self, redis_url: str) -> None:
        async with redis.asyncio.from_url(redis_url) as client:
            await client.set("a", "1")
            assert await client.get("a") == b"1"

    async def test_a_killed_server_comes_back_empty_on_its_port(self, disposable_redis: RedisServer) -> None:
        async with client_of(disposable_redis) as client:
            await client.set("a", "1")
            disposable_redis.kill()
            with pytest.raises(redis.asyncio.ConnectionError):
                await client.get("a")
            disposable_redis.restart()
            assert await client.get("a") is None

    async def test_a_frozen_server_times_out_until_it_thaws(self, disposable_redis: RedisServer) -> None:
        async with client_of(disposable_redis) as client:
            await client.set("a", "1")
            disposable_redis.freeze()
            with pytest.raises(redis.asyncio.TimeoutError):
                await client.get("a")
            disposable_redis.thaw()
            assert await client.get("a") == b"1"


class TestJwks:
    @pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
    async def test_a_token_verifies_by_the_published_key(self, jwks: JwksServer, alg: str) -> None:
        async with ClientSession() as http, http.get(jwks.url) as response:
            published = jwt.PyJWKSet.from_dict(await response.json())
        token = jwks.sign({"sub": "u"}, alg=alg)
        key = published[jwt.get_unverified_header(token)["kid"]]
        assert jwt.decode(token, key, algorithms=[alg]) == {"sub": "u"}
        assert jwks.fetches == 1

    async def test_rotation_withdraws_the_old_keys_unless_kept(self, jwks: JwksServer) -> None:
        old = jwks.key()
        jwks.rotate(keep_old=True)
        assert old.kid in {key["kid"] for key in jwks.document()["keys"]}
        jwks.rotate()
        assert old.kid not in {key["kid"] for key in jwks.document()["keys"]}

    async def test_it_hangs_and_fails_until_it_recovers(self, jwks: JwksServer) -> None:
        async with ClientSession(timeout=ClientTimeout(total=0.1)) as http:
            jwks.hang()
            with pytest.raises(TimeoutError):
                await http.get(jwks.url)
            jwks.recover()
            jwks.fail(500)
            async with http.get(jwks.url) as response:
                assert response.status == 500


async def test_the_provider_runs_as_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "tests.support.upstream", "--behaviour", '{"name": "Answer", "text": "hi"}']
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        urls = json.loads(await process.stdout.readline())
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
        request = urllib.request.Request(f"{urls['openai']}/chat/completions", body, {"authorization": "Bearer sk"})
        reply = await asyncio.to_thread(lambda: json.load(urllib.request.urlopen(request, timeout=5)))
        assert reply["choices"][0]["message"]["content"] == "hi"
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0
