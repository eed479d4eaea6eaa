"""The catalog file the gateway ships with, and the script that generates it."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.domain.catalog.model import Capabilities

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "src" / "integrations" / "catalog" / "models.yaml"

TEXT = FILE.read_text(encoding="utf-8")
CATALOG: dict[str, Any] = yaml.safe_load(TEXT)
MODELS: list[dict[str, Any]] = CATALOG["models"]
BY_NAME = {model["name"]: model for model in MODELS}
RATES = {"input", "output", "cache_read", "cache_write"}


def prices_of(model: dict[str, Any]) -> list[dict[str, Any]]:
    price = model["price"]
    return price if isinstance(price, list) else [price]


def is_for_vectors(model: dict[str, Any]) -> bool:
    return bool(model.get("capabilities", {}).get("embeddings"))


def rate_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    for model in MODELS:
        for price in prices_of(model):
            yield model["name"], price
            for tier in price.get("tiers", []):
                yield model["name"], tier


def test_header() -> None:
    assert CATALOG.keys() == {"dated", "models"}
    assert CATALOG["dated"] == date(2026, 11, 21)
    assert "genai-prices" in TEXT
    assert "MIT License" in TEXT


def test_fields() -> None:
    required = {"name", "provider", "upstream", "context_window", "max_output", "lifecycle", "price"}
    for model in MODELS:
        assert required <= model.keys() <= required | {"capabilities", "replacement"}, model
        assert model["provider"] in {"openai", "anthropic", "google", "builtin"}
        assert (model["max_output"] == 0) is is_for_vectors(model)
        assert model["max_output"] <= model["context_window"]


def test_names_are_unique_and_sorted() -> None:
    keys = [(model["provider"], model["name"]) for model in MODELS]
    assert keys == sorted(keys)
    assert len(BY_NAME) == len(MODELS)


def test_capabilities_only_say_what_is_not_as_usual() -> None:
    usual = asdict(Capabilities())
    for model in MODELS:
        capabilities = model.get("capabilities", {"sampling": False})
        assert capabilities
        assert capabilities.keys() <= usual.keys()
        assert not any(usual[name] is value for name, value in capabilities.items()), model


@pytest.mark.parametrize(
    ("name", "lacking", "having"),
    [
        ("gpt-3.5-turbo", {"images", "documents", "structured_output"}, {"tools", "sampling"}),
        ("gpt-4-turbo", {"documents", "structured_output", "audio"}, {"images", "tools"}),
        ("claude-3-opus", {"documents", "structured_output"}, {"images", "tools"}),
        ("claude-sonnet-4-0", {"structured_output"}, {"documents"}),
        ("claude-opus-4-1", {"audio"}, {"structured_output", "documents", "images"}),
        ("gemini-2.5-flash", set(), {"audio", "images", "documents", "tools", "structured_output"}),
        ("gpt-6-sol", {"audio", "sampling"}, {"images", "documents", "tools", "structured_output"}),
        ("o3-mini", {"images", "documents"}, {"tools", "structured_output"}),
        ("text-embedding-3-small", {"images", "tools", "sampling"}, {"embeddings"}),
        ("gemini-embedding-2", {"tools"}, {"embeddings", "images", "audio"}),
    ],
)
def test_what_models_can_do(name: str, lacking: set[str], having: set[str]) -> None:
    capabilities = asdict(Capabilities(**BY_NAME[name].get("capabilities", {})))
    assert not any(capabilities[each] for each in lacking)
    assert all(capabilities[each] for each in having)


@pytest.mark.parametrize(
    ("name", "window", "input_"),
    [
        ("text-embedding-3-small", 8192, 0.02),
        ("text-embedding-3-large", 8192, 0.13),
        ("text-embedding-ada-002", 8192, 0.1),
        ("gemini-embedding-001", 2048, 0.15),
        ("gemini-embedding-2", 8192, 0.2),
    ],
)
def test_models_of_embeddings(name: str, window: int, input_: float) -> None:
    model = BY_NAME[name]
    assert (model["context_window"], model["price"]) == (window, {"input": input_, "output": 0})


def test_lifecycle_and_replacement() -> None:
    for model in MODELS:
        assert model["lifecycle"] in {"active", "deprecated", "retired"}
        assert ("replacement" in model) == (model["lifecycle"] != "active"), model
        if "replacement" in model:
            assert BY_NAME[model["replacement"]]["lifecycle"] == "active"


def test_prices_are_whole_micro_usd() -> None:
    for name, row in rate_rows():
        assert {"input", "output"} <= row.keys() <= RATES | {"from", "tiers", "above_input_tokens"}, name
        for unit in RATES & row.keys():
            micro = Decimal(str(row[unit])) * 1_000_000
            assert micro >= 0, (name, unit)
            assert micro == int(micro), (name, unit)


def test_only_the_built_in_model_is_free() -> None:
    free = {name for name, row in rate_rows() if row["input"] == 0}
    without_output = {name for name, row in rate_rows() if row["output"] == 0}
    assert free == {"smollm2-135m"}
    assert without_output == free | {model["name"] for model in MODELS if is_for_vectors(model)}


def test_dated_prices_rise_by_date() -> None:
    for model in MODELS:
        starts = [price.get("from", date.min) for price in prices_of(model)]
        assert starts == sorted(set(starts)), model["name"]
        assert starts[0] == date.min, model["name"]


def test_tiers_rise_and_carry_the_units_of_their_price() -> None:
    for model in MODELS:
        for price in prices_of(model):
            tiers = price.get("tiers", [])
            bounds = [tier["above_input_tokens"] for tier in tiers]
            assert bounds == sorted(set(bounds))
            assert all(tier.keys() & RATES == price.keys() & RATES for tier in tiers), model["name"]


@pytest.mark.parametrize(
    ("name", "provider", "upstream", "input_", "output", "window"),
    [
        ("gpt-4-turbo", "openai", "gpt-4-turbo", 10, 30, 128_000),
        ("gpt-3.5-turbo", "openai", "gpt-3.5-turbo", 0.5, 1.5, 16_385),
        ("claude-3-opus", "anthropic", "claude-3-opus-20240229", 15, 75, 200_000),
        ("claude-3-sonnet", "anthropic", "claude-3-sonnet-20240229", 3, 15, 200_000),
    ],
)
def test_seed_rows(name: str, provider: str, upstream: str, input_: float, output: float, window: int) -> None:
    model = BY_NAME[name]
    assert (model["provider"], model["upstream"]) == (provider, upstream)
    assert (model["price"]["input"], model["price"]["output"]) == (input_, output)
    assert model["context_window"] == window
    assert model["lifecycle"] == "retired"


def test_other_rows_that_must_be_there() -> None:
    assert BY_NAME["gemini-1.5-flash"]["lifecycle"] == "retired"
    assert BY_NAME["smollm2-135m"] == {
        "name": "smollm2-135m",
        "provider": "builtin",
        "upstream": "SmolLM2-135M-Instruct",
        "context_window": 2048,
        "max_output": 512,
        "capabilities": {"images": False, "documents": False, "tools": False},
        "lifecycle": "active",
        "price": {"input": 0, "output": 0},
    }


@pytest.mark.parametrize(
    ("name", "sampling"),
    [
        ("gpt-4o", True),
        ("o3", False),
        ("gpt-5", False),
        ("gpt-6.1-sol", False),
        ("claude-opus-4-6", True),
        ("claude-opus-4-7", False),
        ("claude-haiku-4-5", True),
        ("claude-sonnet-5", False),
        ("claude-fable-5", False),
        ("gemini-2.5-pro", True),
        ("gemini-3.8-flash", False),
    ],
)
def test_sampling(name: str, sampling: bool) -> None:
    assert BY_NAME[name].get("capabilities", {}).get("sampling", True) is sampling


def test_every_provider_keeps_to_its_own_models_of_both_jobs() -> None:
    answering = {"openai": r"gpt-\d|o\d", "anthropic": r"claude-", "google": r"gemini-\d", "builtin": r"smollm2"}
    embedding = {"openai": r"text-embedding-", "google": r"gemini-embedding-"}
    other_job = re.compile(r"image|audio|tts|live|realtime|transcribe|moderation|search|robotics|cyber|whisper")
    for model in MODELS:
        names = embedding if is_for_vectors(model) else answering
        assert re.match(names[model["provider"]], model["name"])
        assert not other_job.search(model["name"])


def test_the_script_writes_this_file() -> None:
    pytest.importorskip("genai_prices")
    used = f"genai-prices {version('genai-prices')},"
    if used not in TEXT:
        pytest.skip(f"the file was generated from another release of genai-prices, not {used.rstrip(',')}")
    from scripts import build_catalog

    assert build_catalog.render() == TEXT
