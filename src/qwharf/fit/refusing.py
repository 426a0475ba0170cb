"""Why there is no plan: typed errors with the sum, and with what would work instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from qwharf import memory
from qwharf.errors import DoesNotFit, FormatUnavailable, UsageError
from qwharf.fit.budget import free_bytes
from qwharf.fit.choosing import LEAST_CONTEXT
from qwharf.fit.engines import Site
from qwharf.fit.rules import (
    PLATFORMS,
    USUAL_FIDELITY,
    fidelity,
    formats_of,
    origin,
    refusal,
)
from qwharf.fit.search import Search
from qwharf.types import Gpu, Model, Plan


def most_context(model: Model) -> int:
    """The most tokens that the model can be given, YaRN included."""
    return max(model.max_context_tokens, model.architecture.max_position_embeddings)


def check_wishes(search: Search, model: Model) -> None:
    """Refuse what no amount of memory could grant.

    Raises:
        UsageError, FormatUnavailable: with what could be asked for instead.
    """
    wishes = search.wishes
    wish, kv = wishes.context_tokens, wishes.kv_cache_type
    if wish is not None and not 0 < wish <= most_context(model):
        raise UsageError(
            "--context",
            found=f"{wish:,} tokens",
            expected=f"at most {most_context(model):,}, which is all that {model.title} can have",
            hint=f"choose --context {most_context(model)} or less",
            max_context_tokens=most_context(model),
        )
    if wishes.parallel < 1:
        raise UsageError(
            "--parallel",
            found=str(wishes.parallel),
            expected="at least 1 request at once",
            hint="leave it out for one",
        )
    if not search.usable(model):
        first = search.platforms[0]
        if kv is not None and kv not in first.kv_cache_types:
            raise UsageError(
                "--kv-cache",
                found=kv,
                expected=f"one of {', '.join(first.kv_cache_types)} on {first.name}",
                hint="choose another, or leave it out",
            )
        raise UsageError(
            "--context",
            found=f"{wish:,} tokens on {first.name}, which cannot switch YaRN on",
            expected=f"at most {model.architecture.max_position_embeddings:,} there",
            hint="choose less, or another platform",
        )
    _check_format(search, model)


def _check_format(search: Search, model: Model) -> None:
    platforms = search.usable(model)
    sites = [search.site(model, p) for p in platforms]
    if any(search.formats(site) for site in sites):
        return
    wanted = search.wishes.format
    if wanted is None:
        container = next(iter(sorted(platforms[0].containers)))
        offered = [f for f in formats_of(model) if f.container == container]
        tried = [replace(sites[0], format=f) for f in offered] or sites
        raise FormatUnavailable(
            model.name,
            found=f"nothing of it that {platforms[0].name} can run on {search.hardware.source}: "
            + (tried[0].refusal or f"no {container} weights"),
            expected=f"{container} weights and hardware for them",
            hint=f"leave --platform out, or see `qwharf show {model.name}` for what can be had",
        )
    if origin(model, wanted) is None:
        every = formats_of(model)
        had = [str(f) for f in every if f.container == wanted.container] or [str(f) for f in every]
        raise FormatUnavailable(
            model.name,
            found=f"no {wanted} weights, nor any to make them from",
            expected=", ".join(had),
            hint=f"`qwharf show {model.name}` lists what can be had",
        )
    refused = [replace(site, format=wanted).refusal or "" for site in sites]
    elsewhere = [
        p.name
        for p in PLATFORMS.values()
        if any(refusal(p.name, wanted, model, g) is None for g in (None, _APPLE, _IDEAL))
        and p not in platforms
    ]
    anything = replace(search, wishes=replace(search.wishes, format=None))
    usable = [str(f) for f in anything.formats(sites[0])][:4]
    raise FormatUnavailable(
        model.name,
        found=f"{wanted} asked for: {refused[0]}",
        expected=(", ".join(usable) or "another format") + f" on {platforms[0].name}",
        hint=(f"try `--format {usable[0]}`" if usable else "choose another platform")
        + (f"; {wanted} runs on {' and '.join(elsewhere)}" if elsewhere else "")
        + (", which qwharf cannot start yet" if elsewhere and search.only_driven else ""),
    )


def _gpu(vendor: Literal["nvidia", "apple"]) -> Gpu:
    return Gpu(
        index=0,
        vendor=vendor,
        name="a recent GPU",
        memory_total_bytes=None,
        memory_free_bytes=None,
        compute_capability=(9, 0) if vendor == "nvidia" else None,
    )


_IDEAL, _APPLE = _gpu("nvidia"), _gpu("apple")


def does_not_fit(search: Search, model: Model, other: Callable[[], Plan | None]) -> DoesNotFit:
    """The error with the sum, what there is, and the largest that would fit.

    Args:
        search: that found nothing.
        model: that does not fit.
        other: finds the best other model that fits; asked only where no context helps.
    """
    wishes, hardware = search.wishes, search.hardware
    sites = search.sites(model)
    context = wishes.context_tokens or min(LEAST_CONTEXT, model.native_context_tokens)
    smallest = min(sites, key=lambda s: memory.weight_bytes(model.architecture, s.format))
    named = smallest if wishes.format is None else sites[0]
    need = _need(named, context)
    facts: dict[str, object] = {
        "needed_bytes": need,
        "free_bytes": hardware.memory_available_bytes,
        "context_tokens": context,
    }
    hints = []
    if wishes.context_tokens is not None:
        most, at = _most(sites, wishes.context_tokens)
        if most and at:
            facts["largest_context_tokens"] = most
            facts["largest_format"] = str(at.format)
            with_format = f" --format {at.format}" if wishes.format is None else ""
            hints.append(f"the largest that fits is `--context {most}{with_format}`")
        if wishes.kv_cache_type in (None, "f16", "bf16"):
            small = [replace(s, kv_cache_type="q8_0") for s in sites]
            small = [s for s in small if "q8_0" in PLATFORMS[s.platform].kv_cache_types]
            more, _ = _most(small, wishes.context_tokens)
            if more > most:
                hints.append(f"`--kv-cache q8_0` allows {more:,}")
    if not hints:
        found = other()
        if found is not None:
            facts["largest_model"] = found.model.name
            facts["largest_format"] = str(found.format)
            hints.append(
                f"the best that fits is {found.model.name} as {found.format} with "
                f"{found.context_tokens:,} tokens of context"
            )
        else:
            hints.append("free some memory, or see what fits: `qwharf fit`")
    return DoesNotFit(
        model.name,
        found=f"{_gib(need)} needed as {named.format} with {context:,} tokens of context"
        + (f" for each of {wishes.parallel} requests" if wishes.parallel > 1 else ""),
        expected=f"at most {_room(named)}",
        hint="; ".join(hints),
        **facts,
    )


def _most(sites: list[Site], below: int) -> tuple[int, Site | None]:
    """The largest context of any of the sites, and which; of four bits and more, if any."""
    usual = [s for s in sites if fidelity(s.format) >= USUAL_FIDELITY]
    if len(usual) not in (0, len(sites)):
        found_usual = _most(usual, below)
        if found_usual[0]:
            return found_usual
    found: list[tuple[int, Site]] = [
        (tokens, site)
        for site in sites
        for mode in site.modes
        if (tokens := site.largest(mode, below)) is not None
    ]
    return max(found, key=lambda x: x[0], default=(0, None))


def _need(site: Site, context: int) -> int:
    """What it would take, wherever: the sum without a budget."""
    unbounded = replace(
        site,
        hardware=replace(
            site.hardware,
            memory_total_bytes=1 << 60,
            memory_available_bytes=1 << 60,
            memory_limit_bytes=None,
            gpus=tuple(
                replace(g, memory_total_bytes=1 << 50, memory_free_bytes=1 << 50)
                if g.vendor == "apple"
                else g
                for g in site.hardware.gpus
            ),
        ),
    )
    for mode in reversed(unbounded.modes):
        placed = unbounded.place(mode, context)
        if placed is not None:
            return placed.bytes_at("host") + placed.bytes_at("gpu")
    return memory.weight_bytes(site.model.architecture, site.format) + memory.kv_bytes(
        site.model.architecture, context, site.kv_cache_type, site.parallel
    )


def _room(site: Site) -> str:
    if site.modes == ("gpu",) and not site.hardware.unified_memory:
        sizes = " + ".join(_gib(free_bytes(g) or 0) for g in site.gpus)
        return f"{sizes} on the GPUs, less what the engine leaves free"
    host, shared = site.budget.host_bytes, site.budget.shared_gpu_bytes
    if shared is not None and host is not None and shared < host:
        return f"{_gib(shared)}, which is what macOS lets the GPU have"
    free = site.hardware.memory_available_bytes
    text = f"{_gib(host or 0)} of memory"
    if free is not None and host is not None:
        text += f" ({_gib(free)} is free, of which {_gib(free - host)} is left for the rest)"
    return text


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
