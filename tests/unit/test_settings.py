"""Settings from the environment, files and a kept file of secrets."""

import os
from pathlib import Path

import pytest

from src.shared.errors import Misconfigured
from src.shared.settings import SECRET_NAMES, SECRETS_FILE_NAME, Settings, load_settings

ELSEWHERE = "postgresql+asyncpg://gateway:hunter2@db/gateway"
KEPT = ("GATEWAY_ENCRYPTION_KEY", "GATEWAY_JWT_SECRET", "GATEWAY_BOOTSTRAP_KEY")


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory, and nothing set that could be a setting."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("GATEWAY_") or name.removesuffix("_FILE").endswith(("_KEY", "_TOKEN", "_URL")):
            monkeypatch.delenv(name)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch):
    def give(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return give


def test_nothing_at_all_makes_a_gateway_on_sqlite() -> None:
    settings = load_settings()
    assert settings.database_url == "sqlite+aiosqlite:///data/gateway.db"
    assert settings.data_dir == Path("data")
    assert (settings.host, settings.port, settings.workers, settings.log_level) == ("127.0.0.1", 8000, 1, "INFO")
    assert (settings.redis_url, settings.config_path, settings.cors_origins) == (None, None, ())
    assert settings.provider_secrets() == {}
    assert settings.provider_base_urls == {}


def test_missing_secrets_are_made_once_and_kept_for_the_owner_only() -> None:
    first, second = load_settings(), load_settings()
    kept = Path("data") / SECRETS_FILE_NAME
    assert kept.stat().st_mode & 0o777 == 0o600
    assert {line.partition("=")[0] for line in kept.read_text().splitlines()} == set(KEPT)
    assert (first.encryption_key, first.jwt_secret) == (second.encryption_key, second.jwt_secret)
    assert first.bootstrap_key == second.bootstrap_key
    assert str(first.bootstrap_key).startswith("sk-gw-")
    assert min(len(first.encryption_key), len(str(first.jwt_secret)), len(str(first.bootstrap_key))) >= 32
    assert len({first.encryption_key, first.jwt_secret, first.bootstrap_key}) == 3
    assert [path.name for path in Path("data").iterdir()] == [SECRETS_FILE_NAME]


def test_a_secret_that_is_given_is_neither_made_nor_kept(given) -> None:
    given(GATEWAY_JWT_SECRET="my-own-secret")
    assert load_settings().jwt_secret == "my-own-secret"
    assert "GATEWAY_JWT_SECRET" not in (Path("data") / SECRETS_FILE_NAME).read_text()


def test_secrets_that_are_all_given_need_no_file(given) -> None:
    given(**dict.fromkeys(KEPT, "x" * 40))
    load_settings()
    assert not Path("data").exists()


def test_a_secret_missing_from_the_kept_file_is_added_and_the_others_stay(given) -> None:
    given(GATEWAY_BOOTSTRAP_KEY="sk-gw-mine")
    before = load_settings()
    given(GATEWAY_BOOTSTRAP_KEY="")
    after = load_settings()
    assert (after.encryption_key, after.jwt_secret) == (before.encryption_key, before.jwt_secret)
    assert after.bootstrap_key not in (None, "sk-gw-mine")
    assert (Path("data") / SECRETS_FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_of_two_that_begin_at_once_one_makes_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("data") / SECRETS_FILE_NAME
    exists = Path.exists

    def made_meanwhile(self: Path) -> bool:
        found = exists(self)
        if self.name == SECRETS_FILE_NAME and not found and list(self.parent.glob(".*")):
            path.write_text("".join(f"{name}=theirs-{name}\n" for name in KEPT))
            return False
        return found

    monkeypatch.setattr(Path, "exists", made_meanwhile)
    assert load_settings().encryption_key == "theirs-GATEWAY_ENCRYPTION_KEY"
    assert [each.name for each in path.parent.iterdir()] == [SECRETS_FILE_NAME]


def test_secrets_that_cannot_be_kept_stop_the_start() -> None:
    Path("data").write_text("a file where the directory should be")
    with pytest.raises(Misconfigured, match=r"secrets\.env"):
        load_settings()


def test_secrets_live_beside_the_database_wherever_it_is(given, tmp_path: Path) -> None:
    given(DATABASE_URL=f"sqlite+aiosqlite:///{tmp_path}/elsewhere/my.db?timeout=5")
    load_settings()
    assert (tmp_path / "elsewhere" / SECRETS_FILE_NAME).exists()


@pytest.mark.parametrize("url", [ELSEWHERE, "sqlite+aiosqlite:///:memory:", "sqlite+aiosqlite://"])
def test_without_a_place_to_keep_them_secrets_are_required(given, url: str) -> None:
    given(DATABASE_URL=url)
    with pytest.raises(Misconfigured, match="GATEWAY_ENCRYPTION_KEY"):
        load_settings()
    given(GATEWAY_ENCRYPTION_KEY="x" * 64)
    with pytest.raises(Misconfigured, match="GATEWAY_JWT_SECRET"):
        load_settings()
    given(GATEWAY_JWT_JWKS_URL="https://issuer.example/jwks")
    assert load_settings().data_dir is None


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_every_secret_may_come_from_a_file(given, tmp_path: Path, name: str) -> None:
    value = ELSEWHERE if name == "DATABASE_URL" else "from-a-file"
    given(GATEWAY_ENCRYPTION_KEY="x" * 64, GATEWAY_JWT_SECRET="y" * 64)
    given(**{name: "", f"{name}_FILE": tmp_path / "secret"})
    (tmp_path / "secret").write_text(f"{value}\n")
    assert load_settings().model_dump(by_alias=True)[name] == value


def test_a_value_wins_over_its_file(given, tmp_path: Path) -> None:
    given(OPENAI_API_KEY="given", OPENAI_API_KEY_FILE=tmp_path / "missing")
    assert load_settings().openai_api_key == "given"


def test_a_file_that_cannot_be_read_stops_the_start(given, tmp_path: Path) -> None:
    given(GATEWAY_JWT_SECRET_FILE=tmp_path / "missing")
    with pytest.raises(Misconfigured, match=r"GATEWAY_JWT_SECRET_FILE names .*missing"):
        load_settings()


def test_settings_may_stand_in_a_dotenv_file() -> None:
    Path(".env").write_text("GATEWAY_PORT=9000\nOPENAI_API_KEY=sk-proj-1\nVLLM_KEY=v\nUNHEARD_OF=1\n")
    settings = load_settings()
    assert settings.port == 9000
    assert settings.provider_secrets() == {"OPENAI_API_KEY": "sk-proj-1", "VLLM_KEY": "v"}


def test_an_empty_value_is_as_good_as_none(given) -> None:
    given(GATEWAY_PORT="", REDIS_URL="", OPENAI_API_KEY="")
    settings = load_settings()
    assert (settings.port, settings.redis_url, settings.openai_api_key) == (8000, None, None)


def test_origins_are_a_comma_separated_list(given) -> None:
    given(GATEWAY_CORS_ORIGINS="https://a.example, https://b.example,")
    assert load_settings().cors_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_PORT", "hunter2"),
        ("GATEWAY_PORT", "70000"),
        ("GATEWAY_WORKERS", "0"),
        ("GATEWAY_LOG_LEVEL", "hunter2"),
        ("GATEWAY_UPSTREAM_TOTAL_TIMEOUT_S", "0"),
        ("GATEWAY_UPSTREAM_TOTAL_TIMEOUT_S", "nan"),
        ("GATEWAY_MAX_BODY_BYTES", "1"),
        ("GATEWAY_CACHE_TTL_S", "-1"),
        ("GATEWAY_DATABASE_POOL_SIZE", "hunter2"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not(given, name: str, value: str) -> None:
    given(**{name: value})
    with pytest.raises(Misconfigured) as caught:
        load_settings()
    assert name in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_provider_keys_are_known_by_their_names_and_ours_are_not_among_them(given, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    given(GEMINI_API_KEY="g", MY_TOKEN="t", FILED_TOKEN_FILE=tmp_path / "token", POSTGRES_KEY="p", lower_key="l")
    settings = load_settings()
    assert settings.provider_secrets() == {"GEMINI_API_KEY": "g", "MY_TOKEN": "t", "FILED_TOKEN": "from-a-file"}


def test_providers_may_live_at_other_addresses(given) -> None:
    given(OPENAI_BASE_URL="http://127.0.0.1:1/v1", GOOGLE_GEMINI_BASE_URL="http://127.0.0.1:2")
    assert load_settings().provider_base_urls == {
        "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
        "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:2",
    }


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError):
        Settings().port = 1
