"""The reasons of a plan, in words."""

from __future__ import annotations

from qwharf import compatibility, memory
from qwharf.fit.choosing import Choice, largest
from qwharf.fit.means import Means
from qwharf.fit.placing import TENSOR_PARALLEL, Placed, Site
from qwharf.fit.ranking import (
    USEFUL_CONTEXT_TOKENS,
    is_slow,
    read_bytes_on_host,
    tokens_per_second,
)
from qwharf.fit.rules import is_split, origin
from qwharf.fit.search import Search
from qwharf.fit.wishes import Wishes

MEMORY_BOUND_TOKENS_PER_SECOND = 1_000
"""Above this, starting the kernels takes longer than reading the weights."""


def where(site: Site, placed: Placed) -> str:
    """Where it runs, in words."""
    layers = site.model.architecture.num_hidden_layers
    over = f"{placed.gpus} GPUs" if placed.gpus > 1 else "the GPU"
    if site.platform in TENSOR_PARALLEL and placed.gpus > 1:
        apart = ", whole experts on each" if site.experts_apart(placed.gpus) else ""
        return f"on {over}, tensor parallel{apart}"
    if placed.mode == "gpu":
        return f"on {over}"
    if placed.mode == "experts on the host":
        return f"on {over}, the experts of {placed.cpu_moe_layers} of {layers} layers on the host"
    if placed.mode == "layers on both":
        return f"{placed.gpu_layers} of {layers} layers on {over}, the rest on the host"
    return "on the CPU"


def short(site: Site, placed: Placed, means: Means) -> tuple[str, ...]:
    """One line on a row of ``qwharf fit``, and the origin of the weights."""
    text = where(site, placed)
    speed = _speed(site, placed)
    if speed is not None:
        text += f", at most {_rounded(speed)} tokens/s"
    elif is_slow(site, placed):
        text += f", slow: reads {read_bytes_on_host(site, placed) / 1e9:.0f} GB for each token"
    if placed.context_tokens < min(USEFUL_CONTEXT_TOKENS, site.model.native_context_tokens):
        text += ", short context"
    return (text, *_remarks(site, placed, means), origin(site.model, site.format) or "")


def reasons(site: Site, choice: Choice, search: Search) -> tuple[str, ...]:
    """Why this plan: place, format, origin of the weights, context, speed, what to mind."""
    placed, wishes = choice.placed, search.wishes
    out = [where(site, placed)]
    if wishes.format is None:
        out.append(f"{site.format}: {choice.why_format}")
    out.append(origin(site.model, site.format) or "")
    out.append(_context(site, placed, wishes))
    speed = _speed(site, placed)
    if speed is not None:
        read = memory.read_bytes_per_token(site.model.architecture, site.format)
        out.append(
            f"at most {_rounded(speed)} tokens/s for one request: {read / 1e9:.2f} GB are read for "
            "each token"
        )
    elif is_slow(site, placed):
        out.append(
            f"slow: the processor reads {read_bytes_on_host(site, placed) / 1e9:.1f} GB of weights "
            "for each token"
        )
    out += _remarks(site, placed, search.means)
    return tuple(x for x in out if x)


def _context(site: Site, placed: Placed, wishes: Wishes) -> str:
    native = site.model.native_context_tokens
    own = site.model.architecture.max_position_embeddings
    tokens = placed.context_tokens
    if tokens > own:
        return (
            f"{tokens:,} tokens are beyond the native {native:,}: YaRN stretches the context, "
            "which costs a little quality in short texts too"
        )
    if tokens > native:
        return (
            f"{tokens:,} tokens: the native {native:,}, and the {own - native:,} more that its "
            "configuration allows for the answer"
        )
    if tokens == native:
        return f"all {native:,} tokens of the native context"
    text = f"{tokens:,} of {native:,} native tokens of context"
    if wishes.context_tokens is not None:
        return text + ", as asked for"
    room = largest(site, None)
    if room is not None and room.context_tokens > tokens:
        text += f" (up to {room.context_tokens:,} fit: `--context {room.context_tokens}`)"
    return text


def _remarks(site: Site, placed: Placed, means: Means) -> tuple[str, ...]:
    out = []
    verdict = site.verdict
    if verdict.why:
        out.append(verdict.why)
    if verdict.sure == "inferred" and verdict.cell is not None:
        out.append(f"should run, but was not tried: {verdict.cell.source}")
    facts = compatibility.facts(site.platform)
    if facts.single_file and is_split(site.model, site.format):
        size = memory.weight_bytes(site.model.architecture, site.format)
        out.append(
            f"it comes in parts, and {facts.title} takes one file: they are put together here, "
            f"which takes another {size / 1e9:.0f} GB of the disk"
        )
    if not means.has(site.platform):
        out.append(f"{facts.title} is not installed: `qwharf platforms {site.platform}`")
    build = means.engine(site.platform).build
    if build is not None:
        out.append(f"with the {build} build that is installed")
    if site.platform == "llama.cpp" and not site.hardware.unified_memory and site.hardware.gpus:
        option = "--cuda" if site.hardware.gpus[0].vendor == "nvidia" else "--rocm"
        if placed.gpu_layers and means.installed is None:
            out.append(f"needs a build for the GPU: `qwharf engine install llama.cpp {option}`")
        elif not means.engine(site.platform).gpu:
            out.append(
                "the GPU is not used: PyPI's wheel of xllamacpp computes on the CPU; "
                f"`qwharf engine install llama.cpp {option}` has another"
            )
    return tuple(out)


def _speed(site: Site, placed: Placed) -> float | None:
    """The bound by memory, where memory is what bounds."""
    speed = tokens_per_second(site, placed)
    return None if speed is None or speed > MEMORY_BOUND_TOKENS_PER_SECOND else speed


def _rounded(speed: float) -> str:
    return f"{float(f'{speed:.2g}'):,.0f}"
