"""Every field of every native body: wrong types, absurd numbers, empty and endless values are a 422 that names it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.http.surface import NATIVE, Scene, body_routes, check_error, dialect_of, nothing_changes, send, set_scene
from tests.support.gateway import RunningGateway
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_TEXT: tuple[Any, ...] = (5, 1.5, True, [], {}, ["x"])
NO_FLAG: tuple[Any, ...] = ("true", "yes", 1, 0, 1.0, [], {})
NO_ZONE: tuple[Any, ...] = (
    *NO_TEXT,
    None,
    "",
    "utc",
    "Europe/Nowhere",
    "Europe",
    "../UTC",
    "/etc/localtime",
    "x" * 201,
)
NO_COUNT: tuple[Any, ...] = ("5", 1.5, True, [], {}, 0, -1, 10**30, 1e308, 2**64)
NO_NUMBER: tuple[Any, ...] = ("0.5", True, [], {}, -3, 10**30, 1e308, 2**64)
NO_LIMIT: tuple[Any, ...] = ("5", 1.5, True, [], {}, -1, 10**15 + 1, 10**30, 1e308)
NO_RATE_LIMITS: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("requests_per_minute", "tokens_per_minute", "parallel"), (*NO_LIMIT, 0)
)
NO_OBJECT: tuple[Any, ...] = (5, "x", True, [], [{}])
NO_NAME: tuple[Any, ...] = (*NO_TEXT, "", "x" * 201)
NO_TITLE: tuple[Any, ...] = (*NO_TEXT, "x" * 501)
NO_ID: tuple[Any, ...] = (5, True, [], "not-a-uuid", "", "x" * 5000)
NO_MOMENT: tuple[Any, ...] = (
    5, 1e308, True, [], "soon", "", "2030-13-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:00",
)  # fmt: skip
NO_PRICE: tuple[Any, ...] = (-1, "x", True, [], "NaN", "Infinity", "-0.1", 10**30, 1e308, "0.0000001", None)
NO_CATALOG_NAME: tuple[Any, ...] = (*NO_TEXT, "", "x" * 201, "a b", "a\nb", "-a", "ä", "../a", None)

PARAMS: dict[str, tuple[Any, ...]] = {
    "params": NO_OBJECT,
    "params.max_output_tokens": NO_COUNT,
    "params.temperature": (*NO_NUMBER, 2.1),
    "params.top_p": (*NO_NUMBER, 1.1),
    "params.top_k": (*NO_COUNT[:5], -1, 10**30),
    "params.stop": (5, True, {}, [5], [""], ["x"] * 17, ["x" * 501], [["x"]]),
    "params.presence_penalty": NO_NUMBER,
    "params.frequency_penalty": NO_NUMBER,
    "params.seed": ("5", 1.5, True, [], 10**30, 2**64),
}
DIALOG: dict[str, tuple[Any, ...]] = {
    "title": NO_TITLE,
    "model": NO_NAME,
    "system_prompt": (*NO_TEXT, "x" * 4_000_001),
    "metadata": (*NO_OBJECT, {"a": "x" * 70_000}),
    **PARAMS,
}
FREE = {"input": 0, "output": 0}
MODEL = {"name": "m", "provider": "openai", "context_window": 100, "max_output": 10, "price": FREE}
RATES: dict[str, tuple[Any, ...]] = {"input": NO_PRICE, "output": NO_PRICE, "cache_read": NO_PRICE[:-1]}

TABLE: dict[tuple[str, str], tuple[dict[str, Any], dict[str, tuple[Any, ...]]]] = {
    ("POST", "/api/v1/dialogs"): ({}, DIALOG),
    ("PATCH", "/api/v1/dialogs/{dialog_id}"): ({}, DIALOG),
    ("POST", "/api/v1/dialogs/{dialog_id}/messages"): (
        {"content": "x"},
        {
            "content": (*NO_TEXT, None, "", " \n\t ", "x" * 4_000_001),
            "stream": (*NO_FLAG, None),
            "model": NO_NAME,
            "parent_id": NO_TEXT,
            **PARAMS,
        },
    ),
    ("POST", "/api/v1/estimates"): (
        {"messages": [{"role": "user", "content": "x"}], "model": "gpt-4o"},
        {
            "messages": (
                5, "x", True, {}, [], [5], [{}], [{"role": "user"}], [{"role": "robot", "content": "x"}],
                [{"role": "user", "content": " "}], [{"role": "user", "content": "x", "name": "y"}],
            ),
            "dialog_id": NO_TEXT,
            "content": (*NO_TEXT, "", " \n\t ", "x" * 4_000_001),
            "parent_id": NO_TEXT,
            "model": NO_NAME,
            "max_output_tokens": NO_COUNT,
            "stream": (*NO_FLAG, None),
            **PARAMS,
        },
    ),
    ("POST", "/chat"): (
        {"content": "x", "model": "gpt-4o"},
        {
            "content": (*NO_TEXT, None, "", " \n\t ", "x" * 4_000_001),
            "model": NO_NAME,
            "user_id": (*NO_TEXT, "", "  ", "x" * 201, "a\u0007b"),
        },
    ),
    ("POST", "/api/v1/api-keys"): (
        {"name": "key"},
        {
            "name": (*NO_NAME, None, " ", "a\nb"),
            "models": (5, "gpt-4o", True, {}, [], [5], [""], [None], ["a\nb"], ["x"] * 201),
            "expires_at": (*NO_MOMENT, "2030-01-01T00:00:00", "2030-01-01", "2001-01-01T00:00:00Z"),
            "user_id": NO_ID,
        },
    ),
    ("POST", "/api/v1/auth/login"): (
        {"email": "a@b", "password": "x"},
        {"email": (*NO_NAME, None), "password": (*NO_TEXT, None, "x" * 2001), "tenant": NO_NAME},
    ),
    ("POST", "/api/v1/auth/refresh"): ({}, {"refresh_token": (*NO_TEXT, None, "", "x" * 2001)}),
    ("POST", "/api/v1/auth/logout"): ({}, {"refresh_token": (*NO_TEXT, "", "x" * 2001)}),
    ("POST", "/api/v1/admin/tenants"): (
        {"slug": "fine", "name": "Fine"},
        {
            "slug": (*NO_NAME, None, "A", "a b", "a/b", "-a", "ä", "a\n", "01a1fd81-a49e-7121-a80f-58f0768bddde"),
            "name": (*NO_NAME, None, " ", "a\nb"),
            "time_zone": NO_ZONE,
        },
    ),
    ("PATCH", "/api/v1/admin/tenants/{tenant_id}"): (
        {},
        {"name": (*NO_NAME, None, " "), "disabled": (*NO_FLAG, None), "time_zone": NO_ZONE},
    ),
    ("POST", "/api/v1/admin/users"): (
        {"external_id": "zoe"},
        {
            "external_id": (*NO_NAME, None, " ", "a\nb"),
            "tenant_id": NO_ID,
            "role": (*NO_TEXT, "root", "", None, "USER"),
            "name": (*NO_NAME, "a\u0007"),
            "email": (*NO_NAME, "nobody", "@", "a b@c", "a@b\n"),
            "password": (*NO_TEXT, "", "short", "x" * 2001, "ä" * 600),
        },
    ),
    ("PATCH", "/api/v1/admin/users/{user_id}"): (
        {},
        {
            "role": (*NO_TEXT, "root", "", None),
            "name": (*NO_NAME, " "),
            "email": (*NO_NAME, "nobody"),
            "password": (*NO_TEXT, "", "short", "x" * 2001),
            "disabled": (*NO_FLAG, None),
        },
    ),
    ("POST", "/api/v1/admin/users/{user_id}/tokens"): (
        {"amount": 5},
        {
            "amount": ("5", 1.5, True, [], {}, None, 0, 10**13, -(10**13), 10**30, 1e308),
            "unit": (*NO_TEXT, "euros", "", None),
            "reason": (*NO_TEXT, "", " ", "a\u0007", "x" * 501),
        },
    ),
    ("PATCH", "/api/v1/admin/users/{user_id}/limits"): (
        {},
        {
            **{
                f"{unit}_per_{window}": NO_LIMIT
                for unit in ("tokens", "micro_usd", "requests")
                for window in ("day", "month")
            },
            **NO_RATE_LIMITS,
        },
    ),
    ("PUT", "/api/v1/admin/rate-limits"): (
        {"scope": "tenant", "scope_id": "{tenant_id}", "parallel": 5},
        {"scope": (*NO_TEXT, "world", "", None, "new_user"), "scope_id": (*NO_NAME, None), **NO_RATE_LIMITS},
    ),
    ("PUT", "/api/v1/admin/quotas"): (
        {"scope": "tenant", "scope_id": "{tenant_id}", "unit": "tokens", "window": "day", "limit": 5},
        {
            "scope": (*NO_TEXT, "world", "", None),
            "scope_id": (*NO_ID, None),
            "unit": (*NO_TEXT, "euros", "", None),
            "window": (*NO_TEXT, "week", "", None),
            "limit": (*NO_LIMIT, None),
            "model": (*NO_NAME, "nobody", " ", "gpt-4o "),
        },
    ),
    ("POST", "/api/v1/admin/quotas/{quota_id}/adjustments"): (
        {"amount": 5},
        {
            "amount": ("5", 1.5, True, [], {}, None, 0, 10**13, -(10**13), 10**30, 1e308),
            "reason": (*NO_TEXT, "", " ", "a\u0007", "x" * 501),
        },
    ),
    ("POST", "/api/v1/admin/providers"): (
        {"name": "mine", "kind": "openai", "base_url": "http://mine/v1"},
        {
            "name": NO_CATALOG_NAME,
            "kind": (*NO_TEXT, "soap", "", None),
            "base_url": (*NO_TEXT, "", "mine", "ftp://a", "http://", "http://[", "http://a b", "http://a:99999", "x\n"),
            "api_key_env": (*NO_TEXT, "", "GATEWAY_JWT_SECRET", "GATEWAY_BOOTSTRAP_KEY", "POSTGRES_KEY", "PATH", "a b"),
            "enabled": (*NO_FLAG, None),
        },
    ),
    ("POST", "/api/v1/admin/models"): (
        MODEL,
        {
            "name": NO_CATALOG_NAME,
            "provider": (*NO_CATALOG_NAME, "nobody"),
            "upstream": NO_NAME,
            "context_window": (*NO_COUNT, None),
            "max_output": (*NO_COUNT, None),
            "output_reserve": (*NO_COUNT, MODEL["max_output"] + 1),
            "price": (5, "x", True, [5], [{}], {"input": 1}, {**FREE, "colour": 1}, [FREE] * 2),
            "capabilities": (*NO_OBJECT, {"sampling": 1}, {"flying": True}),
            "lifecycle": (*NO_TEXT, "dead", None),
            "replacement": NO_CATALOG_NAME[:-1],
            "enabled": (*NO_FLAG, None),
        },
    ),
    ("POST", "/api/v1/admin/models/{name}/prices"): (
        {"input": 1, "output": 1},
        {**RATES, "from": NO_MOMENT, "tiers": (5, "x", {}, [5], [{}], [{**FREE, "above_input_tokens": True}])},
    ),
    ("POST", "/api/v1/admin/chains"): (
        {"name": "c", "models": ["gpt-4o"]},
        {
            "name": (*NO_CATALOG_NAME, "gpt-4o"),
            "models": (5, "gpt-4o", True, {}, [], [5], ["nobody"], ["gpt-4o"] * 2, [f"m{n}" for n in range(9)], None),
        },
    ),
}  # fmt: skip

CASES = [
    pytest.param(method, template, valid, field, values, id=f"{method} {template} {field}")
    for (method, template), (valid, fields) in TABLE.items()
    for field, values in fields.items()
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(shared_gateway: RunningGateway) -> Scene:
    return await set_scene(shared_gateway)


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared_gateway: RunningGateway, shared_upstream: Upstream) -> AsyncIterator[RunningGateway]:
    async with nothing_changes(shared_gateway, shared_upstream):
        yield shared_gateway


@pytest.mark.parametrize(("method", "template", "valid", "field", "values"), CASES)
async def test_a_wrong_value_is_a_422_that_names_its_field(
    method: str,
    template: str,
    valid: dict[str, Any],
    field: str,
    values: tuple[Any, ...],
    gateway: RunningGateway,
    scene: Scene,
) -> None:
    for value in values:
        body = {name: scene.path(given) if isinstance(given, str) else given for name, given in valid.items()}
        response = await send(gateway.http, method, scene.path(template), _with(body, field, value))
        error = check_error(response, 422)
        assert (error["param"] or "").startswith(field), f"{str(value)[:80]}: {error}"
        assert error["type"] == "invalid_request"
        assert len(response.content) < 5000


def _with(valid: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """The valid body with one field replaced."""
    outer, _, inner = field.partition(".")
    return {**valid, outer: {inner: value} if inner else value}


async def test_every_native_endpoint_with_a_body_is_in_the_table(gateway: RunningGateway) -> None:
    served = {each for each in body_routes(gateway, optional=True) if dialect_of(each[1]) == NATIVE}
    assert served - set(TABLE) == set(), "add these to the table above"


@pytest.mark.parametrize("name", ["nobody", "gpt-4o ", "GPT-4O", "../gpt-4o", "gpt-4o\n", "%00", "x" * 200])
async def test_an_unknown_model_is_a_404_that_names_it(name: str, gateway: RunningGateway, scene: Scene) -> None:
    for method, path, body in (
        ("POST", "/api/v1/dialogs", {"model": name}),
        ("PATCH", f"/api/v1/dialogs/{scene.dialog_id}", {"model": name}),
        ("POST", f"/api/v1/dialogs/{scene.dialog_id}/messages", {"content": "x", "model": name}),
        ("POST", "/chat", {"content": "x", "model": name}),
    ):
        error = check_error(await send(gateway.http, method, path, body), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")


@pytest.mark.parametrize("parent_id", ["", "not-a-uuid", "01a1fd81-a49e-7121-a80f-58f0768bddde", "x" * 100_000, "%00"])
async def test_an_unknown_parent_is_a_404_that_names_the_field(
    parent_id: str, gateway: RunningGateway, scene: Scene
) -> None:
    body = {"content": "x", "parent_id": parent_id}
    response = await send(gateway.http, "POST", f"/api/v1/dialogs/{scene.dialog_id}/messages", body)
    assert check_error(response, 404)["param"] == "parent_id"


async def test_what_is_taken_already_is_a_409_that_names_the_field(gateway: RunningGateway, scene: Scene) -> None:
    me = (await gateway.http.get("/api/v1/me")).json()
    for path, body, field in (
        ("/api/v1/admin/tenants", {"slug": me["tenant"]["slug"], "name": "Again"}, "slug"),
        ("/api/v1/admin/users", {"external_id": me["user"]["external_id"]}, "external_id"),
    ):
        response = await send(gateway.http, "POST", path, body)
        error = check_error(response, 409)
        assert (error["code"], error["param"]) == ("conflict", field)
        assert response.headers["x-should-retry"] == "false"
