"""Load ``family.toml`` and check every fact in it that can be checked."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from qwharf.types import (
    Architecture,
    Format,
    Hub,
    Mode,
    Model,
    RemoteFile,
    Repository,
    Sampling,
    Thinking,
)

SCHEMA = 1
NATIVE_CONTEXT_TOKENS = 32_768
"""Of the models of April 2025. Their ``max_position_embeddings`` is 40,960: 32,768 tokens of answer
after 8,192 of prompt."""

VOCABULARY_ROWS = 151_936
HEAD_DIM = 128
BOS, EOS = 151_643, 151_645

_SUFFIX = {
    "bf16": "",
    "fp8": "-FP8",
    "awq": "-AWQ",
    "gptq-int4": "-GPTQ-Int4",
    "gptq-int8": "-GPTQ-Int8",
}
_MODES: Mapping[Thinking, frozenset[Mode]] = {
    "hybrid": frozenset({"thinking", "non-thinking"}),
    "instruct": frozenset({"non-thinking"}),
    "thinking": frozenset({"thinking"}),
}
_SHA256 = re.compile(r"[0-9a-f]{8,64}")
_NAME = re.compile(r"[a-z0-9]+:[a-z0-9.]+(-[a-z0-9.]+)*")

_MODEL_KEYS = frozenset(
    [
        "name",
        "title",
        "aliases",
        "shape",
        "thinking",
        "released",
        "native_context_tokens",
        "max_context_tokens",
        "rope_theta",
        "base",
        "note",
        "safetensors",
        "mlx",
        "gguf",
        "gguf_confirmed",
    ]
)
_GGUF_KEYS = frozenset(["size", "seen", "sha256", "part_sizes", "split", "repository", "hubs"])


class CatalogueError(Exception):
    """The catalogue that is shipped contradicts itself: a bug, not the user's doing."""


@cache
def models() -> tuple[Model, ...]:
    """All catalogue entries, the pocket model last where its checkpoint is there."""
    from qwharf.catalog import pocket

    entries = parse(_read())
    own = pocket.model()
    return entries if own is None else (*entries, own)


@cache
def base_repositories() -> Mapping[str, str]:
    """Lower-case ids of the pretrained repositories and the name of the model made from each."""
    return {f"{m['title']}-base".lower(): m["name"] for m in _read()["model"] if m.get("base")}


def presets(thinking: Thinking) -> Mapping[Mode, Sampling]:
    """What Qwen recommends for a model of that kind."""
    return _sampling(thinking, _read()["sampling"][thinking])


@cache
def _read() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("family.toml").read_text("utf-8"))


def parse(data: Mapping[str, Any]) -> tuple[Model, ...]:
    """Build and check the entries of a catalogue file.

    Raises:
        CatalogueError: something is missing, unknown or contradicts something else.
    """
    if data.get("schema") != SCHEMA:
        raise CatalogueError(f"schema {data.get('schema')!r}, not {SCHEMA}")
    sampling = {kind: _sampling(kind, table) for kind, table in data["sampling"].items()}
    found = tuple(_model(entry, data["shape"], sampling) for entry in data["model"])
    names = [n for m in found for n in (m.name, *m.aliases)]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise CatalogueError(f"names used twice: {', '.join(twice)}")
    return found


def _sampling(kind: str, table: Mapping[str, Any]) -> Mapping[Mode, Sampling]:
    if kind not in _MODES or set(table) != _MODES[cast(Thinking, kind)]:
        raise CatalogueError(f"sampling.{kind}: modes {sorted(table)}")
    presets = {cast(Mode, mode): Sampling(**values) for mode, values in table.items()}
    for mode, s in presets.items():
        if not (0 < s.temperature <= 2 and 0 < s.top_p <= 1 and s.top_k > 0):
            raise CatalogueError(f"sampling.{kind}.{mode}: {s}")
    return presets


