"""What ``qwharf fit`` predicts for the embedded engine, against what the engine says it took.

    python -m benchmarks.memory [--models qwen3:0.6b qwen3:1.7b] [--formats …] [--contexts …]

The weights are files of the models' exact shapes, types and vocabulary, but full of zeros: they
take the same memory as the real ones and no disk. Each row starts the engine's child as ``up`` does
and reads its log. The error is that of weights + KV cache + compute and output buffers; a row
beyond 3 % makes the benchmark fail. The last columns hold the whole sum, process included, against
the resident memory of the child when it is ready; buffers that are touched only by a long prompt
make that a little smaller.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.machine import header, table
from qwharf import catalog, memory
from qwharf.artifacts import gguf_metadata
from qwharf.daemon.starting import free_port
from qwharf.formats.gguf_writer import gguf_header
from qwharf.formats.names import parse_format
from qwharf.platforms import Applied
from qwharf.platforms.llama_cpp import LlamaCpp
from qwharf.quantize.mixing import mix_of, tensor_types
from qwharf.testing.vocabulary import to_json, tokenizer_config, tokenizer_json, vocabulary
from qwharf.types import Architecture, DeploymentSpec, Format, KvCacheType, MemoryLine, Model

LIMIT = 0.03
START_SECONDS = 300
MIB = 2**20
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
NOT_BUFFERS = frozenset({"process"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One start of the engine."""

    model: str
    format: Format
    context_tokens: int
    kv_cache_type: KvCacheType
    predicted: tuple[MemoryLine, ...]
    reported: Applied
    rss_bytes: int

    def predicted_bytes(self, *labels: str) -> int:
        """Of the lines named, or of all that the engine reports."""
        return sum(
            x.size_bytes
            for x in self.predicted
            if (x.label in labels if labels else x.label not in NOT_BUFFERS)
        )

    @property
    def error(self) -> float:
        """Relative, of everything that the engine reports."""
        return self.predicted_bytes() / (self.reported.total_bytes or 1) - 1


def write_zeros(arch: Architecture, format: Format, path: Path, *, vocab: Any = "full") -> None:
    """A GGUF file of that shape whose weights are zeros; sparse, where the disk allows it."""
    tokens = vocabulary(vocab)
    with tempfile.TemporaryDirectory() as folder:
        texts = {
            "tokenizer.json": to_json(tokenizer_json(tokens)),
            "tokenizer_config.json": to_json(tokenizer_config(tokens, TEMPLATE)),
        }
        for name, text in texts.items():
            (Path(folder) / name).write_text(text, "utf-8")
        metadata = (
            gguf_metadata.model_metadata(
                arch, name=path.stem, license_id="apache-2.0", generation_config={}
            )
            | gguf_metadata.tokenizer_metadata(Path(folder), arch, TEMPLATE, {})
            | gguf_metadata.file_metadata(mix_of(format.quantization).file_type)
        )
    types = tensor_types(arch, format.quantization)
    head = gguf_header(metadata, [(spec.name, spec.shape, type_) for spec, type_ in types])
    with path.open("wb") as file:
        file.write(head.data)
        file.truncate(head.size_bytes)


def specification(
    model: Model, path: Path, format: Format, context: int, kv: KvCacheType, threads: int | None
) -> DeploymentSpec:
    """What ``up`` would ask the daemon for."""
    return DeploymentSpec(
        name="memory",
        platform="llama.cpp",
        model=model.name,
        thinking=model.thinking,
        format=format,
        artifact_id="",
        artifact_path=path,
        architecture=model.architecture,
        context_tokens=context,
        kv_cache_type=kv,
        threads=threads,
    )


def measure(spec: DeploymentSpec) -> tuple[Applied, int]:
    """Start the engine, wait until it is ready; what it reported, and its resident bytes."""
    import psutil

    platform = LlamaCpp()
    platform.check(spec)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        with engine(spec, log.fileno()) as child:
            rss = int(psutil.Process(child.pid).memory_info().rss)
        log.seek(0)
        return platform.applied(log.read().splitlines()), rss


