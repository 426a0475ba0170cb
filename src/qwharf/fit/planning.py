"""From a model and a machine to plans."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from qwharf import memory
from qwharf.errors import QwharfError, UsageError
from qwharf.fit.budget import budget, free_bytes
from qwharf.fit.choosing import Choice, default_contexts, largest
from qwharf.fit.choosing import choose as choose_format
from qwharf.fit.means import Means
from qwharf.fit.placing import Placed, Site
from qwharf.fit.ranking import (
    SLOW_BYTES_PER_TOKEN,
    USEFUL_CONTEXT_TOKENS,
    is_good,
    order_of_choices,
    order_of_models,
    order_of_plans,
)
from qwharf.fit.refusing import check_wishes, does_not_fit, most_context
from qwharf.fit.rules import USUAL_FIDELITY, fidelity, formats_of
from qwharf.fit.search import Search, search
from qwharf.fit.wishes import Wishes
from qwharf.fit.wording import reasons, short
from qwharf.types import Cpu, Hardware, Model, Plan

ANYTHING = Means()


def choose(
    model: Model,
    hardware: Hardware,
    wishes: Wishes,
    alternatives: Iterable[Model] = (),
    means: Means = ANYTHING,
) -> Plan:
    """The plan that ``up`` follows: what is installed and best for the hardware, with sensible
    defaults; what is not installed only if nothing that is can grant the wishes.

    Args:
        model: what to run.
        hardware: where.
        wishes: what the user fixed.
        alternatives: other models, of which the best that fits is named if this one does not.
        means: platforms, and which of them are installed.

    Raises:
        UsageError: there is no such platform, or the context is beyond what the model can be
            stretched to.
        FormatUnavailable: the platform cannot run the format, or it cannot be had.
        DoesNotFit: with the largest context, or the best other model, that would.
    """
    return _best_of(search(hardware, wishes, means), model, alternatives)


def plans(
    models: Iterable[Model],
    hardware: Hardware,
    wishes: Wishes,
    means: Means = ANYTHING,
    *,
    every: bool = True,
) -> tuple[Plan, ...]:
    """Every model, format and platform that fits, with the largest context each can have.

    The best model first; of each model the plan that :func:`choose` prefers, then the others. The
    largest context is at most the model's native one: more is planned only when it is asked for.

    Args:
        models: to be planned.
        hardware: where.
        wishes: what the user fixed.
        means: platforms, and which of them are installed.
        every: whether to go on after the first plan of each model.

    Raises:
        UsageError: there is no such platform.
    """
    everywhere = search(hardware, wishes, means)
    groups: list[tuple[tuple[object, ...], list[Plan]]] = []
    for model in models:
        found = list(_largest_plans(everywhere, model, every=every))
        if found:
            good = any(is_good(site, placed) for site, placed in found)
            made = [_plan(s, placed, wishes, short(s, placed, means)) for s, placed in found]
            groups.append((order_of_models(model, good), made))
    return tuple(plan for _, group in sorted(groups, key=lambda g: g[0]) for plan in group)


# ----------------------------------------------------------------------------------------- inside


def _largest_plans(search: Search, model: Model, *, every: bool) -> list[tuple[Site, Placed]]:
    """The first is of the platform and format that :func:`choose` prefers."""
    wish = search.wishes.context_tokens
    if (wish or 0) > most_context(model):
        return []
    choice = _first_choice(search, model)
    sites = search.sites(model) if every else [] if choice is None else [choice[0]]
    found = [(site, placed) for site in sites if (placed := largest(site, wish)) is not None]
    preferred = None if choice is None else (choice[0].platform, choice[0].format)
    return sorted(
        found,
        key=lambda x: order_of_plans(
            x[0], x[1], search.means, preferred=(x[0].platform, x[0].format) == preferred
        ),
    )


def _choices(search: Search, model: Model, platform: str) -> Iterator[tuple[Site, Choice]]:
    """The default of a platform, for each container that it runs."""
    site = search.site(model, platform)
    formats = search.formats(site)
    wish = search.wishes.context_tokens
    contexts = default_contexts(site) if wish is None else (wish,)
    for container in dict.fromkeys(f.container for f in formats):
        of_one = tuple(f for f in formats if f.container == container)
        choice = choose_format(site, of_one, contexts)
        if choice is not None:
            yield replace(site, format=choice.format), choice


def _first_choice(search: Search, model: Model) -> tuple[Site, Choice] | None:
    """The best of what is installed, else of what is not.

    Platforms are looked at in the order of preference, and no further than to the first that is
    good to use: finding out whether one is installed takes time.
    """
    if _is_hopeless(search, model):
        return None
    for installed in (True, False):
        best: tuple[Site, Choice] | None = None
        for platform in search.preferred(model):
            if search.means.has(platform) != installed:
                continue
            found = [*_choices(search, model, platform), *([best] if best else [])]
            best = min(
                found,
                key=lambda x: order_of_choices(x[0], x[1].placed, search.means),
                default=None,
            )
            if best is not None and _settled(*best, here=search.place(platform)[0].kind):
                return best
        if best is not None:
            return best
    return None


def _is_hopeless(search: Search, model: Model) -> bool:
    """Whether not even the smallest weights of the model go into all memory that there is."""
    host = budget(search.hardware).host_bytes
    sizes = [free_bytes(gpu) for gpu in search.hardware.gpus]
    if host is None or None in sizes:
        return False
    room = host + sum(size or 0 for size in sizes)
    wanted = search.wishes.format
    formats = formats_of(model) if wanted is None else (wanted,)
    try:
        return all(memory.weight_bytes(model.architecture, f) > room for f in formats)
    except UsageError:  # a format whose bytes are not known
        return False


def _settled(site: Site, choice: Choice, here: str) -> bool:
    """Whether no platform after one that computes on a device of kind ``here`` would be better:
    on a processor all read the same bytes at the same speed.
    """
    return here == "cpu" or (choice.placed.mode != "cpu" and is_good(site, choice.placed))


def _best_of(search: Search, model: Model, alternatives: Iterable[Model]) -> Plan:
    check_wishes(search, model)
    found = _first_choice(search, model)
    if found is None:
        raise does_not_fit(
            search,
            model,
            elsewhere=lambda: _elsewhere(search, model),
            other=lambda: _alternative(search, model, alternatives),
        )
    site, choice = found
    return _plan(site, choice.placed, search.wishes, reasons(site, choice, search))


def _elsewhere(search: Search, model: Model) -> Plan | None:
    """A plan on another platform, where one was asked for by name."""
    free = replace(search, platforms=search.means.platforms)
    if free.platforms == search.platforms:
        return None
    found = _first_choice(free, model)
    return None if found is None else _plan(found[0], found[1].placed, search.wishes, ())


def _alternative(search: Search, model: Model, alternatives: Iterable[Model]) -> Plan | None:
    """The best other model that fits, format and context left to us."""
    free = replace(search.wishes, format=None, context_tokens=None)
    found: list[Plan] = []
    for other in alternatives:
        if other.name == model.name:
            continue
        try:
            found.append(_best_of(replace(search, wishes=free), other, ()))
        except QwharfError:
            continue
    return min(found, key=lambda p: order_of_models(p.model, _looks_good(p)), default=None)


def _looks_good(plan: Plan) -> bool:
    read = memory.read_bytes_per_token(plan.model.architecture, plan.format)
    on_host = plan.gpus == 0 and plan.gpu_layers == 0
    return (
        fidelity(plan.format) >= USUAL_FIDELITY
        and plan.context_tokens >= min(USEFUL_CONTEXT_TOKENS, plan.model.native_context_tokens)
        and not (on_host and read > SLOW_BYTES_PER_TOKEN)
    )


def threads(cpu: Cpu) -> int | None:
    """How many threads compute: the physical cores that may be used, but one from four on.

    Threads wait for one another at every step, so one core that is busy elsewhere holds all of
    them up; and a second thread of the same core adds nothing.
    """
    known = [c for c in (cpu.physical_cores, cpu.usable_cores) if c]
    if not known:
        return None
    cores = max(1, math.floor(min(known)))
    return cores - 1 if cores >= 4 else cores


def _plan(site: Site, placed: Placed, wishes: Wishes, reasons: tuple[str, ...]) -> Plan:
    counts_threads = site.format.container == "gguf" or site.device.kind == "cpu"
    return Plan(
        model=site.model,
        format=site.format,
        platform=site.platform,
        context_tokens=placed.context_tokens,
        parallel=wishes.parallel,
        kv_cache_type=site.kv_cache_type,
        threads=threads(site.hardware.cpu) if counts_threads else None,
        gpu_layers=placed.gpu_layers,
        cpu_moe_layers=placed.cpu_moe_layers,
        gpus=placed.gpus,
        memory=placed.lines,
        reasons=reasons,
    )
