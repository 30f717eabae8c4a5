"""Logs and metrics. Every log line passes the redaction: no secret gets out, wherever it was put in, and
nothing that the terminal of whoever reads it would obey.

Loggers are structlog's (`structlog.get_logger(__name__)`), metrics are made with `registry=REGISTRY`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ocmt.platform.work import POOLS

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

REQUESTS = Counter(
    "ocmt_http_requests",
    "Requests answered, by area of the address.",
    ["method", "area", "status"],
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "ocmt_http_response_start_seconds",
    "Seconds from a request to the beginning of its answer.",
    ["area"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
    registry=REGISTRY,
)


class _Work(Collector):
    """The state of the pools of threads, read when somebody asks for it."""

    def collect(self) -> Iterable[Metric]:
        running = GaugeMetricFamily("ocmt_work_running", "Calls that run in threads.", labels=["pool"])
        waiting = GaugeMetricFamily("ocmt_work_waiting", "Calls that wait for a thread.", labels=["pool"])
        longest = GaugeMetricFamily(
            "ocmt_work_longest_seconds", "How long the oldest running call has run.", labels=["pool"]
        )
        long = CounterMetricFamily(
            "ocmt_work_long_calls", "Calls in threads that ran for longer than 30 seconds.", labels=["pool"]
        )
        for pool in sorted(POOLS, key=lambda pool: pool.name):
            at_work = pool.at_work()
            running.add_metric([pool.name], len(at_work))
            waiting.add_metric([pool.name], pool.waiting())
            longest.add_metric([pool.name], at_work[0] if at_work else 0.0)
            long.add_metric([pool.name], pool.long_calls)
        return (running, waiting, longest, long)


REGISTRY.register(_Work())

REDACTED = "[redacted]"
_OWN = ("_record", "_from_structlog")  # structlog's bookkeeping, never rendered

_SECRET_WORDS = frozenset(
    {"token", "authorization", "cookie", "password", "passwd", "secret", "apikey", "credential", "dsn"}
)
_SECRET_PAIRS = ("api_key", "set_cookie", "private_key", "master_key", "database_url", "smtp_url")
_SECRET_TEXT = re.compile(
    r"""
      \bocmt_[\w-]{32,}                    # our tokens and API keys
    | \bsk-ant-[\w-]{6,}                   # Anthropic's keys
    | \bsk-[\w-]{20,}                      # OpenAI's
    | (?<=[#?&]token=)[\w.~-]+             # sign-in links
    | (?<=\bBearer\ )[\w.~+/=-]+
    | (?<=://)[^/\s:@]*:[^/\s@]+(?=@)      # user and password in an address
    """,
    re.VERBOSE | re.IGNORECASE,
)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """The text with its control characters spelled out, but for tabs and ends of lines."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def metrics() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


def configure_logging(
    format: Literal["console", "json"] = "console",
    level: Literal["debug", "info", "warning", "error"] = "info",
) -> None:
    """Send our logs, and those of the libraries, to standard error in one shape. Call once, at the start."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("alembic", "asyncio", "uvicorn", "httptools"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # It warns of every request that makes no sense, as many as anybody, an agent say, likes to send.
    logging.getLogger("uvicorn.error").setLevel(max(logging.ERROR, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: replaces what is kept under a secret's name, and what looks like a secret."""
    for name, value in event.items():
        if name not in _OWN:
            event[name] = _clean(name, value)
    return event


def _clean(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return REDACTED if _names_secret(name) and value else harmless(_SECRET_TEXT.sub(REDACTED, value))
    if isinstance(value, bytes):
        return _clean(name, value.decode(errors="replace")) if value else ""
    if isinstance(value, Mapping):
        return {key: _clean(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(name, item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value  # a fencing token is a number, and no secret
    return _clean(name, str(value))


def _names_secret(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    return not _SECRET_WORDS.isdisjoint(plain.split("_")) or any(pair in plain for pair in _SECRET_PAIRS)
