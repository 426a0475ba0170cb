"""Container limits, from trees of pseudo files as several machines have them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.hardware.cgroup import (
    Limits,
    parse_bytes,
    parse_cfs,
    parse_cpu_max,
    parse_groups,
    parse_stat,
    read_limits,
)

GIB = 2**30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root


def test_docker_on_version_2(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {GIB}\nactive_file 5\n",
        },
    )
    assert read_limits(root) == Limits(
        cpus=1.5, memory_limit_bytes=8 * GIB, memory_left_bytes=6 * GIB
    )


def test_a_parents_limit_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user.slice/app.scope\n",
            "sys/fs/cgroup/user.slice/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/user.slice/memory.current": f"{GIB}\n",
            "sys/fs/cgroup/user.slice/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/user.slice/app.scope/memory.max": "max\n",
            "sys/fs/cgroup/user.slice/app.scope/cpu.max": "max 100000\n",
        },
    )
    assert read_limits(root) == Limits(
        cpus=4.0, memory_limit_bytes=4 * GIB, memory_left_bytes=3 * GIB
    )


def test_docker_on_version_1(tmp_path: Path) -> None:
    """The path that is named does not exist inside the container: its root is mounted."""
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "9:cpu,cpuacct:/docker/3f2a\n4:memory:/docker/3f2a\n0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"cache 5\ntotal_inactive_file {GIB // 2}\n",
        },
    )
    assert read_limits(root) == Limits(
        cpus=2.5, memory_limit_bytes=2 * GIB, memory_left_bytes=2 * GIB - GIB // 2
    )


def test_version_1_without_limits(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n1:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "4096\n",
        },
    )
    assert read_limits(root) == Limits()


def test_a_hybrid_machine_keeps_version_2_apart(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/job\n0::/job\n",
            "sys/fs/cgroup/unified/job/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "0\n",
        },
    )
    found = read_limits(root)
    assert found.cpus == 0.5
    assert found.memory_limit_bytes == GIB


def test_a_path_out_of_the_namespace_leads_nowhere(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../../other\n",
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
            "other/memory.max": "4096\n",
        },
    )
    assert read_limits(root).memory_limit_bytes == GIB


def test_nothing_there_is_no_limit(tmp_path: Path) -> None:
    assert read_limits(tmp_path) == Limits()


def test_nonsense_is_no_limit(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "x\n::\n0:/\n\0\n",
            "sys/fs/cgroup/memory.max": "lots\n",
            "sys/fs/cgroup/memory.current": "-5\n",
            "sys/fs/cgroup/memory.stat": "inactive_file\n\nx y z\n",
        },
    )
    assert read_limits(tmp_path) == Limits()


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000", 2.0), ("max 100000", None), ("50000", 0.5), ("", None), (None, None),
     ("0 100000", None), ("100 0", None), ("١ ٢", None)],
)  # fmt: skip
def test_cpu_max(text: str | None, cores: float | None) -> None:
    assert parse_cpu_max(text) == cores


def test_cfs() -> None:
    assert parse_cfs("300000", "100000") == 3.0
    assert parse_cfs("-1", "100000") is None
    assert parse_cfs("300000", None) is None


@given(st.text())
def test_parsers_take_anything(text: str) -> None:
    parse_groups(text)
    parse_stat(text)
    parse_cpu_max(text)
    size = parse_bytes(text)
    assert size is None or size > 0


@given(st.integers(1, 2**40), st.integers(1, 2**20))
def test_a_quota_is_a_ratio(quota: int, period: int) -> None:
    assert parse_cpu_max(f"{quota} {period}") == quota / period
