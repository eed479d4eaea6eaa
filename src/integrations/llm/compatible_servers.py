"""The providers that exist by themselves, and the servers compatible with OpenAI's API: rows, no classes."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from src.domain.catalog.model import Provider, ProviderKind

BUILTIN = "builtin"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibleServer:
    """A public server that speaks OpenAI's chat completions, and the settings that configure it."""

    name: str
    base_url: str
    api_key_env: str
    base_url_env: str


COMPATIBLE_SERVERS: tuple[CompatibleServer, ...] = (
    CompatibleServer(
        name="openrouter",
        base_url="https://openrouter.ai/api/v1",
        api_key_env="OPENROUTER_API_KEY",
        base_url_env="OPENROUTER_BASE_URL",
    ),
)

STANDARD_PROVIDERS: tuple[Provider, ...] = (
    Provider(name="openai", kind=ProviderKind.OPENAI, api_key_env="OPENAI_API_KEY"),
    Provider(name="anthropic", kind=ProviderKind.ANTHROPIC, api_key_env="ANTHROPIC_API_KEY"),
    Provider(name="google", kind=ProviderKind.GOOGLE, api_key_env="GOOGLE_API_KEY"),
    *(
        Provider(name=server.name, kind=ProviderKind.OPENAI, api_key_env=server.api_key_env)
        for server in COMPATIBLE_SERVERS
    ),
    Provider(name=BUILTIN, kind=ProviderKind.BUILTIN),
)
"""Without base URLs: those come from the settings, then from the defaults below."""

OTHER_KEY_NAMES = {"GOOGLE_API_KEY": "GEMINI_API_KEY"}
"""A second setting that may hold the same key."""

BASE_URL_SETTINGS = {
    ProviderKind.OPENAI: "OPENAI_BASE_URL",
    ProviderKind.ANTHROPIC: "ANTHROPIC_BASE_URL",
    ProviderKind.GOOGLE: "GOOGLE_GEMINI_BASE_URL",
}

DEFAULT_BASE_URLS = {
    ProviderKind.OPENAI: "https://api.openai.com/v1",
    ProviderKind.ANTHROPIC: "https://api.anthropic.com",
    ProviderKind.GOOGLE: "https://generativelanguage.googleapis.com",
}

_OPENAIS_HOSTS = ("api.openai.com", "openai.azure.com")
"""Regions and resources have names below these."""

_SERVERS_BY_NAME = {server.name: server for server in COMPATIBLE_SERVERS}


def is_openais(provider: Provider, base_url: str) -> bool:
    """Whether it is OpenAI's own API, also where Azure serves it, or stands in its place."""
    return provider.name == "openai" or is_at_openais(base_url)


def is_at_openais(url: str) -> bool:
    """Whether OpenAI itself serves it, or Azure."""
    host = urlsplit(url).hostname or ""
    return any(f".{host}".endswith(f".{known}") for known in _OPENAIS_HOSTS)


def base_url_setting(provider: Provider) -> str | None:
    """The setting that moves the provider elsewhere; None for the built-in one."""
    server = _SERVERS_BY_NAME.get(provider.name)
    return server.base_url_env if server else BASE_URL_SETTINGS.get(provider.kind)


def default_base_url(provider: Provider) -> str | None:
    """Where the provider lives unless something says otherwise; None for the built-in one."""
    server = _SERVERS_BY_NAME.get(provider.name)
    return server.base_url if server else DEFAULT_BASE_URLS.get(provider.kind)


def key_settings(provider: Provider) -> tuple[str, ...]:
    """The settings that may hold the provider's key, in order; none for a provider that needs no key."""
    if provider.api_key_env is None:
        return ()
    other = OTHER_KEY_NAMES.get(provider.api_key_env)
    return (provider.api_key_env, other) if other else (provider.api_key_env,)
