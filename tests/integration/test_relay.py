"""The development relay over real sockets on the loopback: what real relays do, and each fault."""

import asyncio
import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import libipld
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from streams.errors import RelayError, SettingsError
from streams.simulator.__main__ import main
from streams.simulator.oracle import Oracle, iter_records, load_oracle, load_pds_state
from streams.simulator.recording import Frame, read_frames, write_frames
from streams.simulator.relay import DevRelay, RelayThread
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import Plan, Reset, Traffic
from tests.support.patience import PATIENCE

PDS = Path(__file__).parents[1] / "fixtures" / "pds"


def generated(events: int = 300) -> FrameStore:
    return FrameStore(Traffic(Plan(events, seed=5)).frames())


@asynccontextmanager
async def listening(relay: DevRelay, cursor: int | None = 0, **options: Any) -> AsyncIterator[ClientConnection]:
    query = "" if cursor is None else f"?cursor={cursor}"
    # A client of this library that has not read everything waits for the end of its close so long.
    async with connect(relay.url + query, **{"max_size": None, "close_timeout": 0.1, **options}) as client:
        yield client


async def take(client: ClientConnection, count: int) -> list[bytes]:
    return [await asyncio.wait_for(client.recv(decode=False), PATIENCE) for _ in range(count)]


async def until_closed(client: ClientConnection) -> tuple[list[bytes], ConnectionClosed]:
    """What comes before the end, and the end."""
    frames: list[bytes] = []
    while True:
        try:
            frames.append(await asyncio.wait_for(client.recv(decode=False), PATIENCE))
        except ConnectionClosed as end:
            return frames, end


async def silent(client: ClientConnection, seconds: float = 0.3) -> bool:
    try:
        await asyncio.wait_for(client.recv(), seconds)
    except TimeoutError:
        return True
    return False


def seqs(frames: list[bytes]) -> list[int]:
    return [libipld.decode_dag_cbor_multi(frame)[1]["seq"] for frame in frames]


async def test_a_recording_is_served_byte_for_byte() -> None:
    path = PDS / "frames.bin.gz"
    async with DevRelay(path) as relay, listening(relay) as client:
        assert (relay.oldest, relay.head) == (1, 781)
        assert await take(client, 781) == list(read_frames(path))
        assert await silent(client)


@pytest.mark.parametrize("inclusive", [False, True])
async def test_a_cursor_in_the_window_replays_from_there(inclusive: bool) -> None:
    store = generated()
    cursor = store.seqs[100]
    async with DevRelay(store, cursor_inclusive=inclusive) as relay, listening(relay, cursor) as client:
        assert seqs(await take(client, 1)) == [store.seqs[100 if inclusive else 101]]
        assert seqs(await take(client, len(store) - 102 + inclusive)) == list(store.seqs[102 - inclusive :])


async def test_replay_goes_on_live_and_without_a_cursor_all_is_live() -> None:
    store = generated()
    async with (
        DevRelay(store, published=50) as relay,
        listening(relay, store.seqs[39]) as replaying,
        listening(relay, None) as live,
    ):
        assert seqs(await take(replaying, 10)) == list(store.seqs[40:50])
        assert await silent(live)
        relay.publish(25)
        relay.append([])
        assert seqs(await take(live, 20)) == list(store.seqs[50:70])
        assert seqs(await take(replaying, 25)) == list(store.seqs[50:75])
        assert relay.head == store.seqs[-1]  # append lets out what was held back


async def test_frames_can_be_appended() -> None:
    frames = list(Traffic(Plan(100)).frames())
    async with DevRelay([frame.data for frame in frames[:10]]) as relay, listening(relay, None) as client:
        assert relay.head == frames[9].seq
        relay.append([frame.data for frame in frames[10:20]])
        relay.append(frames[20:30])
        assert await take(client, 20) == [frame.data for frame in frames[10:30]]
        assert relay.head == frames[29].seq


