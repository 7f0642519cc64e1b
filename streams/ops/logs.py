"""Log lines: for people on a terminal, JSON elsewhere; the standard library's loggers come out in the same form."""

from __future__ import annotations

import logging
import sys
from typing import IO

import structlog

from streams.settings import Settings

#: Libraries whose warnings are the product's to judge: a broker that is away would fill the log.
_NOISY = ("aiokafka", "websockets", "asyncio", "faust", "mode", "kafka")


def set_up_logging(settings: Settings, stream: IO[str] | None = None) -> logging.Handler:
    """Install one handler on the root logger (stderr unless ``stream``), in the form that LOG_FORMAT asks for."""
    stream = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty()) if console else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.DEBUG if settings.log_level == "debug" else logging.CRITICAL)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return handler
