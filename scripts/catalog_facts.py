"""What the gateway's catalog says of models, and what genai-prices does not know of them. See build_catalog.py."""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

MICRO: Final = 1_000_000

# --- What a row is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per million tokens; None where the provider has no such rate."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None

    def __post_init__(self) -> None:
        for value in (self.input, self.output, self.cache_read, self.cache_write):
            if value is not None and (value < 0 or value * MICRO % 1):
                raise ValueError(f"{value} USD is not a whole number of micro-USD")


@dataclass(frozen=True, slots=True)
class Price:
    """Rates from a date on, and those of longer prompts: (above how many input tokens, rates)."""

    rates: Rates
    start: date | None = None
    tiers: tuple[tuple[int, Rates], ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    provider: str
    upstream: str
    context_window: int
    max_output: int
    prices: tuple[Price, ...]
    sampling: bool = True
    images: bool = True
    documents: bool = True
    audio: bool = False
    tools: bool = True
    structured_output: bool = True
    embeddings: bool = False
    lifecycle: str = "active"
    replacement: str | None = None


def usd(input_: str, output: str, cache_read: str | None = None, cache_write: str | None = None) -> tuple[Price, ...]:
    """One price without a date."""
    cached = [None if value is None else Decimal(value) for value in (cache_read, cache_write)]
    return (Price(Rates(Decimal(input_), Decimal(output), *cached)),)


CAPABILITIES: Final = frozenset(
    {"sampling", "images", "documents", "audio", "tools", "structured_output", "embeddings"}
)

# --- What genai-prices does not know -------------------------------------------------------------------------------

# Rows kept by hand. The four seed models must never change; the built-in model is ours.
FIXED: Final = (
    Model(
        name="gpt-4-turbo", provider="openai", upstream="gpt-4-turbo",
        context_window=128_000, max_output=4_096, prices=usd("10", "30"), documents=False, structured_output=False,
        lifecycle="retired", replacement="gpt-6.1-sol",
    ),
    Model(
        name="gpt-3.5-turbo", provider="openai", upstream="gpt-3.5-turbo",
        context_window=16_385, max_output=4_096, prices=usd("0.5", "1.5"),
        images=False, documents=False, structured_output=False,
        lifecycle="retired", replacement="gpt-6-luna",
    ),
    Model(
        name="claude-3-opus", provider="anthropic", upstream="claude-3-opus-20240229",
        context_window=200_000, max_output=4_096, prices=usd("15", "75", "1.5", "18.75"),
        documents=False, structured_output=False,
        lifecycle="retired", replacement="claude-opus-5-5",
    ),
    Model(
        name="claude-3-sonnet", provider="anthropic", upstream="claude-3-sonnet-20240229",
        context_window=200_000, max_output=4_096, prices=usd("3", "15", "0.3", "3.75"),
        documents=False, structured_output=False,
        lifecycle="retired", replacement="claude-sonnet-5-5",
    ),
    Model(
        name="smollm2-135m", provider="builtin", upstream="SmolLM2-135M-Instruct",
        context_window=2_048, max_output=512, prices=usd("0", "0"), images=False, documents=False, tools=False,
    ),
)  # fmt: skip

# First-party names of chat models, by provider.
CHAT: Final = {
    "anthropic": re.compile(r"^claude-"),
    "google": re.compile(r"^gemini-\d"),
    "openai": re.compile(r"^(gpt-\d|o\d)"),
}
# First-party names of models that make vectors.
EMBEDDINGS: Final = {
    "google": re.compile(r"^gemini-embedding-\d"),
    "openai": re.compile(r"^text-embedding-"),
}
# Other jobs than chat, models of the Responses API only (pro, codex, deep research), models for vetted customers,
# and snapshots (four digits), which the undated name stands for.
OTHER_JOB: Final = {
    "anthropic": re.compile(r"\d{8}"),
    "google": re.compile(r"audio|computer-use|embedding|image|live|robotics|transcribe|tts|vision"),
    "openai": re.compile(
        r":|-\d{4}|\dk$|audio|codex|cyber|deep-research|image|instruct|-pro$|preview|realtime|rosalind|search|"
        r"transcribe|tts|vision"
    ),
}
# Retired before 2026, or replaced by a name of its own.
LEFT_OUT: Final = frozenset(
    {
        "claude-2", "claude-v1", "claude-3-5-sonnet", "claude-3-opus", "claude-3-sonnet",
        "gemini-1.5-pro", "gemini-2.5-flash-preview",
        "gpt-3.5-turbo", "gpt-4-turbo", "gpt-5.3", "o1-mini",
    }
)  # fmt: skip

# Names that stand for a dated id upstream; since claude-*-4-6 Anthropic's undated names are the pinned ones.
UPSTREAM: Final = {
    "claude-3-haiku": "claude-3-haiku-20240307",
    "claude-3-5-haiku": "claude-3-5-haiku-20241022",
    "claude-3-7-sonnet": "claude-3-7-sonnet-20250219",
    "claude-opus-4-0": "claude-opus-4-20250514",
    "claude-sonnet-4-0": "claude-sonnet-4-20250514",
    "claude-opus-4-1": "claude-opus-4-1-20250805",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
}

# The first pattern that matches the start of a name gives its output limit.
MAX_OUTPUT: Final = (
    (r"claude-3-5-", 8_192),
    (r"claude-3-7-", 64_000),
    (r"claude-3-", 4_096),
    (r"claude-opus-4-[01]$", 32_000),
    (r"claude-(opus-4-5|sonnet-4|haiku-4)", 64_000),
    (r"claude-", 128_000),
    (r"gemini-(1\.5|2\.0)-", 8_192),
    (r"gemini-", 65_536),
    (r"gpt-4$", 8_192),
    (r"gpt-4\.1", 32_768),
    (r"gpt-4o", 16_384),
    (r"gpt-([5-9]|\d\d)", 128_000),
    (r"o\d", 100_000),
)
# The same for context windows, used only where genai-prices has none.
CONTEXT_WINDOW: Final = (
    (r"claude-", 200_000),
    (r"gemini-embedding-001", 2_048),
    (r"gemini-", 1_048_576),
    (r"gpt-([6-9]|\d\d)", 1_050_000),
    (r"gpt-5", 400_000),
    (r"o\d", 200_000),
)

# These refuse or ignore temperature, top_p and top_k.
NO_SAMPLING: Final = re.compile(
    r"^(o\d"
    r"|gpt-([5-9]|\d\d)"
    r"|claude-(fable|mythos)-"
    r"|claude-opus-(4-[7-9]|[5-9])"
    r"|claude-(sonnet|haiku)-[5-9]"
    r"|gemini-(3\.[6-9]|[4-9]))"
)
NO_IMAGES: Final = frozenset({"gpt-4", "o3-mini"})
# These read no PDF, be it for want of eyes.
NO_DOCUMENTS: Final = NO_IMAGES | {"claude-3-haiku"}
AUDIO: Final = re.compile(r"gemini-\d")
# These keep to no JSON schema.
NO_STRUCTURED_OUTPUT: Final = re.compile(r"claude-3-|claude-(opus|sonnet)-4-0$|gpt-4$")
# A model of embeddings that takes more than text; of other media than text the prices are higher, and not here.
MULTIMODAL_EMBEDDINGS: Final = frozenset({"gemini-embedding-2"})

# Announced by the providers, as of DATED: (lifecycle, replacement). Retired here means switched off during 2026.
LIFECYCLE: Final = {
    "claude-3-haiku": ("retired", "claude-haiku-5-5"),
    "claude-3-5-haiku": ("retired", "claude-haiku-5-5"),
    "claude-3-7-sonnet": ("retired", "claude-sonnet-5-5"),
    "claude-opus-4-0": ("retired", "claude-opus-5-5"),
    "claude-opus-4-1": ("retired", "claude-opus-5-5"),
    "claude-sonnet-4-0": ("retired", "claude-sonnet-5-5"),
    "claude-sonnet-4-5": ("deprecated", "claude-sonnet-5-5"),
    "gemini-1.5-flash": ("retired", "gemini-3.8-flash"),
    "gemini-2.0-flash": ("retired", "gemini-3.8-flash"),
    "gemini-2.0-flash-lite": ("retired", "gemini-3.5-flash-lite"),
    "gemini-2.5-flash": ("deprecated", "gemini-3.5-flash-lite"),
    "gemini-2.5-pro": ("deprecated", "gemini-3.8-flash"),
    "gemini-3-pro-preview": ("retired", "gemini-3.1-pro-preview"),
    "gpt-4": ("retired", "gpt-6.1-sol"),
    "gpt-4.1": ("deprecated", "gpt-6.1-terra"),
    "gpt-4.1-mini": ("deprecated", "gpt-6-luna"),
    "gpt-4.1-nano": ("retired", "gpt-6-luna"),
    "gpt-4o": ("deprecated", "gpt-6.1-terra"),
    "gpt-4o-mini": ("deprecated", "gpt-6-luna"),
    "gpt-5": ("deprecated", "gpt-6.1-sol"),
    "gpt-5-mini": ("deprecated", "gpt-6.1-terra"),
    "gpt-5-nano": ("deprecated", "gpt-6-luna"),
    "gpt-5.1": ("deprecated", "gpt-6.1-sol"),
    "gpt-5.4-nano": ("deprecated", "gpt-6-luna"),
    "o1": ("retired", "gpt-6.1-sol"),
    "o3": ("deprecated", "gpt-6.1-sol"),
    "o3-mini": ("retired", "gpt-6.1-terra"),
    "o4-mini": ("retired", "gpt-6.1-terra"),
}
