"""One event a line, by allow-list: an event or a field that is not listed here does not get out.

Tracebacks carry no local variables and exceptions no text: what a peer or a caller sent can be in either.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog

FIELDS = frozenset(
    {
        "event", "level", "timestamp", "role", "call", "capture", "side", "state", "mode", "reason", "route", "peer",
        "gateway", "field", "count", "port", "ports", "seconds", "path", "pid", "status", "exit", "setting", "worker",
        "listen", "version", "error", "where", "warning", "restarts", "counter", "user", "action", "result",
        "tenant", "number", "origin", "configuration",
        "packets", "lost", "late", "reordered", "duplicates", "strangers", "rejected", "refused", "kernel_drops",
        "excess", "unknown_payload", "malformed", "masked_ms", "substituted_ms", "keys", "guard_alarms",
    }
)  # fmt: skip
"""Every field that a line may have. None of them is ever given what was keyed."""


def _allow(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    error = event.pop("exc_info", None)
    if error:
        if not isinstance(error, BaseException):
            error = sys.exc_info()[1]
        if error is not None:
            event["error"] = type(error).__name__
            event["where"] = _where(error)
    kept = {name: value for name, value in event.items() if name in FIELDS}
    dropped = len(event) - len(kept)
    return kept | {"warning": f"{dropped} field(s) withheld"} if dropped else kept


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in reversed(frames))


class _Writer:
    """A line to stderr. Where nobody takes it, it is dropped: no call and no capture may hang on a log."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(message + "\n")
            sys.stderr.flush()

    log = debug = info = warning = error = critical = msg


def configure(role: str, form: str = "json", level: str = "info") -> None:
    """Set up logging for this process. form: json or console."""
    render: Any = (
        structlog.processors.JSONRenderer(serializer=_json)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _allow,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: _Writer(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    get.cache_clear()
    sys.excepthook = _last_words
    logging.disable(logging.CRITICAL)  # libraries log what they please; only this module's lines get out


def _last_words(kind: type[BaseException], error: BaseException, _: Any) -> None:
    get().critical("died", error=kind.__name__, where=_where(error))


def _json(event: dict[str, Any], **_: Any) -> str:
    return msgspec.json.encode(event).decode()


@functools.cache
def get() -> Any:
    """The logger."""
    return structlog.get_logger()
