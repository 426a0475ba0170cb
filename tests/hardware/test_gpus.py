"""NVIDIA, AMD and Apple: what their drivers say, turned into cards; and drivers that break."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf import hardware
from qwharf.hardware import amd, apple, host, nvidia

GIB = 2**30


# ----------------------------------------------------------------------------------------- NVIDIA


def h100(**changes: Any) -> dict[str, Any]:
    return {
        "name": "NVIDIA H100 80GB HBM3",
        "total_bytes": 85520809984,
        "free_bytes": 84988133376,
        "capability": (9, 0),
        "driver": "580.65.06",
        "bus_width_bits": 5120,
        "memory_clock_mhz": 2619,
    } | changes


def test_an_h100() -> None:
    gpu = nvidia.gpu_from(0, **h100())
    assert gpu.name == "NVIDIA H100 80GB HBM3"
    assert gpu.compute_capability == (9, 0)
    assert gpu.bandwidth_bytes_per_second == pytest.approx(3.35e12, rel=0.01)


@pytest.mark.parametrize(
    ("bits", "mhz", "published"),
    [(384, 10501, 1.008e12), (192, 10501, 504e9), (128, 8001, 256e9), (5120, 1593, 2.039e12)],
    ids=["RTX 4090", "RTX 4070", "RTX 4060 Laptop", "A100 80GB"],
)
def test_bandwidth_is_that_of_the_data_sheet(bits: int, mhz: int, published: float) -> None:
    assert nvidia.bandwidth(bits, mhz) == pytest.approx(published, rel=0.01)


def test_old_drivers_answer_in_bytes() -> None:
    gpu = nvidia.gpu_from(1, **h100(name=b"Tesla T4", driver=b"470.82\x00"))
    assert (gpu.index, gpu.name, gpu.driver) == (1, "Tesla T4", "470.82")


def test_what_a_card_does_not_say_is_unknown() -> None:
    silent = dict.fromkeys(h100())
    gpu = nvidia.gpu_from(0, **silent)
    assert gpu.name == "NVIDIA GPU"
    assert gpu.memory_total_bytes is gpu.memory_free_bytes is None
    assert gpu.compute_capability is gpu.bandwidth_bytes_per_second is None


@given(
    st.fixed_dictionaries(
        {
            "name": st.none() | st.text() | st.binary(),
            "total_bytes": st.none() | st.integers(),
            "free_bytes": st.none() | st.integers(),
            "capability": st.none() | st.tuples(st.integers(), st.integers()) | st.just("9.0"),
            "driver": st.none() | st.text() | st.binary(),
            "bus_width_bits": st.none() | st.integers(-1, 10**6),
            "memory_clock_mhz": st.none() | st.integers(-1, 10**6),
        }
    )
)
def test_any_answer_makes_a_sane_card(answers: dict[str, Any]) -> None:
    gpu = nvidia.gpu_from(0, **answers)
    assert gpu.name.isprintable()
    total, free = gpu.memory_total_bytes, gpu.memory_free_bytes
    assert total is None or total > 0
    assert free is None or free >= 0
    assert total is None or free is None or free <= total


def library(**functions: Callable[..., Any]) -> types.ModuleType:
    """An NVML of our own: what is not given fails as the real one does."""

    class NVMLError(Exception):
        pass

    def fail(*_: Any) -> Any:
        raise NVMLError("Not Supported")

    module = types.ModuleType("pynvml")
    names = [
        "nvmlInit", "nvmlShutdown", "nvmlSystemGetDriverVersion", "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetName",
        "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetMemoryBusWidth",
        "nvmlDeviceGetMaxClockInfo",
    ]  # fmt: skip
    for name in names:
        setattr(module, name, functions.get(name, fail))
    module.NVML_CLOCK_MEM = 2  # type: ignore[attr-defined]
    return module


def test_a_card_that_answers_little_is_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = library(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetName=lambda handle: f"card {handle}",
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert [g.name for g in nvidia.gpus()] == ["card 0", "card 1"]


def test_a_lost_card_does_not_hide_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(index: int) -> int:
        if index == 0:
            raise RuntimeError("GPU is lost")
        return index

    nvml = library(
        nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=handle
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert [g.index for g in nvidia.gpus()] == [1]


@pytest.mark.parametrize("broken", [library(), types.ModuleType("pynvml"), None])
def test_a_broken_driver_or_library_breaks_nothing(
    broken: types.ModuleType | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    assert host.attempt(nvidia.gpus) is None
    assert all(g.vendor != "nvidia" for g in hardware.detect(tmp_path).gpus)


# -------------------------------------------------------------------------------------------- AMD


def card(root: Path, name: str, **files: str) -> None:
    folder = root / "sys/class/drm" / name / "device"
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text, "utf-8")


def test_amd_cards_from_sysfs(tmp_path: Path) -> None:
    card(
        tmp_path,
        "card1",
        vendor="0x1002\n",
        device="0x740f\n",
        product_name="AMD INSTINCT MI210\n",
        mem_info_vram_total=f"{64 * GIB}\n",
        mem_info_vram_used=f"{2 * GIB}\n",
    )
    card(
        tmp_path,
        "card10",
        vendor="0x1002\n",
        device="0x744c\n",
        mem_info_vram_total=f"{24 * GIB}\n",
    )
    card(tmp_path, "card0", vendor="0x8086\n", device="0x3e92\n")
    (tmp_path / "sys/class/drm/card1-HDMI-A-1").mkdir()
    first, second = amd.gpus(tmp_path)
    assert (first.index, first.name) == (0, "AMD INSTINCT MI210")
    assert first.memory_free_bytes == 62 * GIB
    assert (second.index, second.name) == (1, "AMD GPU 744c")
    assert second.memory_free_bytes is None


def test_built_in_graphics_are_no_accelerator(tmp_path: Path) -> None:
    card(tmp_path, "card0", vendor="0x1002", device="0x164e", mem_info_vram_total=str(512 * 2**20))
    assert amd.gpus(tmp_path) == ()


def test_no_sysfs_no_cards(tmp_path: Path) -> None:
    assert amd.gpus(tmp_path) == ()


@given(st.none() | st.text(), st.none() | st.text(), st.none() | st.text(), st.none() | st.text())
def test_any_files_make_a_sane_card(
    product: str | None, device: str | None, total: str | None, used: str | None
) -> None:
    gpu = amd.gpu_from(
        0,
        vendor="0x1002",
        product=product,
        device=device,
        vram_total=total or str(8 * GIB),
        vram_used=used,
    )
    assert gpu is None or (gpu.name and gpu.name.isprintable())


# ------------------------------------------------------------------------------------------ Apple

M4_MAX = """\
machdep.cpu.brand_string: Apple M4 Max
hw.physicalcpu: 14
hw.logicalcpu: 14
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.AdvSIMD: 1
iogpu.wired_limit_mb: 0
"""
INTEL = """\
machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
hw.physicalcpu: 6
hw.logicalcpu: 12
hw.optional.avx2_0: 1
hw.optional.avx512f: 0
"""


def test_an_apple_chip() -> None:
    values = apple.parse_sysctl(M4_MAX)
    info = apple.cpu_info(values)
    assert (info.name, info.physical_cores) == ("Apple M4 Max", 14)
    assert info.instruction_sets == {"neon", "asimddp", "i8mm"}
    gpu = apple.gpu_from(values, 64 * GIB, 50 * GIB)
    assert gpu is not None
    assert (gpu.vendor, gpu.name) == ("apple", "Apple M4 Max")
    assert gpu.memory_total_bytes == 64 * GIB
    assert gpu.bandwidth_bytes_per_second == 410e9


def test_a_limit_set_by_the_user_counts() -> None:
    values = apple.parse_sysctl(M4_MAX.replace("wired_limit_mb: 0", "wired_limit_mb: 57344"))
    gpu = apple.gpu_from(values, 64 * GIB, 60 * GIB)
    assert gpu is not None
    assert gpu.memory_total_bytes == gpu.memory_free_bytes == 56 * GIB


def test_a_chip_from_the_future_has_unknown_bandwidth() -> None:
    gpu = apple.gpu_from({"machdep.cpu.brand_string": "Apple M9 Ultra"}, 64 * GIB, None)
    assert gpu is not None
    assert (gpu.name, gpu.bandwidth_bytes_per_second) == ("Apple M9 Ultra", None)


def test_an_intel_mac_has_no_shared_gpu() -> None:
    values = apple.parse_sysctl(INTEL)
    assert apple.gpu_from(values, 16 * GIB, 8 * GIB) is None
    assert apple.cpu_info(values).instruction_sets == {"avx2"}


@given(st.text())
def test_any_sysctl_text_is_read(text: str) -> None:
    values = apple.parse_sysctl(text)
    apple.cpu_info(values)
    apple.gpu_from(values, None, None)
