"""The web port of worker and ingest: live page, events, metrics and health.

It is read-only, and on loopback by default. It never ends or slows the process, and shows strangers' strings as text.
``page.html``, ``page.css``, ``page.js`` and ``icon.svg`` are the page's files.

- ``port``: a web port, the next free one if it is taken.
- ``server``, ``guard``: the routes, and the rules for every request and answer.
- ``watcher``: the Status for all viewers, gathered only while somebody looks.
- ``figures``, ``history``: the process's own figures, and its last ten minutes.
- ``view``: everything that the page says, as text and geometry. Pure.
- ``headline``, ``coverage_view``, ``charts``, ``drawing``: parts of the view: sentence, strip, series, shapes. Pure.
- ``page``: the page's HTML, made of a View.
- ``events``: one View a second to all open pages.
- ``metrics``, ``deployment_metrics``: this process and the whole deployment, for Prometheus.
- ``health``: ready or not, with the reasons. Pure.
"""
