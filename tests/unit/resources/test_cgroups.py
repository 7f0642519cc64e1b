"""What a container allows, read from folders as the kernel lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.resources.cgroups import Cgroups, find_cgroups
from streams.resources.memory_budgets import container_says, effective_memory_limit
from streams.resources.pressure import pressure, some_avg10
from streams.settings import Settings

PRESSURE = "some avg10={} avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
NONE_V1 = "9223372036854771712\n"


def lay_out(root: Path, listing: str, files: dict[str, str]) -> Cgroups:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "listing").write_text(listing)
    return find_cgroups(root / "listing", root)


def test_v2_in_a_container_with_its_own_namespace(tmp_path: Path) -> None:
    groups = lay_out(tmp_path, "0::/\n", {
        "cgroup.controllers": "cpu memory", "cpu.max": "150000 100000\n", "memory.max": "536870912\n",
        "cpu.stat": "usage_usec 2500000\nuser_usec 1\n", "memory.pressure": PRESSURE.format("12.50"),
    })  # fmt: skip
    quota = groups.quota()
    assert quota is not None
    assert (quota.cores, quota.used()) == (1.5, 2.5)
    assert groups.memory_limit() == 512 << 20
    assert groups.pressure_file("memory") == tmp_path / "memory.pressure"


def test_v2_the_tightest_group_above_us_counts(tmp_path: Path) -> None:
    groups = lay_out(tmp_path, "0::/system.slice/streams.service\n", {
        "cgroup.controllers": "cpu memory",
        "system.slice/cpu.max": "max 100000\n", "system.slice/memory.max": "1000\n",
        "system.slice/cpu.stat": "usage_usec 7\n",
        "system.slice/streams.service/cpu.max": "400000 100000\n",
        "system.slice/streams.service/cpu.stat": "usage_usec 1000000\n",
        "system.slice/streams.service/memory.max": "max\n",
    })  # fmt: skip
    quota = groups.quota()
    assert quota is not None
    assert (quota.cores, quota.used()) == (4.0, 1.0)
    assert groups.memory_limit() == 1000


V1 = "12:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n1:name=systemd:/docker/abc\n"


@pytest.mark.parametrize("place", ["docker/abc/", ""], ids=["the host's tree", "the container's own"])
def test_v1_with_cpu_and_cpuacct_at_one_place(tmp_path: Path, place: str) -> None:
    groups = lay_out(tmp_path, V1, {
        f"cpu,cpuacct/{place}cpu.cfs_quota_us": "50000\n", f"cpu,cpuacct/{place}cpu.cfs_period_us": "100000\n",
        f"cpu,cpuacct/{place}cpuacct.usage": "3000000000\n",
        f"memory/{place}memory.limit_in_bytes": "268435456\n",
    })  # fmt: skip
    quota = groups.quota()
    assert quota is not None
    assert (quota.cores, quota.used()) == (0.5, 3.0)
    assert groups.memory_limit() == 256 << 20


def test_a_hybrid_with_the_controllers_apart(tmp_path: Path) -> None:
    listing = "4:memory:/p/1\n2:cpuacct:/p/1\n1:cpu:/p/1\n0::/\n"
    groups = lay_out(tmp_path, listing, {
        "cpu/p/1/cpu.cfs_quota_us": "200000\n", "cpu/p/1/cpu.cfs_period_us": "100000\n",
        "cpuacct/p/1/cpuacct.usage": "1500000000\n", "memory/p/1/memory.limit_in_bytes": NONE_V1,
        "memory/memory.limit_in_bytes": NONE_V1, "unified/cgroup.procs": "",
    })  # fmt: skip
    quota = groups.quota()
    assert quota is not None
    assert (quota.cores, quota.used()) == (2.0, 1.5)
    assert groups.memory_limit() is None


@pytest.mark.parametrize("listing", ["", "nonsense\n", "0::/gone\n", "3:cpu:/x\n"])
def test_where_nothing_can_be_read_there_is_no_limit(tmp_path: Path, listing: str) -> None:
    groups = lay_out(tmp_path, listing, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"})
    assert (groups.quota(), groups.memory_limit(), groups.pressure_file("io")) == (None, None, None)
    assert find_cgroups(tmp_path / "none", tmp_path / "none") == Cgroups((), (), ())


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({}, 512),
        ({"backfill_max_memory_mb": 1024}, 921),
        ({"backfill_max_memory_mb": 1024, "backfill_days": 7}, 460),
        ({"backfill_max_memory_mb": 1024, "backfill_days": 7, "worker_id": 3}, 921),
    ],
)
def test_the_containers_memory_counts_where_it_is_less(tmp_path: Path, settings: dict[str, object], limit: int) -> None:
    groups = lay_out(tmp_path, "0::/\n", {"cgroup.controllers": "", "memory.max": f"{1 << 30}\n"})
    made = Settings(_env_file=None, **settings)  # type: ignore[arg-type, call-arg]
    assert effective_memory_limit(made, groups) >> 20 == limit
    says = container_says(made, groups)
    assert (says is None) == (limit == made.backfill_max_memory_mb)
    assert says is None or f"{limit} MB of it" in says
    assert effective_memory_limit(made, Cgroups((), (), ())) == made.memory_bytes


def test_pressure_is_the_higher_of_machine_and_container(tmp_path: Path) -> None:
    groups = lay_out(tmp_path, "0::/\n", {
        "cgroup.controllers": "", "memory.pressure": PRESSURE.format("12.50"),
        "proc/memory": PRESSURE.format("3.00"), "proc/io": PRESSURE.format("44.10"), "proc/cpu": "nonsense",
    })  # fmt: skip
    assert pressure("memory", groups, tmp_path / "proc") == 12.5
    assert pressure("io", groups, tmp_path / "proc") == 44.1
    assert pressure("memory", Cgroups((), (), ()), tmp_path / "none") is None
    assert some_avg10(tmp_path / "proc/cpu") is None
