"""Calibration: to which numbers a matrix is rounded, chosen by what a text makes of it.

Rounding each weight to the nearest number needs nothing but the weights. With a text, errors can be
kept where they hardly show: AWQ scales inputs that matter up before it rounds, GPTQ corrects each
column for the errors of those before it. Both are done by llm-compressor, in an environment of its
own (``qwharf engine install llm-compressor``) and one layer at a time; what it finds is packed by
the same code as every other conversion (:mod:`qwharf.artifacts.repacking`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwharf import engines
from qwharf.artifacts.disk import require_space
from qwharf.artifacts.matrices import Plain
from qwharf.artifacts.stored import Stored, read_stored
from qwharf.calibration import memory
from qwharf.calibration.methods import METHODS, Method, method_of
from qwharf.calibration.running import calibrate
from qwharf.calibration.text import (
    LEAST_SEQUENCES,
    MOST_SEQUENCES,
    SEQUENCE_TOKENS,
    Text,
    read_text,
    sequences,
)
from qwharf.engines import Installed
from qwharf.errors import DoesNotFit, EngineError, FormatUnavailable
from qwharf.hardware import host
from qwharf.settings import Settings
from qwharf.types import Format

__all__ = [
    "ENGINE",
    "METHODS",
    "Calibration",
    "Text",
    "environment",
    "method_of",
    "plan",
    "read_text",
]

ENGINE = "llm-compressor"
REVISION = 1
"""Changes whenever the same text would lead to other numbers."""
SHARE = 0.75
"""Of the memory that is free, taken where no budget is given."""

Step = Callable[[int, int], None]
"""Progress in bytes of weights: done, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One model, one text, one method: ready to run."""

    installed: Installed
    method: Method
    stored: Stored
    sequences: Sequence[Sequence[int]]
    text: str
    memory_bytes: int
    """What it will hold, about."""
    log_path: Path

    @property
    def tokens(self) -> int:
        """How many are read."""
        return len(self.sequences) * SEQUENCE_TOKENS

    def digest(self) -> str:
        """Identifies what the numbers depend on, beside the weights."""
        facts = [REVISION, self.installed.version, repr(self.method), self.sequences]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def facts(self) -> dict[str, str]:
        """What to remember of it."""
        return {
            "calibrated_with": f"{self.installed.engine} {self.installed.version}, "
            f"{self.method.name}",
            "calibrated_on": f"{self.text}, {self.tokens} tokens",
        }

    def run(self, folder: Path, step: Step) -> None:
        """Make ``folder``: the model's layers, rounded; see :func:`running.calibrate`.

        Raises:
            EngineError: llm-compressor failed.
            StorageError: no space, no permission.
        """
        arch = self.stored.arch
        weights = arch.num_hidden_layers * sum(s.elements for s in memory.layer(arch))
        made = weights * (self.method.bits + 0.5) / 8
        require_space(folder.parent, int(made), subject=str(folder))
        size = weights * 2
        calibrate(
            self.installed,
            self.method,
            arch,
            self.stored.files,
            self.sequences,
            folder,
            log_path=self.log_path,
            step=lambda done, total: step(size * done // total, size),
        )


def environment(settings: Settings) -> Installed:
    """Where llm-compressor is installed.

    Raises:
        EngineError: it is not, or cannot be used; says what to do.
    """
    found = engines.find(ENGINE, settings=settings)
    if found is None:
        raise EngineError(
            ENGINE,
            found="it is not installed",
            expected="an environment of its own, for --calibrate",
            hint=f"`qwharf engine install {ENGINE}`",
        )
    if found.problems:
        raise EngineError(
            f"{ENGINE} {found.version}",
            found="; ".join(found.problems),
            expected="an environment that can be used",
            hint=f"`qwharf engine install {ENGINE} --again`",
        )
    return found


def plan(
    source: Path,
    target: Format,
    text: Text,
    settings: Settings,
    memory_bytes: int | None = None,
    name: str | None = None,
) -> Calibration:
    """Read what is there to be read, and refuse what cannot end well; computes nothing yet.

    Args:
        source: a checkpoint folder in plain floats.
        target: one of :data:`METHODS`.
        text: what the model is to read; as much of it as memory allows for.
        settings: where llm-compressor is.
        memory_bytes: what may be held; default: three quarters of what is free.
        name: what the source is called; default: its path.

    Raises:
        FormatUnavailable: the target is not calibrated, or the source is quantised.
        EngineError: llm-compressor is not installed.
        InvalidFile: the source is damaged, or lacks its tokenizer.
        UsageError: the text is too short.
        DoesNotFit: the memory does not do for the shortest text.
    """
    method = method_of(target)
    installed = environment(settings)
    stored = read_stored(source)
    called = name or str(source)
    _require_floats(called, stored)
    most = _affordable(called, stored, method, memory_bytes)
    tokens = sequences(text, source, most)
    needed = memory.needed_bytes(stored.arch, method, len(tokens) * SEQUENCE_TOKENS)
    return Calibration(
        installed=installed,
        method=method,
        stored=stored,
        sequences=tokens,
        text=text.name,
        memory_bytes=needed,
        log_path=settings.log_dir / "calibrate.log",
    )


def _require_floats(name: str, stored: Stored) -> None:
    """Tensor by tensor, as Qwen releases them: what the script loads by name."""
    if all(isinstance(m, Plain) and m.region.name == n for n, m in stored.matrices.items()):
        return
    raise FormatUnavailable(
        name,
        found=str(stored.format)
        + (", experts stacked" if stored.format.quantization in ("bf16", "f16", "f32") else ""),
        expected="safetensors in plain floats, each matrix by itself",
        hint=f"`qwharf convert {name} --to bf16 -o FOLDER`, then calibrate FOLDER",
    )


def _affordable(name: str, stored: Stored, method: Method, memory_bytes: int | None) -> int:
    """How many sequences the memory does for."""
    budget = memory_bytes
    if budget is None:
        free = host.memory(host.limits())[1]
        if free is None:
            return MOST_SEQUENCES
        budget = int(free * SHARE)
    each = memory.token_bytes(stored.arch, method) * SEQUENCE_TOKENS
    most = (budget - memory.fixed_bytes(stored.arch, method)) // each
    if most < LEAST_SEQUENCES:
        least = memory.needed_bytes(stored.arch, method, LEAST_SEQUENCES * SEQUENCE_TOKENS)
        raise DoesNotFit(
            f"calibrating {name}",
            found=f"{budget / 1e9:.2f} GB"
            + (" of memory, three quarters of what is free" if memory_bytes is None else ""),
            expected=f"about {least / 1e9:.2f} GB, for one layer and the shortest text",
            hint="give more with --memory, or leave --calibrate out: rounding to nearest needs "
            "far less",
            needed_bytes=least,
        )
    return min(MOST_SEQUENCES, int(most))