async def test_an_old_cursor_silently_gets_the_oldest() -> None:
    store = generated()
    async with DevRelay(store) as relay:
        relay.retain_from(store.seqs[200])
        for cursor in (0, 1, store.seqs[10]):
            async with listening(relay, cursor) as client:
                assert seqs(await take(client, 1)) == [store.seqs[200]]
        relay.outdated_info = True
        async with listening(relay, store.seqs[10]) as client:
            header, body = libipld.decode_dag_cbor_multi((await take(client, 1))[0])
            assert (header, body["name"]) == ({"op": 1, "t": "#info"}, "OutdatedCursor")
            assert seqs(await take(client, 1)) == [store.seqs[200]]


async def test_a_cursor_beyond_the_head_is_an_error_frame_and_a_close() -> None:
    store = generated()
    async with DevRelay(store) as relay, listening(relay, store.seqs[-1] + 1) as client:
        [frame], end = await until_closed(client)
        header, body = libipld.decode_dag_cbor_multi(frame)
        assert (header, body["error"]) == ({"op": -1}, "FutureCursor")
        assert end.rcvd is not None
        assert (end.rcvd.code, end.rcvd.reason) == (1008, "FutureCursor")
    async with DevRelay(store) as relay, listening(relay, store.seqs[-1]) as client:
        assert await silent(client)


async def test_other_paths_and_bad_cursors_are_http_errors() -> None:
    async with DevRelay(generated()) as relay:
        for url, status in ((relay.url + "x", 404), (relay.url + "?cursor=abc", 400), (relay.url + "?cursor=-1", 400)):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url)
            assert refused.value.response.status_code == status
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"GET /xrpc/com.atproto.sync.subscribeRepos HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 426 " in await reader.readline()
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"\x16\x03\x01 not http\r\n\r\n")
        assert await reader.read() == b""
        writer.close()


async def test_pings_are_answered_and_a_close_is_honoured() -> None:
    async with DevRelay(generated()) as relay:
        async with listening(relay, None) as client:
            assert await asyncio.wait_for(await client.ping(), PATIENCE) >= 0
            await client.close(1000)
            assert client.close_code == 1000
        await asyncio.sleep(0.05)
        assert not relay.subscriptions
        assert [c.open for c in relay.connections] == [False]


async def test_many_short_connections() -> None:
    store = generated()
    async with DevRelay(store, faults=["drop:after=20"]) as relay:
        for n in range(60):
            async with listening(relay, store.seqs[n] - 1, ping_interval=None) as client:
                assert seqs(await take(client, 1)) == [store.seqs[n]]
        assert relay.faults.all[0].fired == 0  # none of them stayed long enough to suffer it


async def test_a_live_client_that_does_not_read_is_too_slow() -> None:
    frames = [Frame(n, n, b"\xa0" * 60_000) for n in range(1, 601)]
    relay = DevRelay(FrameStore(frames), published=10, live_buffer=20)
    async with relay, listening(relay, 0, max_queue=4) as client:
        await take(client, 1)
        await asyncio.sleep(0.1)
        for _ in range(59):
            relay.publish(10)
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        got, end = await until_closed(client)
        assert libipld.decode_dag_cbor_multi(got[-1])[1]["error"] == "ConsumerTooSlow"
        assert end.rcvd is not None
        assert end.rcvd.code == 1008
        assert len(got) < 599


async def test_a_replaying_client_that_does_not_read_is_waited_for() -> None:
    frames = [Frame(n, n, b"\xa0" * 60_000) for n in range(1, 301)]
    async with DevRelay(FrameStore(frames), live_buffer=20) as relay, listening(relay, 0, max_queue=4) as client:
        await asyncio.sleep(0.5)
        assert len(await take(client, 300)) == 300


async def test_drop_ends_without_a_close_frame_and_once() -> None:
    store = generated()
    async with DevRelay(store, faults=["drop:after=30"]) as relay:
        async with listening(relay) as client:
            frames, end = await until_closed(client)
        assert (len(frames), end.rcvd) == (30, None)
        async with listening(relay, store.seqs[29]) as client:
            assert seqs(await take(client, 40)) == list(store.seqs[30:70])
        assert [c.end for c in relay.connections] == ["dropped", None]


