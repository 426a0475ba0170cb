"""LoRA adapters that were asked for: looked over before anything is fetched, and in the form that
the weights' engine takes.

Engines that load safetensors take PEFT's folder as it lies; those that load GGUF take a GGUF file,
which is made here and kept in the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from qwharf import __version__
from qwharf.artifacts import disk
from qwharf.artifacts.store import Store
from qwharf.errors import FormatUnavailable, UsageError
from qwharf.formats.adapter import CONFIG, WEIGHTS, Adapter, read_adapter
from qwharf.formats.gguf_adapter import check_gguf_adapter, write_gguf_adapter
from qwharf.naming import checked_name
from qwharf.pipeline.request import Observer
from qwharf.types import Architecture, Format, Plan

GGUF = Format("gguf", "f32")
"""Of the files that are made."""
FILE = "adapter.gguf"


def check(asked: Mapping[str, Path], plan: Plan, deployment: str) -> dict[str, Path]:
    """The adapters by name, with their paths in full; made for the plan's model, all of them.

    Raises:
        UsageError: one has a name that requests cannot use, or tell from ``deployment``.
        FormatUnavailable: one is a GGUF file, and the weights are not.
        InvalidFile, StorageError: one is no LoRA adapter of this model, or cannot be read.
    """
    found = {}
    for name, path in asked.items():
        checked_name(name, "LoRA adapter", "--adapter NAME=PATH")
        if name.casefold() == deployment.casefold():
            raise UsageError(
                name,
                found="the name of the deployment",
                expected="another one, by which requests can tell them apart",
                hint="choose another with --adapter NAME=PATH",
            )
        found[name] = path = path.absolute()
        if not _is_gguf(path):
            read_adapter(path, plan.model.architecture)
        elif plan.format.container == "gguf":
            check_gguf_adapter(path, plan.model.architecture)
        else:
            raise FormatUnavailable(
                str(path),
                found=f"a GGUF file for {plan.format} weights",
                expected="the folder that PEFT saved",
                hint="give that, or use --platform llama.cpp",
            )
    return found


def place(
    checked: Mapping[str, Path], plan: Plan, store: Store, observer: Observer
) -> dict[str, Path]:
    """What :func:`check` found, where and as the engine takes it.

    Raises:
        InvalidFile, StorageError: one cannot be made into a GGUF file.
    """
    if plan.format.container != "gguf":
        return dict(checked)
    arch = plan.model.architecture
    return {
        name: path if _is_gguf(path) else _converted(name, path, arch, store, observer)
        for name, path in checked.items()
    }


def placed_at(checked: Mapping[str, Path], plan: Plan, store: Store) -> dict[str, Path]:
    """Where :func:`place` would have them; touches nothing. What is still to be made has no id."""
    made = store.artifact_folder("ID") / FILE
    gguf = plan.format.container == "gguf"
    return {n: made if gguf and not _is_gguf(path) else path for n, path in checked.items()}


def _is_gguf(path: Path) -> bool:
    return path.suffix.lower() == ".gguf"


def _converted(
    name: str, folder: Path, arch: Architecture, store: Store, observer: Observer
) -> Path:
    """The adapter in ``folder`` as a GGUF file in the store, made once."""
    adapter = read_adapter(folder, arch)
    about = {"converted_from": _digest(adapter, arch)}
    model = f"adapter {name}"
    made = store.find(model, GGUF, origin=about)
    if made is None:
        observer.step("adapter", f"`{name}`: {folder} to GGUF")
        out = store.scratch.new_path()
        write_gguf_adapter(adapter, arch, out)
        about |= {"source": f"LoRA adapter {folder}", "tool": f"qwharf {__version__}"}
        made = store.add(model, GGUF, {FILE: store.put_file(out, "move")}, about, FILE)
    return made.path


def _digest(adapter: Adapter, arch: Architecture) -> str:
    """Changes with whatever the file is made of."""
    files = [adapter.folder / name for name in (CONFIG, WEIGHTS)]
    with disk.storage_errors(adapter.folder):
        facts = [arch.model_type, *map(disk.sha256_of, files)]
    return hashlib.sha256(" ".join(facts).encode()).hexdigest()
