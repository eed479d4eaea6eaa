"""Structured logs: JSON lines, or readable ones on a terminal. No secret and no prompt text is ever logged."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET = re.compile(
    r"(sk-[A-Za-z0-9_-]{6})[A-Za-z0-9_-]+"
    r"|(AIza[A-Za-z0-9_-]{4})[A-Za-z0-9_-]{20,}"
    r"|(eyJ[A-Za-z0-9_-]{6})[A-Za-z0-9_.-]+"
    r"|(://[^:/@\s]*:)[^@/\s]+(?=@)"
)
"""Keys of OpenAI, Anthropic, OpenRouter and ourselves, keys of Google, tokens, and passwords in addresses."""


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return _SECRET.sub(lambda found: f"{found[found.lastindex or 0]}***", value)
    if isinstance(value, dict):
        return {_masked(name): _masked(inner) for name, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_masked(inner) for inner in value)
    return value


def mask_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Shorten whatever looks like a key, a token or a password in an address, however deep it lies."""
    for name, value in event.items():
        if isinstance(value, str | dict | list | tuple):
            event[name] = _masked(value)
    return event


def configure_logging(level: str) -> None:
    """Set up structlog and send the standard library's loggers the same way, to standard error."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=True) if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # At DEBUG the providers' SDKs log whole requests, prompts included: below INFO only our own loggers speak.
    root.setLevel("INFO" if level == "DEBUG" else level)
    for ours in ("src", "gateway"):
        logging.getLogger(ours).setLevel(level)
    for noisy in ("httpx2", "httpcore2", "aiohttp.access", "uvicorn.access", "google_genai", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
