"""Settings become a gateway: with `operator`, the only place that names classes of `data` and `integrations`."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from src.api.catalog_schema import read_catalog_file
from src.api.container import Gateway
from src.data import schema
from src.data.auditor import SqlAuditor
from src.data.claims import forget_expired_claims
from src.data.engine import make_engine
from src.data.group_commit import GroupCommitLedger
from src.data.snapshots import catalog_snapshot, rate_limits_snapshot
from src.data.unit_of_work import unit_of_work_opener
from src.domain.catalog.model import CachePolicy
from src.domain.catalog.ports import CatalogView
from src.domain.catalog.use_cases import CatalogAdmin, CatalogFile, sync_files
from src.domain.completion.answering import AnswerPorts
from src.domain.completion.caching import AnswerCache, SharedAnswers
from src.domain.completion.fallback import Routing
from src.domain.completion.holding import HoldingPolicy
from src.domain.completion.ports import ResponseCache, Upstreams
from src.domain.completion.similar import SimilarQuestions
from src.domain.completion.use_cases import CompletionPorts, TaskKeeper
from src.domain.dialogs.use_cases import DialogPorts
from src.domain.identity.authentication import Authenticator
from src.domain.identity.ports import TokenIssuer
from src.domain.identity.sessions import SessionPorts, bootstrap_admin, check_bootstrap_key
from src.domain.ledger.ports import Auditor
from src.domain.limits.administration import RateLimitAdmin
from src.domain.limits.limiter import Limiter
from src.domain.routing.board import Board
from src.domain.routing.breaker import LONGEST_OPEN_S, BreakerPolicy
from src.domain.routing.retry import RetryBudget, RetryPolicy
from src.domain.unit_of_work import OpenUnitOfWork
from src.integrations.buckets import open_buckets
from src.integrations.cache.memory import MemoryCache
from src.integrations.cache.redis import RedisCache
from src.integrations.catalog import MODELS_FILE
from src.integrations.jwt_tokens import JwtSettings, JwtTokens
from src.integrations.llm.build import ProviderModels
from src.integrations.llm.builtin_server import BuiltinServer
from src.integrations.llm.compatible_servers import STANDARD_PROVIDERS
from src.integrations.llm.token_meter import SplintrMeter
from src.integrations.password_hashing import Argon2Passwords
from src.integrations.redis_client import GuardedRedis, make_redis
from src.integrations.secret_hashing import KeyedHasher, Purpose
from src.integrations.semantic import open_similar_questions
from src.integrations.shared_breakers import SharedBreakers
from src.integrations.telemetry import (
    ObservedAnswers,
    ObservedCache,
    ObservedLedger,
    ObservedUpstreams,
    PrometheusMetrics,
)
from src.shared.clock import utc_now
from src.shared.errors import InvalidRequest, Misconfigured
from src.shared.settings import BOOTSTRAP_KEY, SECRETS_FILE_NAME, Settings, kept_secrets
from src.shared.tasks import end_task

log = structlog.get_logger(__name__)

T = TypeVar("T")

try:
    VERSION = version("llm-gateway")
except PackageNotFoundError:  # run from a bare source tree
    VERSION = "0.1.0"

SWEEP_S = 5.0
UNMIGRATED = "The database is not at the newest revision. Run: llm-gateway migrate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What starting found or made: never a key that the operator gave. `how_to_read_key` is shell."""

    new_key: str | None
    how_to_read_key: str | None
    default_model: str | None


@asynccontextmanager
async def open_database(
    settings: Settings, *, patient: bool = False
) -> AsyncIterator[tuple[AsyncEngine, OpenUnitOfWork]]:
    """An engine and units of work on it, closed at the end. `patient`: see make_engine."""
    try:
        engine = make_engine(settings.database_url, pool_size=settings.database_pool_size, patient=patient)
    except OSError as error:
        raise Misconfigured(f"The directory of the database cannot be made ({error}): check DATABASE_URL.") from None
    try:
        yield engine, unit_of_work_opener(engine)
    finally:
        await engine.dispose()


async def migrate(settings: Settings) -> None:
    """Bring the database to the newest revision and load the catalog's files. Raises Misconfigured."""
    async with open_database(settings) as (engine, _):
        await _reached(_ask(engine))
    await schema.migrate(settings.database_url)
    async with open_database(settings) as (_, open_uow):
        await load_catalog(settings, open_uow)


async def load_catalog(settings: Settings, open_uow: OpenUnitOfWork) -> int:
    """Write what the files say into the catalog; returns how many rows changed. Raises Misconfigured."""
    files = [CatalogFile(providers=STANDARD_PROVIDERS), read_catalog_file(MODELS_FILE)]
    if settings.config_path is not None:
        files.append(read_catalog_file(settings.config_path))
    try:
        return await sync_files(files, open_uow)
    except InvalidRequest as error:
        raise Misconfigured(f"GATEWAY_CONFIG: {error.message}") from None


