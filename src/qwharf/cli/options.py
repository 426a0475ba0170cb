"""Options and arguments that several commands share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from qwharf.cli.output import Output
from qwharf.types import KvCacheType

F = TypeVar("F", bound=Callable[..., Any])


def with_output(command: F) -> F:
    """Add ``--json`` and ``--quiet``; the command receives an :class:`Output` as ``out``."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON (shapes: docs/cli.md).")
    @click.option("-q", "--quiet", is_flag=True, help="Print results only, no steps.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> Any:
        return command(*args, out=Output(as_json=as_json, quiet=quiet), **kwargs)

    return wrapped  # type: ignore[return-value]


def complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the catalogue that begin with what was typed."""
    from qwharf import catalog

    return [m.name for m in catalog.models() if m.name.startswith(incomplete.lower())]


def complete_deployments(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of running deployments; none when the daemon does not answer."""
    from qwharf import settings
    from qwharf.daemon.client import DaemonClient
    from qwharf.errors import QwharfError

    try:
        names = [d.spec.name for d in DaemonClient(settings.load()).list()]
    except QwharfError:
        return []
    return [n for n in names if n.startswith(incomplete)]


def complete_formats(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Known weight formats."""
    from qwharf.formats.names import FORMATS

    return [str(f) for f in FORMATS if str(f).startswith(incomplete.lower())]


_UNITS = ("", "k", "m", "g", "t")


def size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A callback: bytes from what people write: ``1GB``, ``512 MiB``, ``2G``, ``800000000``."""
    if value is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", value.lower(), re.ASCII)
    if found is None or (found[3] and not found[2]):
        raise click.BadParameter(f"{value!r} is no size; write it like 1GB, 500MB or 1.5GiB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _UNITS.index(found[2]))


def named_paths(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> dict[str, Path]:
    """A callback: ``NAME=PATH``, each name once."""
    found: dict[str, Path] = {}
    for text in value:
        name, sign, path = text.partition("=")
        if not (name and sign and path):
            raise click.BadParameter(f"{text!r} is not NAME=PATH")
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice")
        found[name] = Path(path).expanduser()
    return found


def complete_platforms(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Platforms, and ``auto``."""
    from qwharf import compatibility

    names = ("auto", *compatibility.names())
    return [n for n in names if n.startswith(incomplete.lower())]


model_argument = click.argument("model", shell_complete=complete_models)
name_argument = click.argument("name", shell_complete=complete_deployments)
format_option = click.option(
    "--format",
    "format_text",
    metavar="F",
    shell_complete=complete_formats,
    help="Weight format, e.g. gguf:q4_k_m, gguf:q8_0, safetensors:bf16.",
)
platform_option = click.option(
    "--platform",
    metavar="P",
    shell_complete=complete_platforms,
    help="Where to run it: auto (the default), or one that `qwharf platforms` lists.",
)
hardware_option = click.option(
    "--hardware",
    "spec",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Plan for the machine in this TOML file (docs/hardware.md).",
)
context_option = click.option(
    "--context",
    type=click.IntRange(min=256),
    metavar="N",
    help="Tokens of context that each request can use.",
)
parallel_option = click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Requests served at once, each with the full context.",
)
kv_cache_option = click.option(
    "--kv-cache",
    "kv_cache",
    type=click.Choice(get_args(KvCacheType)),
    help="Type of the KV cache; which there are depends on the platform.",
)
no_gpu_option = click.option(
    "--no-gpu", is_flag=True, help="Leave GPUs alone, and compute on the processor."
)
adapter_option = click.option(
    "--adapter",
    "adapters",
    metavar="NAME=PATH",
    multiple=True,
    callback=named_paths,
    help="A LoRA adapter (PEFT's folder, or a .gguf file) that requests can ask for as the model "
    "NAME; may be given again.",
)
hub_option = click.option(
    "--from",
    "hub",
    type=click.Choice(["hf", "modelscope"]),
    default="hf",
    show_default=True,
    help="Hub to fetch missing weights from.",
)