async def test_close_and_error_frames_in_the_middle() -> None:
    store = generated()
    faults = ["close:after=5,code=1012,reason=restart,connection=1", f"error:seq={store.seqs[7]},connection=2"]
    async with DevRelay(store, faults=faults) as relay:
        async with listening(relay) as client:
            frames, end = await until_closed(client)
            assert len(frames) == 5
            assert end.rcvd is not None
            assert (end.rcvd.code, end.rcvd.reason) == (1012, "restart")
        async with listening(relay) as client:
            frames, _ = await until_closed(client)
            assert seqs(frames[:-1]) == list(store.seqs[:7])
            assert libipld.decode_dag_cbor_multi(frames[-1])[0] == {"op": -1}


async def test_duplicates_and_rewinds() -> None:
    store = generated()
    faults = ["duplicate:after=4,count=2", "rewind:after=10,count=5"]
    async with DevRelay(store, faults=faults) as relay, listening(relay) as client:
        s = store.seqs
        assert seqs(await take(client, 20)) == [*s[:4], s[4], s[4], s[5], s[5], *s[6:10], *s[5:13]]


async def test_frames_in_fragments_are_the_same_frames() -> None:
    store = generated()
    async with DevRelay(store, faults=["fragments:after=4,count=3"]) as relay, listening(relay) as client:
        assert seqs(await take(client, 12)) == list(store.seqs[:12])


async def test_stalls_with_and_without_pongs() -> None:
    faults = ["stall:after=3,connection=1,pongs=1,seconds=3", "stall:after=3,connection=2"]
    async with DevRelay(generated(), faults=faults) as relay:
        async with listening(relay, ping_interval=None) as client:
            await take(client, 3)
            await asyncio.sleep(0.15)
            await asyncio.wait_for(await client.ping(), PATIENCE)
            assert await silent(client, 0.2)
            await take(client, 10)
        async with listening(relay, ping_interval=None) as client:
            await take(client, 3)
            await asyncio.sleep(0.15)
            pong = await client.ping()
            assert await silent(client)
            assert not pong.done()


@pytest.mark.parametrize("kind", ["garbage", "empty", "text", "truncated", "no_header", "unknown_t", "unknown_op"])
async def test_bad_frames_in_the_middle(kind: str) -> None:
    store = generated()
    async with DevRelay(store, faults=[f"{kind}:after=2"]) as relay, listening(relay) as client:
        messages = [await asyncio.wait_for(client.recv(), PATIENCE) for _ in range(6)]
        assert isinstance(messages[2], str) == (kind == "text")
        del messages[2]
        assert seqs(messages) == list(store.seqs[:5])  # type: ignore[arg-type]


async def test_refusals_a_clamp_and_a_future_cursor() -> None:
    store = generated()
    faults = ["refuse:status=429", "refuse:status=403", "clamp:count=50", "future_cursor:connection=4"]
    async with DevRelay(store, faults=faults) as relay:
        for status in (429, 403):
            with pytest.raises(InvalidStatus) as refused:
                await connect(relay.url)
            assert refused.value.response.status_code == status
        async with listening(relay, store.seqs[9]) as client:
            assert seqs(await take(client, 1)) == [store.seqs[60]]
        async with listening(relay) as client:
            [frame], _ = await until_closed(client)
            assert libipld.decode_dag_cbor_multi(frame)[1]["error"] == "FutureCursor"


async def test_a_drip_is_slow() -> None:
    async with DevRelay(generated(), faults=["drip:after=10,rate=20"]) as relay, listening(relay) as client:
        await take(client, 10)
        begun = time.monotonic()
        await take(client, 8)
        assert time.monotonic() - begun > 0.3


async def test_a_reset_sequence_goes_on_lower_and_forgets_the_old_one() -> None:
    store = FrameStore(Traffic(Plan(300, seed=5, resets=(Reset(150),))).frames())
    [reset] = store.resets
    async with DevRelay(store) as relay:
        async with listening(relay) as client:
            assert seqs(await take(client, len(store))) == list(store.seqs)
        assert relay.oldest == store.seqs[reset] < 10
        async with listening(relay, store.seqs[0]) as client:
            [frame], _ = await until_closed(client)
            assert libipld.decode_dag_cbor_multi(frame)[1]["error"] == "FutureCursor"
        async with listening(relay, store.seqs[reset]) as client:
            assert seqs(await take(client, 1)) == [store.seqs[reset + 1]]