async def require_migrated(engine: AsyncEngine) -> None:
    """Raises Misconfigured with what to run, or with why the database cannot be reached."""
    if not await _reached(schema.is_migrated(engine)):
        raise Misconfigured(UNMIGRATED)


async def _reached(asking: Awaitable[T]) -> T:
    """What the database answered. Raises Misconfigured where it does not."""
    try:
        return await asking
    except Exception as error:
        log.debug("database_unreachable", exc_info=True)
        raise Misconfigured(f"The database cannot be reached ({type(error).__name__}): check DATABASE_URL.") from None


def check_settings(settings: Settings) -> None:
    """What can be known to be wrong before the database is asked. Raises Misconfigured."""
    KeyedHasher(settings.encryption_key)
    JwtTokens(jwt_settings(settings))
    check_bootstrap_key(settings.bootstrap_key)
    if settings.workers > 1 and settings.database_url.startswith("sqlite"):
        raise Misconfigured(f"GATEWAY_WORKERS is {settings.workers}: more than one process needs PostgreSQL.")


async def prepare(settings: Settings) -> Prepared:
    """Everything that must be right before serving: schema, catalog, first administrator. Raises Misconfigured."""
    check_settings(settings)
    async with open_database(settings) as (engine, open_uow):
        await require_migrated(engine)
        await load_catalog(settings, open_uow)
        hasher = KeyedHasher(settings.encryption_key)
        made = await bootstrap_admin(open_uow, utc_now, hasher, settings.bootstrap_key)
        snapshot = catalog_snapshot(open_uow, default_model=settings.default_model)
        await snapshot.refresh()
    kept = settings.data_dir / SECRETS_FILE_NAME if settings.data_dir else None
    is_ours = settings.bootstrap_key is None or kept_secrets(kept).get(BOOTSTRAP_KEY) == settings.bootstrap_key
    return Prepared(
        new_key=made if is_ours else None,
        how_to_read_key=f"$(sed -n 's/^{BOOTSTRAP_KEY}=//p' {kept})" if settings.bootstrap_key and is_ours else None,
        default_model=snapshot.current().default_model,
    )


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """The whole gateway; at the end running answers are drained, then everything is closed in reverse order."""
    async with AsyncExitStack() as stack:
        engine, open_uow = await stack.enter_async_context(open_database(settings))
        await require_migrated(engine)
        await load_catalog(settings, open_uow)
        hasher = KeyedHasher(settings.encryption_key)
        await bootstrap_admin(open_uow, utc_now, hasher, settings.bootstrap_key)

        open_reading = unit_of_work_opener(engine, read_only=True)
        metrics = PrometheusMetrics()
        snapshot = catalog_snapshot(open_reading, default_model=settings.default_model)
        await snapshot.start()
        stack.push_async_callback(snapshot.close)
        redis = _redis(settings, stack)
        tokens = JwtTokens(jwt_settings(settings))
        stack.push_async_callback(tokens.close)
        sessions = _sessions(settings, open_uow, tokens, stack)
        rate_limits = rate_limits_snapshot(open_reading)
        await rate_limits.start()
        stack.push_async_callback(rate_limits.close)
        buckets = open_buckets(redis)
        stack.push_async_callback(buckets.close)
        completions = await _completions(
            settings, engine, snapshot, Limiter(rate_limits, buckets), redis, metrics, stack
        )
        dialogs = DialogPorts(open_uow=open_uow, open_reading=open_reading, catalog=snapshot, clock=utc_now)
        yield Gateway(
            authenticator=Authenticator(open_uow, tokens, hasher, utc_now, open_reading=open_reading),
            open_uow=open_uow,
            open_reading=open_reading,
            catalog=snapshot,
            catalog_admin=CatalogAdmin(open_uow=open_uow, view=snapshot, clock=utc_now),
            rate_limits=RateLimitAdmin(open_uow=open_uow, view=rate_limits, clock=utc_now),
            upstreams=completions.answers.routing.upstreams,
            completions=completions,
            dialogs=dialogs,
            passwords=sessions.passwords,
            hasher=hasher,
            sessions=sessions,
            clock=utc_now,
            metrics=metrics,
            is_migrated=lambda: schema.is_migrated(engine),
            check_database=lambda: _ask(engine),
            cache_state=lambda: "memory" if redis is None or redis.is_away else "redis",
            version=VERSION,
        )


