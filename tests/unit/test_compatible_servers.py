"""Which servers are OpenAI's own, and know what those that are compatible with it do not."""

import pytest

from src.domain.catalog.model import Provider, ProviderKind
from src.integrations.llm.compatible_servers import is_openais


@pytest.mark.parametrize(
    ("name", "base_url", "found"),
    [
        ("mine", "https://api.openai.com/v1", True),
        ("mine", "https://eu.api.openai.com/v1", True),
        ("mine", "https://resource.openai.azure.com/openai/v1", True),
        ("openai", "http://127.0.0.1:9/v1", True),
        ("mine", "http://127.0.0.1:9/v1", False),
        ("mine", "https://openrouter.ai/api/v1", False),
        ("mine", "https://notapi.openai.com/v1", False),
        ("mine", "https://api.openai.com.example.org/v1", False),
    ],
)
def test_openai_is_known_by_its_address_or_its_name(name: str, base_url: str, found: bool) -> None:
    assert is_openais(Provider(name=name, kind=ProviderKind.OPENAI, base_url=base_url), base_url) is found
