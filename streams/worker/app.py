"""The Faust app of this project, with the pipeline that its transport, its worker and its agents work for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import faust

if TYPE_CHECKING:  # the pipeline imports the transport, which imports this
    from streams.worker.pipeline import Pipeline


class StreamsApp(faust.App):
    """A Faust app with a pipeline."""

    pipeline: Pipeline


def pipeline_of(app: object) -> Pipeline:
    """Return the pipeline of our app. Faust hands it out as one of its own."""
    assert isinstance(app, StreamsApp)
    return app.pipeline