def _model(
    entry: Mapping[str, Any],
    shapes: Mapping[str, Any],
    sampling: Mapping[str, Mapping[Mode, Sampling]],
) -> Model:
    name = entry.get("name", "?")
    unknown = set(entry) - _MODEL_KEYS
    if unknown or not _NAME.fullmatch(name) or entry["thinking"] not in get_args(Thinking):
        raise CatalogueError(f"{name}: unknown keys {sorted(unknown)} or a bad name or kind")
    native = entry.get("native_context_tokens", NATIVE_CONTEXT_TOKENS)
    original = native == NATIVE_CONTEXT_TOKENS
    if entry["max_context_tokens"] < native:
        raise CatalogueError(f"{name}: max_context_tokens is below the native context")
    architecture = _architecture(
        name,
        shapes[entry["shape"]],
        positions=40_960 if original else native,
        rope_theta=float(entry.get("rope_theta", 1_000_000)),
    )
    return Model(
        name=name,
        title=entry["title"],
        architecture=architecture,
        thinking=entry["thinking"],
        sampling=sampling[entry["thinking"]],
        native_context_tokens=native,
        max_context_tokens=entry["max_context_tokens"],
        license="Apache-2.0",
        released=entry["released"],
        repositories=_repositories(entry),
        aliases=tuple(entry.get("aliases", ())),
        note=entry.get("note", ""),
    )


def _architecture(
    name: str, shape: Mapping[str, Any], *, positions: int, rope_theta: float
) -> Architecture:
    from qwharf.formats.tensors import parameter_count

    numbers = {k: v for k, v in shape.items() if k != "parameters"}
    architecture = Architecture(
        **numbers,
        head_dim=HEAD_DIM,
        vocab_size=VOCABULARY_ROWS,
        max_position_embeddings=positions,
        rope_theta=rope_theta,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    if parameter_count(architecture) != shape["parameters"]:
        raise CatalogueError(
            f"{name}: the shape has {parameter_count(architecture)} parameters, "
            f"the entry says {shape['parameters']}"
        )
    return architecture


def _repositories(entry: Mapping[str, Any]) -> tuple[Repository, ...]:
    title = entry["title"]
    found = [
        Repository(repo_id=f"Qwen/{title}{_SUFFIX[q]}", format=Format("safetensors", q))
        for q in entry["safetensors"]
    ]
    found += [
        _gguf(title, q, table, entry.get("gguf_confirmed", True))
        for q, table in entry.get("gguf", {}).items()
    ]
    found += [
        Repository(repo_id=f"Qwen/{title}-MLX-{q}", format=Format("mlx", q), confirmed=False)
        for q in entry.get("mlx", ())
    ]
    return tuple(found)


def _gguf(title: str, quantization: str, table: Mapping[str, Any], confirmed: bool) -> Repository:
    unknown = set(table) - _GGUF_KEYS
    if unknown:
        raise CatalogueError(f"{title}: gguf.{quantization} has unknown keys {sorted(unknown)}")
    label = quantization.upper()
    repo = table.get("repository", f"Qwen/{title}-GGUF")
    official = repo.startswith("Qwen/")
    files: tuple[RemoteFile, ...] = ()
    if "part_sizes" in table:
        sizes = table["part_sizes"]
        files = tuple(
            RemoteFile(
                path=f"{label}/{title}-{label}-{i:05}-of-{len(sizes):05}.gguf", size_bytes=size
            )
            for i, size in enumerate(sizes, 1)
        )
    elif official and not table.get("split"):
        files = (_file(f"{title}-{label}.gguf", table),)
    return Repository(
        repo_id=repo,
        format=Format("gguf", quantization),
        hubs=cast(tuple[Hub, ...], tuple(table.get("hubs", ("hf", "modelscope")))),
        files=files,
        official=official,
        confirmed=confirmed and official,
    )


def _file(path: str, table: Mapping[str, Any]) -> RemoteFile:
    digest: str | None = table.get("sha256")
    if digest is not None and not _SHA256.fullmatch(digest):
        raise CatalogueError(f"{path}: sha256 {digest!r}")
    seen: Literal["observed", "predicted"] = table["seen"]
    if seen not in ("observed", "predicted") or table["size"] <= 0:
        raise CatalogueError(f"{path}: size {table['size']} seen {seen!r}")
    whole = digest is not None and len(digest) == 64
    return RemoteFile(
        path=path,
        size_bytes=table["size"] if seen == "observed" else None,
        predicted_size_bytes=table["size"] if seen == "predicted" else None,
        sha256=digest if whole else None,
        sha256_prefix=None if whole else digest,
    )
