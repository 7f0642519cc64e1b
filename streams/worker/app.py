"""The Faust app of this project, with the pipeline that its transport, its worker and its agents work for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import faust
from faust.transport.drivers import TRANSPORTS

from streams.worker.stampede import install

if TYPE_CHECKING:  # it imports the tables, which nothing here needs
    from streams.worker.pipeline import Pipeline

#: The URL scheme of the transport that delivers slices.
SCHEME: Final = "kafka-slices"


class StreamsApp(faust.App):
    """A Faust app with a pipeline, and without Faust's own web server."""

    pipeline: Pipeline

    def worker_init_post_autodiscover(self) -> None:
        """Say that the app is complete. Faust would import its web server and add its routes, which nothing serves."""
        self.on_worker_init.send()


def pipeline_of(app: object) -> Pipeline:
    """Return the pipeline of our app. Faust hands it out as one of its own."""
    assert isinstance(app, StreamsApp)
    return app.pipeline


def register_transport() -> None:
    """Make our URL scheme known to Faust, and put what we mend of mode in its place."""
    install()
    TRANSPORTS.aliases.setdefault(SCHEME, "streams.worker.transport:Transport")


def broker_urls(servers: str) -> str:
    """Return ``host:port,host:port`` as Faust wants it, with our scheme."""
    return ";".join(f"{SCHEME}://{server.strip()}" for server in servers.split(","))
