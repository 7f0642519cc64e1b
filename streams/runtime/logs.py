"""Log lines: for people on a terminal, JSON elsewhere; the standard library's loggers use the same form."""

from __future__ import annotations

import logging
import sys
from typing import IO

import structlog

from streams.settings import Settings, names_of_neighbours

#: Libraries whose warnings are the product's to judge: a broker that is away would fill the log.
_NOISY = ("aiokafka", "websockets", "asyncio", "faust", "mode", "kafka")
#: Loggers that write requests and headers whole at debug, those with a password in them too.
_TELLS_SECRETS = ("aiokafka.conn", "websockets.client")


class StderrHandler(logging.StreamHandler[IO[str]]):
    """A handler that writes to the ``sys.stderr`` of now: while a progress bar is shown, that prints above the bar."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:
        """Return standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, stream: IO[str]) -> None:
        raise AttributeError("standard error is what it is")


def keep_secrets() -> None:
    """Suppress the debug lines that have passwords in them, whatever the level."""
    for name in _TELLS_SECRETS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)  # that of its library, which may have changed
        logger.setLevel(max(logger.getEffectiveLevel(), logging.INFO))


def say_neighbours() -> None:
    """Log which names begin like ours and are not read, once at the start: one of them may be meant for us."""
    if names := names_of_neighbours():
        told = ", ".join(names[:12]) + (f", and {len(names) - 12} more" if len(names) > 12 else "")
        logging.getLogger(__name__).info("not read, because they are not settings of this program: %s", told)


def set_up_logging(settings: Settings, stream: IO[str] | None = None) -> logging.Handler:
    """Install one handler on the root logger (stderr unless ``stream``), in the form that LOG_FORMAT asks for."""
    terminal = (stream or sys.stderr).isatty()
    console = settings.log_format == "console" or (settings.log_format == "auto" and terminal)
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=terminal) if console else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(stream) if stream is not None else StderrHandler()
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
    keep_secrets()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return handler
