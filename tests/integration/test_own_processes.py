"""Which processes of this machine are taken for ours: real ones."""

from __future__ import annotations

import os
import subprocess
import sys

from streams.ops.own_processes import OwnProcesses
from streams.settings import Settings


def test_we_and_our_children_are_ours() -> None:
    own = OwnProcesses(Settings(_env_file=None, kafka_bootstrap_servers="192.0.2.1:9092"))  # type: ignore[call-arg]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = {process.pid for process in own.find()}
        assert {os.getpid(), child.pid} <= found
        assert os.getppid() not in found
        assert own.find() is own.find()  # not looked for again at once
        child.communicate(b"\n")
    assert not own.has_unseen


def test_who_listens_for_us_here_is_ours() -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        settings = Settings(_env_file=None, database_url=f"postgresql://u@localhost:{port}/d")  # type: ignore[call-arg, arg-type]
        assert server.pid in OwnProcesses(settings)._search()
        elsewhere = Settings(_env_file=None, database_url=f"postgresql://u@192.0.2.1:{port}/d")  # type: ignore[call-arg, arg-type]
        assert server.pid not in OwnProcesses(elsewhere)._search()
        server.communicate(b"\n")
