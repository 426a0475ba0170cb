"""Whether an installed engine works: it is imported in its own environment and asked."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from qwharf import hardware
from qwharf.engines import packages
from qwharf.engines.installed import ENVIRONMENT, LOCK, Installed
from qwharf.engines.installers import site_packages
from qwharf.engines.running import Finished, run, run_python
from qwharf.errors import EngineError, InvalidFile

PROBE = Path(__file__).with_name("probe.py")
SECONDS = 600
"""Importing vLLM takes 12 seconds of one core; a cold disk and a busy machine take longer."""

EXPLANATIONS = (
    (
        "torchvision::nms does not exist",
        "a torchvision for CUDA lies beside a torch without it: `{again}`",
    ),
    (
        "No package metadata was found for vllm",
        "`vllm serve` does not find its own version: `{again}`",
    ),
    ("libcuda.so", "the NVIDIA driver is not installed, or not seen here: see `nvidia-smi`"),
    ("libcudart", "the CUDA libraries do not fit this package: `{again}`"),
    ("GLIBC_", "the system's C library is older than these packages need"),
    ("GLIBCXX_", "the system's C++ library is older than these packages need"),
    ("Illegal instruction", "the packages use instructions that this processor does not have"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What was found when an engine was tried."""

    installed: Installed
    works: bool
    version: str | None
    """As the engine itself says."""
    device: str | None
    """What it would compute on."""
    problems: tuple[str, ...] = ()
    """What is wrong and what to do, worst first; a working engine may have some, too."""
    seconds: float = 0.0


def examine(installed: Installed, log: TextIO | None = None) -> Health:
    """Try ``installed``, in a process of its own; takes seconds. Raises nothing."""
    begun = time.monotonic()
    if installed.problems:
        return Health(
            installed=installed, works=False, version=None, device=None, problems=installed.problems
        )
    missing = _missing(installed)
    answer: dict[str, str] = {}
    try:
        finished = _probe(installed, log)
        answer = _answer(finished)
        failure = [] if answer else [_explain(installed, finished)]
    except EngineError as e:
        failure = [f"{e.found or e}: `{again(installed)}`"]
    return Health(
        installed=installed,
        works=not failure,
        version=answer.get("version"),
        device=answer.get("device"),
        problems=(*failure, *missing, *(_advice(installed, answer) if answer else ())),
        seconds=round(time.monotonic() - begun, 1),
    )


def again(installed: Installed) -> str:
    """The command that installs the same once more."""
    flag = "" if installed.variant == "unknown" else f" --{installed.variant}"
    version = "" if installed.engine == "llama.cpp" else f"=={installed.version}"
    return f"qwharf engine install {installed.engine}{version}{flag} --again"


def _probe(installed: Installed, log: TextIO | None) -> Finished:
    if installed.variant == "native":
        argv = [str(installed.command("llama-server")), "--version"]
        return run(argv, log=log, timeout_seconds=SECONDS)
    args = [installed.engine, installed.variant]
    return run_python(installed, PROBE, args, log=log, timeout_seconds=SECONDS)


def _answer(finished: Finished) -> dict[str, str]:
    for line in finished.lines:
        if line.startswith("qwharf-probe: "):
            value = json.loads(line.removeprefix("qwharf-probe: "))
            return {str(k): str(v) for k, v in value.items()}
        if line.startswith("version: ") and finished.code == 0:  # llama-server's own
            return {"version": line.removeprefix("version: "), "device": "cpu"}
    return {}


def _explain(installed: Installed, finished: Finished) -> str:
    text = "\n".join(finished.lines)
    command = again(installed)
    if finished.code < 0:
        text += "\nIllegal instruction" if finished.code == -4 else ""
    for words, meaning in EXPLANATIONS:
        if words in text:
            return meaning.format(again=command)
    last = next((x.strip() for x in reversed(finished.lines) if x.strip()), "it said nothing")
    return f"it cannot be imported ({last[:200]}, exit code {finished.code}): `{command}`"


def _missing(installed: Installed) -> list[str]:
    """Packages of the lock that are gone."""
    if installed.source != "qwharf" or not (installed.folder / LOCK).is_file():
        return []
    try:
        wanted = packages.parse_lock((installed.folder / LOCK).read_text("utf-8"))
    except (InvalidFile, OSError, UnicodeDecodeError) as e:
        return [f"{LOCK} cannot be read ({e}): `{again(installed)}`"]
    here = packages.present(site_packages(installed.folder / ENVIRONMENT))
    gone = [p.name for p in wanted if packages.canonical(p.name) not in here]
    if not gone:
        return []
    some = ", ".join(gone[:3]) + (", …" if len(gone) > 3 else "")
    return [f"{len(gone)} of its {len(wanted)} packages are gone ({some}): `{again(installed)}`"]


def _advice(installed: Installed, answer: dict[str, str]) -> list[str]:
    device = answer.get("device", "")
    cards = [gpu.name for gpu in hardware.discrete_gpus() if gpu.vendor == "nvidia"]
    if installed.variant == "cuda" and "cuda" not in device:
        return [f"it was installed for CUDA, but computes on {device}: see `nvidia-smi`"]
    if installed.variant in ("cpu", "parser") and cards and installed.source == "qwharf":
        return [
            f"there is an NVIDIA card ({cards[0]}) that it does not use: "
            f"`qwharf engine install {installed.engine} --cuda`"
        ]
    return []
