"""Settings from the environment and `.env`, read once by bootstrap. Every secret may also be given as `NAME_FILE`."""

import os
import re
import secrets
from pathlib import Path
from typing import Annotated, Any

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from src.shared.errors import Misconfigured

DEFAULT_DATA_DIR = Path("data")
SECRETS_FILE_NAME = "secrets.env"
BOOTSTRAP_KEY = "GATEWAY_BOOTSTRAP_KEY"
MIB = 1024 * 1024

SECRET_NAMES = (
    "DATABASE_URL",
    "REDIS_URL",
    "GATEWAY_BOOTSTRAP_KEY",
    "GATEWAY_JWT_SECRET",
    "GATEWAY_ENCRYPTION_KEY",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "OPENROUTER_API_KEY",
)

PROVIDER_KEY_NAME = re.compile(r"^(?!GATEWAY_|POSTGRES)[A-Z][A-Z0-9_]{0,95}(KEY|TOKEN)$")
"""Names of settings that may hold a provider's key: never one of the gateway's own secrets."""

_MADE_WHEN_MISSING = {
    "GATEWAY_ENCRYPTION_KEY": lambda: secrets.token_hex(32),
    "GATEWAY_JWT_SECRET": lambda: secrets.token_hex(32),
    "GATEWAY_BOOTSTRAP_KEY": lambda: f"sk-gw-{secrets.token_urlsafe(32)}",
}


class Settings(BaseSettings):
    """Everything an operator can set. A field's alias is the name of its environment variable."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    database_url: str = Field("", alias="DATABASE_URL")
    database_pool_size: int = Field(10, ge=2, le=200, alias="GATEWAY_DATABASE_POOL_SIZE")
    redis_url: str | None = Field(None, alias="REDIS_URL")
    redis_timeout_s: float = Field(0.2, gt=0, le=10, alias="GATEWAY_REDIS_TIMEOUT_S")

    host: str = Field("127.0.0.1", alias="GATEWAY_HOST")
    port: int = Field(8000, ge=0, le=65535, alias="GATEWAY_PORT")
    workers: int = Field(1, ge=1, le=64, alias="GATEWAY_WORKERS")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", alias="GATEWAY_LOG_LEVEL")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field((), alias="GATEWAY_CORS_ORIGINS")
    max_body_bytes: int = Field(10 * MIB, ge=1024, le=1024 * MIB, alias="GATEWAY_MAX_BODY_BYTES")
    max_parallel_answers: int = Field(2000, ge=1, le=100_000, alias="GATEWAY_MAX_PARALLEL_ANSWERS")
    drain_timeout_s: float = Field(30.0, ge=0, le=3600, alias="GATEWAY_DRAIN_TIMEOUT_S")

    connect_timeout_s: float = Field(5.0, gt=0, le=60, alias="GATEWAY_UPSTREAM_CONNECT_TIMEOUT_S")
    read_timeout_s: float = Field(300.0, gt=0, le=3600, alias="GATEWAY_UPSTREAM_READ_TIMEOUT_S")
    total_timeout_s: float = Field(600.0, gt=0, le=7200, alias="GATEWAY_UPSTREAM_TOTAL_TIMEOUT_S")
    retries: int = Field(2, ge=0, le=10, alias="GATEWAY_RETRIES")
    retry_share: float = Field(0.1, ge=0, le=1, alias="GATEWAY_RETRY_SHARE")
    breaker_failures: int = Field(5, ge=0, le=10_000, alias="GATEWAY_BREAKER_FAILURES")
    breaker_open_s: float = Field(5.0, gt=0, le=3600, alias="GATEWAY_BREAKER_OPEN_S")
    hold_grace_s: float = Field(60.0, ge=1, le=3600, alias="GATEWAY_HOLD_GRACE_S")
    progress_s: float = Field(3.0, ge=0.1, le=300, alias="GATEWAY_PROGRESS_S")
    least_output_tokens: int = Field(16, ge=1, le=1_000_000, alias="GATEWAY_LEAST_OUTPUT_TOKENS")

    bootstrap_key: str | None = Field(None, alias="GATEWAY_BOOTSTRAP_KEY")
    encryption_key: str = Field("", alias="GATEWAY_ENCRYPTION_KEY")
    jwt_secret: str | None = Field(None, alias="GATEWAY_JWT_SECRET")
    jwt_jwks_url: str | None = Field(None, alias="GATEWAY_JWT_JWKS_URL")
    jwt_issuer: str | None = Field(None, alias="GATEWAY_JWT_ISSUER")
    jwt_audience: str | None = Field(None, alias="GATEWAY_JWT_AUDIENCE")
    jwt_subject_claim: str = Field("sub", alias="GATEWAY_JWT_SUBJECT_CLAIM")
    jwt_tenant_claim: str = Field("tenant_id", alias="GATEWAY_JWT_TENANT_CLAIM")
    jwt_role_claim: str = Field("role", alias="GATEWAY_JWT_ROLE_CLAIM")
    jwt_default_tenant: str | None = Field("default", alias="GATEWAY_JWT_DEFAULT_TENANT")

    config_path: Path | None = Field(None, alias="GATEWAY_CONFIG")
    default_model: str = Field("smollm2-135m", alias="GATEWAY_DEFAULT_MODEL")
    cache_ttl_s: float = Field(3600.0, gt=0, le=30 * 86400, alias="GATEWAY_CACHE_TTL_S")
    cache_max_bytes: int = Field(64 * MIB, ge=0, le=16 * 1024 * MIB, alias="GATEWAY_CACHE_MAX_BYTES")

    openai_api_key: str | None = Field(None, alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(None, alias="OPENAI_BASE_URL")
    anthropic_api_key: str | None = Field(None, alias="ANTHROPIC_API_KEY")
    anthropic_base_url: str | None = Field(None, alias="ANTHROPIC_BASE_URL")
    google_api_key: str | None = Field(None, alias="GOOGLE_API_KEY")
    gemini_api_key: str | None = Field(None, alias="GEMINI_API_KEY")
    google_base_url: str | None = Field(None, alias="GOOGLE_GEMINI_BASE_URL")
    openrouter_api_key: str | None = Field(None, alias="OPENROUTER_API_KEY")
    openrouter_base_url: str | None = Field(None, alias="OPENROUTER_BASE_URL")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """A comma-separated list."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def data_dir(self) -> Path | None:
        """Where SQLite and the secrets made for it live; None with any other database."""
        if not self.database_url.startswith("sqlite"):
            return None
        path = self.database_url.partition(":///")[2].partition("?")[0]
        return Path(path).parent if path and path != ":memory:" else None

    @property
    def provider_base_urls(self) -> dict[str, str]:
        """Addresses that replace the providers' usual ones, by the name of their setting."""
        named = {
            "OPENAI_BASE_URL": self.openai_base_url,
            "ANTHROPIC_BASE_URL": self.anthropic_base_url,
            "GOOGLE_GEMINI_BASE_URL": self.google_base_url,
            "OPENROUTER_BASE_URL": self.openrouter_base_url,
        }
        return {name: value for name, value in named.items() if value}

    def provider_secrets(self) -> dict[str, str]:
        """Provider keys by the name of their setting: the known ones, and every other NAME_KEY or NAME_TOKEN given."""
        given = {**dotenv_values(".env"), **os.environ}
        own = {name: value for name, value in given.items() if value and PROVIDER_KEY_NAME.match(name)}
        for name, path in given.items():
            if path and name.endswith("_FILE") and PROVIDER_KEY_NAME.match(name.removesuffix("_FILE")):
                own.setdefault(name.removesuffix("_FILE"), _read_secret(name, path))
        known = {
            "OPENAI_API_KEY": self.openai_api_key,
            "ANTHROPIC_API_KEY": self.anthropic_api_key,
            "GOOGLE_API_KEY": self.google_api_key,
            "GEMINI_API_KEY": self.gemini_api_key,
            "OPENROUTER_API_KEY": self.openrouter_api_key,
        }
        return own | {name: value for name, value in known.items() if value}


