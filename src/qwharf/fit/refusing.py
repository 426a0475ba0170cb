"""Why there is no plan: typed errors with the sum, and with what would work instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from qwharf import compatibility, memory
from qwharf.errors import DoesNotFit, FormatUnavailable, QwharfError, UsageError
from qwharf.fit.budget import free_bytes
from qwharf.fit.choosing import LEAST_CONTEXT
from qwharf.fit.placing import Site
from qwharf.fit.rules import USUAL_FIDELITY, fidelity, formats_of, origin
from qwharf.fit.search import Search
from qwharf.types import Format, Model, Plan


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
        facts = compatibility.facts(first)
        title, types = facts.title, search.kv_types(first)
        if wishes.adapters and not facts.adapters.runs:
            able = [p for p in search.means.platforms if compatibility.facts(p).adapters.runs]
            raise UsageError(
                "--adapter",
                found=f"LoRA adapters on {title}: {facts.adapters.why}",
                expected="a platform that tells them apart by request",
                hint=f"use{_listed(' ', able)}, or merge the adapter into the weights",
            )
        if kv is not None and kv not in types:
            raise UsageError(
                "--kv-cache",
                found=kv,
                expected=f"one of {', '.join(types)} on {title}",
                hint="choose another, or leave it out",
            )
        raise UsageError(
            "--context",
            found=f"{wish:,} tokens on {title}, where YaRN cannot be switched on",
            expected=f"at most {model.architecture.max_position_embeddings:,} there",
            hint="choose less, or another platform"
            + _listed(
                ": ", [p for p in search.means.platforms if compatibility.facts(p).stretches]
            ),
        )
    _check_format(search, model)


def _check_format(search: Search, model: Model) -> None:
    sites = [search.site(model, p) for p in search.usable(model)]
    if any(search.formats(site) for site in sites):
        return
    wanted = search.wishes.format
    if wanted is not None and origin(model, wanted) is None:
        every = formats_of(model)
        had = [str(f) for f in every if f.container == wanted.container] or [str(f) for f in every]
        raise FormatUnavailable(
            model.name,
            found=f"no {wanted} weights, nor any to make them from",
            expected=", ".join(had),
            hint=f"`qwharf show {model.name}` lists what can be had",
        )
    raise _refused(search, model, sites, wanted)


def _refused(search: Search, model: Model, sites: list[Site], wanted: Format | None) -> QwharfError:
    """Nothing here runs the format, or any format of the model: why, and what works instead."""
    formats = (wanted,) if wanted is not None else formats_of(model)
    moe = model.architecture.is_moe
    tried = [replace(s, format=f) for s in sites for f in formats]
    # The platforms that could run it elsewhere have the reasons that matter.
    telling = [t for t in tried if compatibility.runs_anywhere(t.platform, t.format, moe=moe)]
    why = list(dict.fromkeys(search.obstacle(t, t.format) or "" for t in telling or tried[:1]))
    here = [str(f) for s in sites for f in _for_format(search, None).formats(s)]
    instead = _instead(search, model)
    hints = []
    if here:
        hints.append(f"try `--format {here[0]}`")
    if instead:
        hints.append(
            f"`--platform {instead[0]}` runs {wanted or 'it'} here"
            + _listed(", and so does " if len(instead) == 2 else ", and so do ", instead[1:])
        )
    if not hints:
        elsewhere = {
            t.platform: compatibility.runs_anywhere(t.platform, t.format, moe=moe) for t in telling
        }
        hints += [f"{compatibility.facts(p).title} needs {on}" for p, on in elsewhere.items()]
        hints.append(f"`qwharf show {model.name}` lists what can be had of it")
    return FormatUnavailable(
        model.name,
        found=(f"{wanted} asked for: " if wanted is not None else "nothing of it that runs: ")
        + "; ".join([w for w in why if w][:3]),
        expected=", ".join(here[:4]) or f"something that runs on {search.hardware.source}",
        hint="; ".join(hints),
        formats_instead=here,
        platforms_instead=instead,
    )


def _instead(search: Search, model: Model) -> list[str]:
    """The platforms that would do, the preferred first."""
    free = replace(search, platforms=search.means.platforms)
    if search.wishes.format is not None:
        usable = compatibility.instead(
            search.wishes.format,
            moe=model.architecture.is_moe,
            devices=compatibility.devices(search.hardware),
            among=free.usable(model),
        )
        return list(usable)
    return [p for p in free.usable(model) if free.formats(free.site(model, p))]


def _for_format(search: Search, format: Format | None) -> Search:
    """The same search for another format."""
    return replace(search, wishes=replace(search.wishes, format=format))


def _listed(before: str, names: list[str]) -> str:
    return before + " and ".join(f"`{n}`" for n in names) if names else ""


def does_not_fit(
    search: Search,
    model: Model,
    elsewhere: Callable[[], Plan | None],
    other: Callable[[], Plan | None],
) -> DoesNotFit:
    """The error with the sum, what there is, and the largest that would fit.

    Args:
        search: that found nothing.
        model: that does not fit.
        elsewhere: finds a plan for it on another platform than the one asked for.
        other: finds the best other model that fits; asked only where nothing else helps.
    """
    wishes, hardware = search.wishes, search.hardware
    sites = search.sites(model)
    sites = [s for s in sites if search.means.has(s.platform)] or sites
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
            small = [s for s in small if "q8_0" in search.kv_types(s.platform)]
            more, _ = _most(small, wishes.context_tokens)
            if more > most:
                hints.append(f"`--kv-cache q8_0` allows {more:,}")
    there = elsewhere()
    if there is not None:
        facts["platforms_instead"] = [there.platform]
        hints.append(
            f"`--platform {there.platform}` fits, as {there.format} with "
            f"{there.context_tokens:,} tokens"
        )
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
