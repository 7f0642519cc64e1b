"""Which processes of this machine are taken for ours: real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streams.resources.own_processes import OwnProcesses
from streams.resources.process_table import ProcessTable
from streams.settings import Settings


def settings(kafka: str = "192.0.2.1:9092", database: str = "postgresql://u@192.0.2.1/d") -> Settings:
    return Settings(_env_file=None, kafka_bootstrap_servers=kafka, database_url=database)  # type: ignore[call-arg, arg-type]


@contextmanager
def process(code: str, name: str = "python") -> Iterator[tuple[int, str]]:
    """A process of its own session that waits, under a name; its pid and the first line that it printed."""
    command = [str(Path(sys.executable).with_name(name)), "-c", f"{code}; print(flush=True); input()"]
    with subprocess.Popen(
        command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as made:
        assert made.stdout is not None
        try:
            yield made.pid, made.stdout.readline().decode().strip()
        finally:
            made.communicate(b"\n")


LISTEN = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], end='')"


def found(own: OwnProcesses) -> set[int]:
    return own.find(ProcessTable().read())


def test_we_and_our_children_are_ours() -> None:
    own = OwnProcesses(settings())
    assert os.getpid() in found(own)
    with process("pass") as (child, _):  # looked for at once, not with the next search
        pids = found(own)
        assert {os.getpid(), child} <= pids
        assert os.getppid() not in pids
    assert not own.has_unseen


def test_who_listens_for_us_here_is_ours() -> None:
    with process(LISTEN, "postgres") as (server, port):
        assert server in roots(settings(database=f"postgresql://u@localhost:{port}/d"))
        assert server in roots(settings(kafka=f"localhost:{port}"))
        assert server not in roots(settings(database=f"postgresql://u@192.0.2.1:{port}/d"))


def test_behind_a_pooler_or_a_containers_proxy_names_tell_who_serves_us() -> None:
    """Who listens is no server: it stands before one, which works for us too."""
    with process(LISTEN, "pgbouncer") as (pooler, port), process("pass", "postgres") as (server, _):
        assert {pooler, server} <= roots(settings(database=f"postgresql://u@localhost:{port}/d"))
        assert server not in roots(settings())
    # Nobody is seen to listen: another user's, or a container's whose port the kernel passes on.
    with process("pass", "postgres") as (server, _):
        assert server in roots(settings(database="postgresql://u@localhost:1/d"))


def roots(given: Settings) -> set[int]:
    return {pid for pid, _ in OwnProcesses(given)._search(ProcessTable().read())}
