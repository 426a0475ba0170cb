"""Which plan is better: the order of ``qwharf fit``, and why.

Between models: first those that are good to use here (at least four bits, at least 8,192 tokens or
all that the model has, and not painfully slow), and among them the better model; then the rest.
Between platforms for one model: what is installed, good to use, on the GPU, and preferred on that
kind of hardware, as the platforms' own files say. Between plans of one model: good to use, then the
format's fidelity, then context, then speed, then the platform.
"""

from __future__ import annotations

import math

from qwharf import compatibility, memory
from qwharf.fit.means import Means
from qwharf.fit.placing import TENSOR_PARALLEL, Placed, Site
from qwharf.fit.rules import USUAL_FIDELITY, fidelity
from qwharf.types import Architecture, Model

QUALITY = {
    596_049_920: 30.3,
    1_720_574_976: 51.1,
    4_022_468_096: 63.6,
    8_190_735_360: 67.1,
    14_768_307_200: 71.3,
    30_532_122_624: 74.3,
    32_762_123_264: 74.9,
    235_093_634_560: 77.1,
}
"""Parameters of a shape to its LiveBench score (2024-11-25, thinking), from the Qwen3 technical
report, tables 11 to 20. It says that the 30B-A3B mixture belongs above the 14B."""

USEFUL_CONTEXT_TOKENS = 8_192
SLOW_BYTES_PER_TOKEN = 5_000_000_000
"""Weights read for each token. Memory of 30 to 50 GB/s, as in a common PC, reads this six to ten
times a second, which is about as fast as people read."""


def quality(arch: Architecture) -> float:
    """The score of a shape; other shapes by their size, between their neighbours."""
    count = memory.parameter_count(arch)
    known = QUALITY.get(count)
    if known is not None:
        return known
    below = max((n for n in QUALITY if n < count), default=None)
    above = min((n for n in QUALITY if n > count), default=None)
    if below is None:
        least = min(QUALITY)
        return QUALITY[least] * count / least
    if above is None:
        return QUALITY[below]
    part = math.log(count / below) / math.log(above / below)
    return QUALITY[below] + part * (QUALITY[above] - QUALITY[below])


def read_bytes_on_host(site: Site, placed: Placed) -> int:
    """Weights that the host's processor reads for each token."""
    if placed.mode == "gpu":
        return 0
    arch = site.model.architecture
    every = memory.read_bytes_per_token(arch, site.format)
    layers = arch.num_hidden_layers
    if placed.mode == "cpu":
        return every
    if placed.mode == "layers on both" and not arch.is_moe:
        return every * (layers - placed.gpu_layers) // layers
    experts = sum(memory.expert_bytes_by_layer(arch, site.format)[: placed.cpu_moe_layers])
    return experts * arch.num_experts_per_tok // max(arch.num_experts, 1)


def is_slow(site: Site, placed: Placed) -> bool:
    """Whether answers would come slower than people read, on a common host."""
    return read_bytes_on_host(site, placed) > SLOW_BYTES_PER_TOKEN


def is_good(site: Site, placed: Placed) -> bool:
    """Whether a stranger would be content with it."""
    enough = min(USEFUL_CONTEXT_TOKENS, site.model.native_context_tokens)
    return (
        fidelity(site.format) >= USUAL_FIDELITY
        and placed.context_tokens >= enough
        and not is_slow(site, placed)
    )


def tokens_per_second(site: Site, placed: Placed) -> float | None:
    """The most that memory allows: each token reads the active weights once, at short context.

    ``None`` where the bandwidth is not known, or part of the work is the host's.
    """
    if placed.mode != "gpu" or not site.gpus:
        return None
    speed = site.gpus[0].bandwidth_bytes_per_second
    if speed is None:
        return None
    together = placed.gpus if site.platform in TENSOR_PARALLEL else 1
    return together * speed / memory.read_bytes_per_token(site.model.architecture, site.format)


def order_of_models(model: Model, good: bool) -> tuple[object, ...]:
    """Sort key of a model by its best plan; smaller is better. Newer ones first among equals."""
    return (not good, -quality(model.architecture), _descending(model.released or ""), model.name)


def order_of_choices(site: Site, placed: Placed, means: Means) -> tuple[object, ...]:
    """Sort key of a platform's default plan among those of other platforms; smaller is better."""
    return (
        not is_good(site, placed),
        placed.mode == "cpu",
        *_preference(site, means),
        -fidelity(site.format),
        -placed.context_tokens,
        memory.read_bytes_per_token(site.model.architecture, site.format),
    )


def order_of_plans(
    site: Site, placed: Placed, means: Means, *, preferred: bool
) -> tuple[object, ...]:
    """Sort key of a plan within its model; smaller is better."""
    return (
        not preferred,
        not is_good(site, placed),
        -fidelity(site.format),
        -placed.context_tokens,
        -_about(tokens_per_second(site, placed) or 0.0),
        _about(memory.read_bytes_per_token(site.model.architecture, site.format)),
        *_preference(site, means),
    )


def _preference(site: Site, means: Means) -> tuple[int, int]:
    rank = compatibility.facts(site.platform).preference[site.device.kind]
    return rank, means.platforms.index(site.platform)


def _about(value: float) -> float:
    """To two digits: less of a difference decides nothing."""
    return float(f"{value:.2g}")


def _descending(text: str) -> tuple[int, ...]:
    return tuple(-ord(c) for c in text)