async def test_connections_are_cut_when_the_relay_ends() -> None:
    async with DevRelay(generated()) as relay:
        client = await connect(relay.url + "?cursor=0")
        await take(client, 1)
    await until_closed(client)
    assert client.close_code == 1001
    with pytest.raises(OSError):
        await connect(relay.url)


def test_a_thread_serves_those_who_are_not_asyncio() -> None:
    thread = RelayThread(DevRelay(generated(), published=10))
    with thread as relay:
        assert thread.call(lambda: relay.publish(5)) is None
        assert relay.head_index == 15
        taken = RelayThread(DevRelay(port=relay.port))
        with pytest.raises(RelayError), taken:
            pass


def test_recordings_are_read_as_they_were_written(tmp_path: Path) -> None:
    frames = [b"", b"a" * 70_000, b"b"]
    for name in ("frames.bin.gz", "frames.bin"):
        assert write_frames(tmp_path / name, frames) == 3
        assert list(read_frames(tmp_path / name)) == frames
    (tmp_path / "cut.bin").write_bytes((tmp_path / "frames.bin").read_bytes()[:-1])
    with pytest.raises(SettingsError):
        list(read_frames(tmp_path / "cut.bin"))


@pytest.mark.parametrize("name", ["oracle.json.gz", "oracle.json"])
def test_an_oracle_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    oracle = Oracle()
    list(Traffic(Plan(500, seed=9), oracle).frames())
    oracle.write_to(tmp_path / name)
    assert load_oracle(tmp_path / name) == oracle.state()
    assert dict(iter_records(tmp_path / name)) == oracle.state()["records"]


def test_the_recordings_state_has_the_oracles_shape() -> None:
    state = load_pds_state(PDS / "state.json.gz")
    assert sum(map(len, state["records"].values())) == 1203
    statuses = [account["status"] for account in state["accounts"].values()]
    assert (statuses.count(None), statuses.count("deleted"), statuses.count("takendown")) == (25, 3, 2)
    assert all(account["handle"] for account in state["accounts"].values() if account["active"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--generate", "5", "--fault", "nonsense"],
        ["--generate", "5", "--fault", "drop:nonsense=1"],
        ["--generate", "5", "--until", "tomorrow"],
        ["--frames", "no such file"],
        ["--frames", str(PDS / "frames.bin.gz"), "--oracle", "x"],
    ],
)
def test_a_bad_argument_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


async def test_the_command(tmp_path: Path) -> None:
    oracle, saved = tmp_path / "oracle.json.gz", tmp_path / "frames.bin"
    options = [
        "--seed",
        "3",
        "--days-span",
        "5",
        "--retain-seconds",
        "172800",
        "--then-live",
        "500",
        "--live-events",
        "50",
    ]
    faults = ["--fault", "missing_block:scatter=2", "--fault", "text:after=5", "--fault", "drop:after=100"]
    command = [sys.executable, "-m", "streams.simulator", "--generate", "1000", *options, *faults, "--log"]
    process = subprocess.Popen(  # noqa: ASYNC220 (it starts at once)
        [*command, "--oracle", str(oracle), "--save", str(saved)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        assert ready["live_frames"] > 0
        state = load_oracle(oracle)
        assert (state["first_seq"], state["counts"]["events"]) == (ready["first_seq"], ready["events"])
        assert 300 < ready["events"] < 500
        assert (state["expected_dead"], state["expected_skipped"]) == (1, 1)
        seen: list[int] = []
        texts = 0
        while not seen or seen[-1] != state["last_seq"]:
            async with connect(f"{ready['url']}?cursor={seen[-1] if seen else 0}") as client:
                try:
                    while not seen or seen[-1] != state["last_seq"]:
                        message = await asyncio.wait_for(client.recv(), PATIENCE)
                        texts += isinstance(message, str)
                        seen += [] if isinstance(message, str) else seqs([message])
                except ConnectionClosedError:
                    pass
        assert seen == sorted(set(seen))
        assert texts == 1
        assert len(seen) == sum(1 for _ in read_frames(saved)) == state["counts"]["frames"]
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert next(json.loads(line)["end"] for line in rest.splitlines()) == "dropped"
    assert gzip.decompress(oracle.read_bytes()).startswith(b'{"version":1')
