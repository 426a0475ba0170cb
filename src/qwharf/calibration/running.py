"""The child process that calibrates: what it is given, what it says, what it leaves behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from qwharf.artifacts.companions import config_of
from qwharf.artifacts.disk import storage_errors
from qwharf.artifacts.partial import remove
from qwharf.calibration.methods import Method
from qwharf.engines import Finished, Installed, run_python
from qwharf.errors import EngineError
from qwharf.types import Architecture

SCRIPT = Path(__file__).with_name("script.py")
SIGN = "qwharf-calibrate: "
"""Begins each line of the script's that is meant for us."""
EXTRA = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
KILLED = -9

Step = Callable[[int, int], None]
"""Progress: of how many passes of tokens through layers how many are done."""


def calibrate(
    installed: Installed,
    method: Method,
    arch: Architecture,
    files: Sequence[Path],
    sequences: Sequence[Sequence[int]],
    folder: Path,
    *,
    log_path: Path,
    step: Step,
) -> None:
    """Make ``folder``: the layers of a model as compressed-tensors stores them, rounded with care.

    Until it is whole, it is called ``NAME.partial``; what a killed run left there is thrown away.

    Args:
        installed: the environment of llm-compressor.
        method: how.
        arch: the model.
        files: its weights, safetensors in plain floats.
        sequences: tokens, all of one length.
        folder: appears when it is complete.
        log_path: takes all that was said.
        step: is told of the progress.

    Raises:
        EngineError: it failed, or was killed; the subject's own words.
        StorageError: no space, no permission.
    """
    work = folder.with_name(folder.name + ".partial")
    out, model = work / "out", work / "model"
    with storage_errors(work):
        remove(work)
        out.mkdir(parents=True)
        model.mkdir()
        log_path.parent.mkdir(parents=True, exist_ok=True)
        config = config_of(arch, "F32")
        (model / "config.json").write_text(json.dumps(config), "utf-8")
        job = {
            "model": str(model.absolute()),
            "files": [str(path.absolute()) for path in files],
            "out": str(out.absolute()),
            "method": method.name,
            "weights": method.weights(),
            "activations": method.activations(),
            "format": method.layout,
            "scales": method.scales,
            "sequences": [list(s) for s in sequences],
        }
        (work / "job.json").write_text(json.dumps(job), "utf-8")
        with log_path.open("w", encoding="utf-8", buffering=1) as log:
            _run(installed, work / "job.json", log, step)
        section = {"quantization_config": {"quant_method": "compressed-tensors"}}
        section["quantization_config"]["format"] = method.layout
        (out / "config.json").write_text(json.dumps(config | section), "utf-8")
        out.rename(folder)
        remove(work)


def _run(installed: Installed, job: Path, log: TextIO, step: Step) -> None:
    whole = False

    def listen(line: str) -> None:
        nonlocal whole
        facts = said(line)
        if "total" in facts:
            step(int(facts["done"]), int(facts["total"]))
        whole = whole or facts.get("finished") is True

    begun = time.monotonic()
    done = run_python(installed, SCRIPT, [str(job)], extra=EXTRA, log=log, on_line=listen)
    log.write(f"after {time.monotonic() - begun:.0f} s: exit code {done.code}\n")
    if done.code or not whole:
        raise _failed(installed, done, log.name)


def said(line: str) -> Mapping[str, Any]:
    """What a line of the script's says; nothing where it is not meant for us."""
    if not line.startswith(SIGN):
        return {}
    value = json.loads(line.removeprefix(SIGN))
    return value if isinstance(value, dict) else {}


def _failed(installed: Installed, done: Finished, log: str) -> EngineError:
    words = [x.strip() for x in done.lines if x.strip() and not x.startswith(SIGN)]
    last = words[-1][:300] if words else "it said nothing"
    if done.code == KILLED:
        last = "it was killed, most likely because memory ran out"
    elif "No space left on device" in " ".join(words[-5:]):
        last = "no space left on device"
    return EngineError(
        f"{installed.engine} {installed.version}",
        found=f"{last} (exit code {done.code})",
        expected="a calibrated model",
        hint="give a smaller --memory, or a shorter text"
        if done.code == KILLED
        else f"all that was said: {log}",
    )
