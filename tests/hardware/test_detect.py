"""Detection on the machine that runs the tests, and on broken ones."""

import os
from pathlib import Path

import psutil
import pytest

from qwharf import hardware
from qwharf.hardware import host
from qwharf.hardware.cgroup import Limits


def test_this_machine(tmp_path: Path) -> None:
    found = hardware.detect(tmp_path / "not" / "there" / "yet")
    assert found.memory_total_bytes == psutil.virtual_memory().total
    assert found.memory_available_bytes is not None
    assert 0 < found.memory_available_bytes <= psutil.virtual_memory().total
    assert found.cpu.logical_cores == os.cpu_count()
    assert found.cpu.usable_cores is not None
    assert 0 < found.cpu.usable_cores <= (os.cpu_count() or 1)
    assert found.disk_free_bytes is not None
    assert found.disk_free_bytes > 0


def test_a_quota_bounds_the_cores() -> None:
    assert host.cpu(Limits(cpus=0.5)).usable_cores == 0.5


def test_a_container_bounds_the_memory() -> None:
    total, available = host.memory(Limits(memory_limit_bytes=2**30, memory_left_bytes=2**20))
    assert total == psutil.virtual_memory().total
    assert available == 2**20


def test_a_machine_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(psutil, "virtual_memory", broken)
    monkeypatch.setattr(psutil, "cpu_count", broken)
    monkeypatch.setattr(os, "sched_getaffinity", broken, raising=False)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", broken, raising=False)
    found = hardware.detect(tmp_path)
    assert found.memory_total_bytes is found.memory_available_bytes is None
    bare = host.cpu(Limits(), root=tmp_path)
    assert bare.physical_cores is bare.logical_cores is bare.usable_cores is None
    assert bare.instruction_sets == frozenset()