def load_settings() -> Settings:
    """Read the settings; with SQLite, make the secrets that are missing and keep them beside the database.

    Raises Misconfigured with a sentence for the operator.
    """
    given = _from_files()
    try:
        settings = Settings(**given)
        if not settings.database_url:
            settings = Settings(**{**given, "DATABASE_URL": f"sqlite+aiosqlite:///{DEFAULT_DATA_DIR}/gateway.db"})
        if settings.data_dir is not None:
            settings = Settings(**_with_kept_secrets(settings, settings.data_dir))
    except ValidationError as error:
        raise Misconfigured(_sentence(error)) from None
    _require_secrets(settings)
    return settings


def _from_files() -> dict[str, Any]:
    """The secrets given as NAME_FILE; NAME itself wins."""
    found: dict[str, Any] = {}
    for name in SECRET_NAMES:
        path = os.environ.get(f"{name}_FILE")
        if not path or os.environ.get(name):
            continue
        found[name] = _read_secret(f"{name}_FILE", path)
    return found


def _read_secret(setting: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{setting} names {path}, which cannot be read: {error}.") from None


def _with_kept_secrets(settings: Settings, directory: Path) -> dict[str, Any]:
    """The settings with missing secrets taken from, or made and added to, the file beside the database."""
    path = directory / SECRETS_FILE_NAME
    values = settings.model_dump(by_alias=True)
    missing = [name for name in _MADE_WHEN_MISSING if not values[name]]
    if not missing:
        return values
    try:
        kept = kept_secrets(path)
        made = {name: _MADE_WHEN_MISSING[name]() for name in missing if name not in kept}
        if made:
            _write_secrets(path, kept | made)
            kept = kept_secrets(path)
    except OSError as error:
        raise Misconfigured(f"The secrets in {path} can be neither read nor made: {error}.") from None
    return values | {name: kept[name] for name in missing}


def kept_secrets(path: Path | None) -> dict[str, str]:
    """The secrets that were made for a SQLite database, by the name of their setting."""
    if path is None or not path.exists():
        return {}
    lines = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in lines}


def _write_secrets(path: Path, values: dict[str, str]) -> None:
    """Whole or not at all, readable by the owner only; of several processes that begin at once, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    if path.exists():
        draft.replace(path)
        return
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _require_secrets(settings: Settings) -> None:
    if not settings.encryption_key:
        raise Misconfigured("Set GATEWAY_ENCRYPTION_KEY (openssl rand -hex 32): API keys are stored under it.")
    if not settings.jwt_secret and not settings.jwt_jwks_url:
        raise Misconfigured("Set GATEWAY_JWT_SECRET (openssl rand -hex 32), GATEWAY_JWT_JWKS_URL, or both.")


def _sentence(error: ValidationError) -> str:
    """Names of settings and what is wrong with them, never their values."""
    return " ".join(f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}." for each in error.errors())
