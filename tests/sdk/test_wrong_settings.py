"""What a client is told whose base URL, or whose operator's key, is not what it should be; and that it asks once."""

import anthropic
import openai
import pytest

from tests.sdk.conftest import Scene
from tests.support.upstream import Fail

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_base_url_without_v1_is_told_so(scene: Scene) -> None:
    client = await scene.openai(base_url=scene.gateway.url)
    for path in (
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}]),
        client.responses.create(model="gpt-4o", input="hi"),
        client.embeddings.create(model="text-embedding-3-small", input="hi"),
    ):
        with pytest.raises(openai.NotFoundError, match="with /v1 at its end"):
            await path


async def test_a_base_url_with_v1_is_told_so_where_it_is_one_too_many(scene: Scene) -> None:
    client = await scene.anthropic(base_url=f"{scene.gateway.url}/v1")
    with pytest.raises(anthropic.NotFoundError, match="Anthropic's and Google's without"):
        await client.messages.create(model="gpt-4o", max_tokens=5, messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_only_an_operator_can_mend_is_not_asked_for_again(scene: Scene, status: int) -> None:
    scene.upstream.always(Fail(status=status))
    client, sent = await scene.openai(), len(scene.sent)
    with pytest.raises(openai.InternalServerError) as caught:
        await client.responses.create(model="gpt-4o", input="hi")
    assert caught.value.status_code == 502
    assert len(scene.sent) - sent == 1
