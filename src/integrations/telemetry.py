"""What is measured, by wrapping ports: the domain knows nothing of it. Served as Prometheus text by /metrics.

Labels are bounded: names of the catalog, words of our own, never anything a caller made up.
"""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from src.domain.catalog.model import Model, Provider
from src.domain.completion.answer import Answer
from src.domain.completion.caching import AnswerCache, Start
from src.domain.completion.model import (
    Call,
    Failure,
    Reply,
    ToldCount,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
)
from src.domain.completion.ports import ChatModel, ResponseCache, Upstreams
from src.domain.ledger.model import Closed, Closing, Hold, HoldRequest, Record, Renewal, UsageRecord
from src.domain.ledger.ports import Ledger
from src.domain.routing.board import Board
from src.domain.routing.breaker import MISCONFIGURED
from src.shared.errors import QuotaExceeded

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

log = structlog.get_logger("gateway.telemetry")


class PrometheusMetrics:
    """The numbers of one process. Several workers have a registry each: scrape them through one port each."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "gateway_requests", "Answered requests.", ("endpoint", "status"), registry=self._registry
        )
        self._request_s = Histogram(
            "gateway_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("endpoint",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.upstream_calls = Counter(
            "gateway_upstream_calls", "Calls of providers.", ("provider", "model", "outcome"), registry=self._registry
        )
        self.first_event_s = Histogram(
            "gateway_upstream_first_event_seconds",
            "From the call of a provider to its first event (or whole answer).",
            ("provider", "model"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.holds = Counter("gateway_holds", "Holds asked for.", ("result",), registry=self._registry)
        self.tokens = Counter("gateway_tokens", "Tokens used.", ("model", "kind"), registry=self._registry)
        self.cost = Counter("gateway_cost_micro_usd", "Cost of what was used.", ("model",), registry=self._registry)
        self.flags = Counter(
            "gateway_usage_flags",
            "Usage that was missing, absurd or above its hold.",
            ("flag",),
            registry=self._registry,
        )
        self.cache = Counter(
            "gateway_cache",
            "Calls with the response cache on: hits (also of similar questions), joined calls, misses; answers stored.",
            ("result",),
            registry=self._registry,
        )
        self.lost = Counter(
            "gateway_lost",
            "Claimed by providers above the hold; the operator bears it.",
            ("unit",),
            registry=self._registry,
        )

    def request(self, endpoint: str, status: int, duration_s: float) -> None:
        """Count a request by the template of its path."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_s.labels(endpoint).observe(duration_s)

    def watch_breakers(self, board: Board) -> None:
        """Count the breakers that open, and log them: loudly, where an operator must act."""
        opened = Counter(
            "gateway_breaker_opened", "Breakers that opened.", ("deployment", "reason"), registry=self._registry
        )

        def changed(deployment: str, for_s: float, reason: Failure) -> None:
            if not for_s:
                log.info("breaker_closed", deployment=deployment)
                return
            opened.labels(deployment, reason.value).inc()
            told = {"deployment": deployment, "reason": reason.value, "for_s": round(for_s, 3)}
            if reason in MISCONFIGURED:
                log.error("provider_misconfigured", **told, hint="check the provider's API key and the model's name")
            else:
                log.warning("breaker_opened", **told)

        board.tell(changed)

    def watch_running(self, count: Callable[[], int]) -> None:
        """Show how many answers are under way, asked for at each scrape."""
        Gauge("gateway_answers_in_progress", "Answers under way.", registry=self._registry).set_function(count)

    def exposition(self) -> tuple[bytes, str]:
        """The text that Prometheus scrapes, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class ObservedUpstreams(Upstreams):
    """Counts and times every call of a provider, and logs what failed for a reason no adapter foresaw."""

    def __init__(self, inner: Upstreams, metrics: PrometheusMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    def chat_model(self, model: Model, provider: Provider) -> ChatModel:
        return _ObservedModel(self._inner.chat_model(model, provider), model, self._metrics)

    def is_ready(self, provider: Provider) -> bool:
        return self._inner.is_ready(provider)

    async def count_prompt(self, request: UpstreamRequest, provider: Provider) -> ToldCount:
        return await self._inner.count_prompt(request, provider)

    async def close(self) -> None:
        await self._inner.close()


class _ObservedModel(ChatModel):
    def __init__(self, inner: ChatModel, model: Model, metrics: PrometheusMetrics) -> None:
        self._inner = inner
        self._model = model
        self._metrics = metrics

    async def complete(self, request: UpstreamRequest) -> Reply:
        started_s = time.perf_counter()
        try:
            reply = await self._inner.complete(request)
        except BaseException as error:
            self._failed(error)
            raise
        self._first(started_s)
        self._count("ok")
        return reply

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        started_s = time.perf_counter()
        is_first = True
        try:
            async with aclosing(self._inner.stream(request)) as events:
                async for event in events:
                    if is_first:
                        self._first(started_s)
                        is_first = False
                    yield event
        except BaseException as error:
            self._failed(error)
            raise
        self._count("ok")

    def _first(self, started_s: float) -> None:
        labels = self._metrics.first_event_s.labels(self._model.provider, self._model.name)
        labels.observe(time.perf_counter() - started_s)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, UpstreamFailed):
            self._count(error.kind.value)
            log.info("upstream_failed", model=self._model.name, reason=error.kind.value, status=error.status)
        elif isinstance(error, Exception):
            self._count("fault")
            log.error("adapter_fault", model=self._model.name, exc_info=error)
        else:
            self._count("cancelled")

    def _count(self, outcome: str) -> None:
        self._metrics.upstream_calls.labels(self._model.provider, self._model.name, outcome).inc()


class ObservedAnswers(AnswerCache):
    """Counts what the response cache had for each call."""

    def __init__(self, inner: AnswerCache, metrics: PrometheusMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def answered(self, call: Call, start: Start) -> Answer:
        answer = await self._inner.answered(call, start)
        if answer.cache is not None:
            self._metrics.cache.labels(answer.cache.value).inc()
        return answer


class ObservedCache(ResponseCache):
    """Counts what is stored."""

    def __init__(self, inner: ResponseCache, metrics: PrometheusMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def seek(self, key: str, seeker: str, lease_s: float) -> bytes | bool:
        return await self._inner.seek(key, seeker, lease_s)

    async def get(self, key: str) -> bytes | None:
        return await self._inner.get(key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        await self._inner.put(key, value, ttl_s)
        self._metrics.cache.labels("stored").inc()

    async def leave(self, key: str, seeker: str) -> None:
        await self._inner.leave(key, seeker)

    async def close(self) -> None:
        await self._inner.close()


class ObservedLedger(Ledger):
    """Counts holds, what was used, and what providers claimed above the hold (which also alarms in the log)."""

    def __init__(self, inner: Ledger, metrics: PrometheusMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def open(self, request: HoldRequest, records: Sequence[Record] = ()) -> Hold:
        try:
            hold = await self._inner.open(request, records)
        except QuotaExceeded:
            self._metrics.holds.labels("refused").inc()
            raise
        except Exception:
            self._metrics.holds.labels("failed").inc()
            raise
        self._metrics.holds.labels("held").inc()
        return hold

    async def renew(self, renewal: Renewal, records: Sequence[Record] = ()) -> Hold:
        return await self._inner.renew(renewal, records)

    async def close(self, closing: Closing, records: Sequence[Record] = ()) -> Closed:
        closed = await self._inner.close(closing, records)
        for record in records:
            if isinstance(record, UsageRecord):
                self._used(record)
        for unit, amount in closed.lost.items():
            self._metrics.lost.labels(unit.value).inc(amount)
            log.error("provider_claimed_above_hold", hold_id=str(closed.hold_id), unit=unit.value, amount=amount)
        return closed

    async def record(self, records: Sequence[Record]) -> None:
        await self._inner.record(records)

    def _used(self, record: UsageRecord) -> None:
        for flag in record.flags:
            self._metrics.flags.labels(flag).inc()
        if record.model is not None:
            self._metrics.tokens.labels(record.model, "input").inc(record.usage.input_tokens)
            self._metrics.tokens.labels(record.model, "output").inc(record.usage.output_tokens)
            self._metrics.cost.labels(record.model).inc(record.cost_micro_usd)