@contextlib.contextmanager
def engine(spec: DeploymentSpec, log: int) -> Iterator[subprocess.Popen[bytes]]:
    """A ready child of the embedded engine.

    Raises:
        RuntimeError: it ended, or was not ready in time.
    """
    launch = LlamaCpp().launch(spec, free_port())
    with subprocess.Popen(
        launch.argv,
        env={**os.environ, **launch.env},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    ) as child:
        try:
            for _ in range(START_SECONDS * 10):
                with contextlib.suppress(urllib.error.URLError, OSError):
                    urllib.request.urlopen(launch.base_url + launch.ready_path, timeout=5).close()
                    break
                if child.poll() is not None:
                    raise RuntimeError(f"the engine ended with {child.returncode}")
                time.sleep(0.1)
            else:
                raise RuntimeError(f"the engine was not ready in {START_SECONDS} s")
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()


def run(
    model: Model, path: Path, format: Format, context: int, kv: KvCacheType, threads: int | None
) -> Row:
    """One row."""
    predicted = memory.llama_cpp_lines(
        model.architecture, format, context_tokens=context, kv_cache_type=kv
    )
    reported, rss = measure(specification(model, path, format, context, kv, threads))
    return Row(
        model=model.name,
        format=format,
        context_tokens=context,
        kv_cache_type=kv,
        predicted=predicted,
        reported=reported,
        rss_bytes=rss,
    )


def mib(size: int | None) -> str:
    """``1,234.5``."""
    return "?" if size is None else f"{size / MIB:,.1f}"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--models", nargs="+", default=["qwen3:0.6b", "qwen3:1.7b"])
    options.add_argument("--formats", nargs="+", default=["gguf:q4_k_m", "gguf:q8_0"])
    options.add_argument("--contexts", nargs="+", type=int, default=[4_096, 32_768])
    options.add_argument("--kv", nargs="+", default=["f16", "q8_0"])
    options.add_argument("--threads", type=int)
    args = options.parse_args()
    header("Memory: predicted against reported (MiB)")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="qwharf-memory-") as folder:
        for name in args.models:
            model = catalog.find(name)
            for text in args.formats:
                format = parse_format(text)
                path = Path(folder) / f"{name.replace(':', '-')}-{format.quantization}.gguf"
                write_zeros(model.architecture, format, path)
                for context in args.contexts:
                    for kv in args.kv:
                        kind = cast(KvCacheType, kv)
                        rows.append(run(model, path, format, context, kind, args.threads))
                path.unlink()
    show(rows)
    worst = max((abs(r.error) for r in rows), default=0.0)
    print(f"\nlargest error {worst:.2%}; the limit is {LIMIT:.0%}")
    return 0 if worst <= LIMIT else 1


def show(rows: list[Row]) -> None:
    """The table: predicted / reported of each part."""
    columns = ["model", "format", "context", "KV type", "weights", "KV", "compute", "output"]
    columns += ["sum", "error", "with process", "RSS when ready"]
    parts = (
        ("weights", "weights_bytes"),
        ("KV cache", "kv_bytes"),
        ("compute buffer", "compute_bytes"),
        ("output buffer", "output_bytes"),
    )
    table(
        columns,
        [
            [
                r.model,
                r.format,
                f"{r.context_tokens:,}",
                r.kv_cache_type,
                *(
                    f"{mib(r.predicted_bytes(label))} / {mib(getattr(r.reported, field))}"
                    for label, field in parts
                ),
                f"{mib(r.predicted_bytes())} / {mib(r.reported.total_bytes)}",
                f"{r.error:+.2%}",
                mib(sum(x.size_bytes for x in r.predicted)),
                mib(r.rss_bytes),
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
