"""Stock clients list the models and look one up, each in the shape that it demands."""

import anthropic
import openai
import pytest

from tests.sdk.conftest import OPENROUTER_MODEL, Scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = ("gpt-4o", "claude-3-opus", "gemini-2.5-flash", "text-embedding-3-small", OPENROUTER_MODEL)


async def test_openais_client_lists_and_finds_every_model(scene: Scene) -> None:
    client = await scene.openai(_strict_response_validation=True)
    listed = {model.id: model async for model in client.models.list()}
    assert set(NAMES) <= listed.keys()
    for name in NAMES:
        found = await client.models.retrieve(name)
        assert found == listed[name]
        assert (found.id, found.object) == (name, "model")
    assert listed["gpt-4o"].owned_by == "openai"
    assert "%2F" in str(scene.sent[-1].url)
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("no/such-model")
    assert caught.value.code == "model_not_found"


async def test_anthropics_client_lists_and_finds_every_model(scene: Scene) -> None:
    client = await scene.anthropic(_strict_response_validation=True)
    listed = {model.id: model async for model in client.models.list()}
    assert set(NAMES) <= listed.keys()
    for name in NAMES:
        found = await client.models.retrieve(name)
        assert found == listed[name]
        assert (found.id, found.type, found.display_name) == (name, "model", name)
    opus = listed["claude-3-opus"]
    assert (opus.lifecycle, opus.max_input_tokens, opus.max_tokens) == ("retired", 200_000, 4096)
    assert listed["gpt-4o"].lifecycle == "deprecated"
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("no/such-model")


async def test_anthropics_client_pages_through_the_models_either_way(scene: Scene) -> None:
    client = await scene.anthropic(_strict_response_validation=True)
    names = [model.id async for model in client.models.list(limit=1000)]
    assert len(scene.sent) == 1, "that many fit in one page"
    assert names == sorted(names)
    assert [model.id async for model in client.models.list(limit=3)] == names
    assert len(scene.sent) == 1 + -(-len(names) // 3)
    page = await client.models.list(limit=2, after_id=names[1])
    told = (page.first_id, page.last_id, page.has_more)
    assert ([model.id for model in page.data], told) == (names[2:4], (names[2], names[3], True))
    page = await client.models.list(limit=2, before_id=names[3])
    assert ([model.id for model in page.data], page.has_more) == (names[1:3], True)
    page = await client.models.list(limit=3, before_id=names[3])
    assert ([model.id for model in page.data], page.has_more) == (names[:3], False)
    page = await client.models.list(after_id=names[-1])
    assert (page.data, page.first_id, page.last_id, page.has_more) == ([], None, None, False)
    for limit in (0, 1001):
        with pytest.raises(anthropic.BadRequestError, match="limit"):
            await client.models.list(limit=limit)


async def test_a_chain_takes_what_its_smallest_model_takes(scene: Scene) -> None:
    made = await scene.gateway.http.post(
        "/api/v1/admin/chains", json={"name": "both", "models": ["gpt-4o", "claude-3-opus"]}
    )
    assert made.status_code in (200, 201), made.text
    client = await scene.anthropic(_strict_response_validation=True)
    found = await client.models.retrieve("both")
    assert (found.lifecycle, found.max_input_tokens, found.max_tokens) == ("active", 128_000, 4096)
    openai_client = await scene.openai(_strict_response_validation=True)
    assert (await openai_client.models.retrieve("both")).owned_by == "llm-gateway"


async def test_who_may_use_few_models_sees_few(scene: Scene) -> None:
    client = await scene.openai(await scene.person(models=["gpt-4o", "text-embedding-3-small"]))
    assert [model.id async for model in client.models.list()] == ["gpt-4o", "text-embedding-3-small"]
    with pytest.raises(openai.PermissionDeniedError):
        await client.models.retrieve("gpt-4o-mini")