async def _completions(
    settings: Settings,
    engine: AsyncEngine,
    catalog: CatalogView,
    limiter: Limiter,
    redis: GuardedRedis | None,
    metrics: PrometheusMetrics,
    stack: AsyncExitStack,
) -> CompletionPorts:
    """The ledger's writer and sweeper, the providers, and the keeper that drains before any of them is closed."""
    writer = GroupCommitLedger(engine, clock=utc_now)
    await writer.start()
    stack.push_async_callback(writer.stop)
    upstreams = ObservedUpstreams(open_providers(settings), metrics)
    stack.push_async_callback(upstreams.close)
    sweeper = asyncio.create_task(_sweep(SqlAuditor(engine, writer), engine), name="sweeper")
    stack.push_async_callback(end_task, sweeper)
    keeper = TaskKeeper(most=settings.max_parallel_answers)
    metrics.watch_running(lambda: len(keeper.running))
    answers = AnswerPorts(
        ledger=ObservedLedger(writer, metrics),
        routing=_routing(settings, upstreams, redis, metrics, stack),
        meter=SplintrMeter(),
        clock=utc_now,
        total_timeout_s=settings.total_timeout_s,
        progress_s=settings.progress_s,
        holding=HoldingPolicy(lease_s=settings.hold_grace_s, least_output_tokens=settings.least_output_tokens),
    )
    similar = open_similar_questions(catalog.current().models.values())
    cache = _cache(settings, answers, keeper, redis, similar, metrics, stack)
    stack.push_async_callback(keeper.drain, settings.drain_timeout_s)
    return CompletionPorts(answers=answers, catalog=catalog, keeper=keeper, cache=cache, limiter=limiter)


def _routing(
    settings: Settings,
    upstreams: Upstreams,
    redis: GuardedRedis | None,
    metrics: PrometheusMetrics,
    stack: AsyncExitStack,
) -> Routing:
    """How chains are called; breakers are watched, and shared where there is a Redis."""
    retry = RetryPolicy(most=settings.retries, share=settings.retry_share)
    breakers = BreakerPolicy(
        most_in_a_row=settings.breaker_failures,
        open_s=settings.breaker_open_s,
        longest_open_s=max(settings.breaker_open_s, LONGEST_OPEN_S),
    )
    board = Board(breakers)
    metrics.watch_breakers(board)
    if redis is not None:
        shared = SharedBreakers(board, redis)
        shared.start()
        stack.push_async_callback(shared.close)
    return Routing(upstreams=upstreams, board=board, retry=retry, budget=RetryBudget(retry, time.monotonic()))


def _sessions(settings: Settings, open_uow: OpenUnitOfWork, tokens: TokenIssuer, stack: AsyncExitStack) -> SessionPorts:
    """What password logins are made with."""
    passwords = Argon2Passwords()
    stack.callback(passwords.close)
    return SessionPorts(
        open_uow=open_uow,
        clock=utc_now,
        passwords=passwords,
        hasher=KeyedHasher(settings.encryption_key, Purpose.REFRESH_TOKENS),
        tokens=tokens,
    )


def open_providers(settings: Settings) -> ProviderModels:
    """What the providers are called with, to be closed at the end."""
    return ProviderModels(
        settings.provider_secrets(),
        settings.provider_base_urls,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        builtin=BuiltinServer(),
    )


def jwt_settings(settings: Settings) -> JwtSettings:
    """Which tokens are believed."""
    return JwtSettings(
        secret=settings.jwt_secret,
        jwks_url=settings.jwt_jwks_url,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        subject_claims=(settings.jwt_subject_claim, "user_id"),
        tenant_claims=(settings.jwt_tenant_claim,),
        role_claim=settings.jwt_role_claim,
        default_tenant=settings.jwt_default_tenant,
    )


def _redis(settings: Settings, stack: AsyncExitStack) -> GuardedRedis | None:
    """The process's one Redis, where there is one."""
    if settings.redis_url is None:
        return None
    timeout_s = settings.redis_timeout_s
    redis = GuardedRedis(make_redis(settings.redis_url, timeout_s=timeout_s), timeout_s=timeout_s)
    stack.push_async_callback(redis.close)
    return redis


def _cache(
    settings: Settings,
    answers: AnswerPorts,
    keeper: TaskKeeper,
    redis: GuardedRedis | None,
    similar: SimilarQuestions | None,
    metrics: PrometheusMetrics,
    stack: AsyncExitStack,
) -> AnswerCache:
    memory = MemoryCache(max_bytes=settings.cache_max_bytes)
    store: ResponseCache = memory if redis is None else RedisCache(redis, local=memory)
    cache = SharedAnswers(
        ObservedCache(store, metrics),
        ledger=answers.ledger,
        clock=answers.clock,
        default=CachePolicy(ttl_s=settings.cache_ttl_s),
        patience_s=answers.total_timeout_s,
        admit=keeper.admit,
        similar=similar,
    )
    stack.push_async_callback(cache.close)
    return ObservedAnswers(cache, metrics)


async def _ask(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def _sweep(auditor: Auditor, engine: AsyncEngine) -> None:
    """Close the holds that crashed processes left open; forget idempotency keys whose day is over."""
    while True:
        try:
            closed = await auditor.close_expired()
            if closed:
                log.warning("expired_holds_closed", holds=closed)
            await forget_expired_claims(engine, utc_now())
        except Exception:
            log.warning("sweep_failed", exc_info=True)
        await asyncio.sleep(SWEEP_S)
