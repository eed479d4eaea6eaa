"""GATEWAY_CONFIG and the data file of models."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from src.api.catalog_schema import ModelBody, PriceBody, ProviderBody, read_catalog_file
from src.domain.catalog.model import MAX_CHAIN, Capabilities, Chain, Lifecycle, Price, Provider, ProviderKind, Tier
from src.domain.catalog.use_cases import CatalogFile
from src.integrations.catalog import MODELS_FILE
from src.shared.errors import Misconfigured
from src.shared.money import Rate
from tests.unit.support import usd

DESIGNED = """
providers:            # openai, anthropic, google, openrouter and builtin exist by themselves when their key is set
  - {name: my-vllm, kind: openai, base_url: "http://vllm:8000/v1", api_key_env: VLLM_KEY}
models:
  - {name: fast, provider: openai, upstream: gpt-4o-mini, context_window: 128000, max_output: 16384,
     price: {input: 0.15, output: 0.6, cache_read: 0.075}}
chains:
  smart: [gpt-4-turbo, claude-3-opus, fast]
"""
MODEL = "name: fast, provider: openai, context_window: 1000, max_output: 100"


@pytest.fixture
def read(tmp_path: Path):
    def read(text: str) -> CatalogFile:
        path = tmp_path / "gateway.yaml"
        path.write_text(text, encoding="utf-8")
        return read_catalog_file(path)

    return read


def test_the_example_of_the_design_is_read(read) -> None:
    found = read(DESIGNED)
    assert found.providers == (
        Provider(
            name="my-vllm",
            kind=ProviderKind.OPENAI,
            base_url="http://vllm:8000/v1",
            api_key_env="VLLM_KEY",
            enabled=True,
        ),
    )
    (model,) = found.models
    assert (model.name, model.upstream, model.context_window, model.max_output) == (
        "fast",
        "gpt-4o-mini",
        128000,
        16384,
    )
    assert model.prices == (Price(input=Rate(150_000), output=Rate(600_000), cache_read=Rate(75_000)),)
    assert found.chains == (Chain(name="smart", models=("gpt-4-turbo", "claude-3-opus", "fast")),)


def test_the_shipped_models_are_read() -> None:
    found = read_catalog_file(MODELS_FILE)
    models = {model.name: model for model in found.models}
    assert len(models) == len(found.models) > 20
    opus = models["claude-3-opus"]
    assert (opus.lifecycle, opus.context_window) == (Lifecycle.RETIRED, 200_000)
    assert (opus.prices[0].input, opus.prices[0].output) == (usd(15), usd(75))
    assert models[str(opus.replacement)].lifecycle is Lifecycle.ACTIVE


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}", "chains: {}\nmodels: []"])
def test_an_empty_file_says_nothing(read, text: str) -> None:
    assert read(text) == CatalogFile()


def test_what_is_left_out_has_sensible_values(read) -> None:
    (model,) = read(f"models: [{{{MODEL}}}]").models
    assert (model.upstream, model.prices, model.capabilities) == ("fast", (), Capabilities())
    assert (model.lifecycle, model.replacement, model.enabled) == (Lifecycle.ACTIVE, None, True)
    assert model.output_reserve is None


@pytest.mark.parametrize("reserve", [1, 100])
def test_an_output_reserve_is_at_most_the_models_maximum(read, reserve: int) -> None:
    (model,) = read(f"models: [{{{MODEL}, output_reserve: {reserve}}}]").models
    assert model.output_reserve == reserve


def test_prices_may_be_dated_and_tiered(read) -> None:
    (model,) = read(
        f"""models:
          - {{{MODEL}, price: [
               {{input: 1, output: 2}},
               {{from: 2026-01-01, input: 2, output: 3,
                 tiers: [{{above_input_tokens: 200000, input: 4, output: 6, cache_write: 5}}]}},
               {{from: 2026-06-01T12:00:00Z, input: 3, output: 4}}]}}"""
    ).models
    first, second, third = model.prices
    assert first.effective_from is None
    assert second.effective_from == datetime(2026, 1, 1, tzinfo=UTC)
    assert third.effective_from == datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert second.tiers == (Tier(above_input_tokens=200_000, input=usd(4), output=usd(6), cache_write=usd(5)),)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[1, 2]", ""),
        ("models: 5", "models"),
        ("modells: []", "modells"),
        ("models: [{name: fast}]", "models.0.provider"),
        (f"models: [{{{MODEL}, prize: 1}}]", "models.0.prize"),
        (f"models: [{{{MODEL}, price: {{input: 1}}}}]", "models.0.price.0.output"),
        (f"models: [{{{MODEL}, price: {{input: -1, output: 1}}}}]", "models.0.price.0.input"),
        (f"models: [{{{MODEL}, price: {{input: .nan, output: 1}}}}]", "models.0.price.0.input"),
        (f"models: [{{{MODEL}, price: {{input: 0.0000001, output: 1}}}}]", "models.0.price.0.input"),
        (f"models: [{{{MODEL}, price: {{input: 1, output: 1e99}}}}]", "models.0.price.0.output"),
        (f"models: [{{{MODEL}, price: [{{input: 1, output: 1}}, {{input: 2, output: 2}}]}}]", "models.0"),
        (f"models: [{{{MODEL}, lifecycle: asleep}}]", "models.0.lifecycle"),
        ("models: [{name: ' fast', provider: openai, context_window: 1, max_output: 1}]", "models.0.name"),
        ("models: [{name: fast, provider: openai, context_window: 0, max_output: 1}]", "models.0.context_window"),
        ("models: [{name: fast, provider: openai, context_window: 1, max_output: 1.5}]", "models.0.max_output"),
        (f"models: [{{{MODEL}, output_reserve: 0}}]", "models.0.output_reserve"),
        (f"models: [{{{MODEL}, output_reserve: 101}}]", "models.0.output_reserve"),
        ("providers: [{name: x, kind: telepathy}]", "providers.0.kind"),
        ("providers: [{name: x, kind: openai, base_url: 'file:///etc/passwd'}]", "providers.0.base_url"),
        ("providers: [{name: x, kind: openai, api_key_env: GATEWAY_JWT_SECRET}]", "providers.0.api_key_env"),
        ("chains: {smart: []}", "chains.smart.models"),
        ("chains: {smart: fast}", "chains.smart"),
        ("chains: {'a b': [fast]}", "chains.a b"),
    ],
)
def test_a_mistake_is_named_by_file_and_field(read, text: str, where: str) -> None:
    with pytest.raises(Misconfigured, match=r"gateway\.yaml") as caught:
        read(text)
    assert f": {where}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_chain_has_an_end(read) -> None:
    names = [f"m{number}" for number in range(MAX_CHAIN + 1)]
    assert len(read(f"chains: {{smart: [{', '.join(names[:-1])}]}}").chains[0].models) == MAX_CHAIN
    with pytest.raises(Misconfigured):
        read(f"chains: {{smart: [{', '.join(names)}]}}")


@pytest.mark.parametrize("text", ["models: [", "\tmodels: []", "a: !!python/object:os.system {}"])
def test_what_is_no_yaml_is_refused(read, text: str) -> None:
    with pytest.raises(Misconfigured, match="cannot be read"):
        read(text)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_catalog_file(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_catalog_file(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "GATEWAY_ENCRYPTION_KEY",
        "GATEWAY_BOOTSTRAP_KEY",
        "GATEWAY_JWT_SECRET",
        "DATABASE_URL",
        "REDIS_URL",
        "POSTGRES_PASSWORD",
        "POSTGRES_KEY",
        "PATH",
        "HOME",
        "vllm_key",
        "",
    ],
)
def test_a_provider_may_not_be_sent_one_of_our_own_secrets(name: str) -> None:
    with pytest.raises(ValidationError):
        ProviderBody(name="x", kind=ProviderKind.OPENAI, api_key_env=name)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "VLLM_KEY", "HF_TOKEN"])
def test_a_provider_may_be_sent_a_key_or_token_of_its_own(name: str) -> None:
    assert ProviderBody(name="x", kind=ProviderKind.OPENAI, api_key_env=name).to_domain().api_key_env == name


@pytest.mark.parametrize("price", [{"input": 1, "output": 2}, [{"input": 1, "output": 2}]])
def test_one_price_may_stand_alone(price: object) -> None:
    body = ModelBody(name="fast", provider="openai", context_window=10, max_output=5, price=price)
    assert body.to_domain().prices == (Price(input=usd(1), output=usd(2)),)


def test_a_moment_without_a_zone_is_in_utc() -> None:
    price = PriceBody(input=1, output=1, effective_from=datetime(2026, 1, 1)).to_domain()  # noqa: DTZ001
    assert price.effective_from == datetime(2026, 1, 1, tzinfo=UTC)
