"""The defaults: which format and how much context ``up`` takes when the user does not say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from qwharf import memory
from qwharf.fit.placing import Placed, Site
from qwharf.fit.ranking import SLOW_BYTES_PER_TOKEN, USEFUL_CONTEXT_TOKENS, is_slow
from qwharf.fit.rules import USUAL_FIDELITY, fidelity
from qwharf.types import Format

CONTEXTS = (32_768, 16_384, 8_192)
"""What to try, the most first. 32,768 is what the models of April 2025 were trained on; more is a
wish of the user's own, since it costs memory from the start."""
TIGHT_CONTEXTS = (8_192, 4_096, 2_048)
LEAST_CONTEXT = 512
"""Less is of no use in a conversation."""

LADDERS = {
    "gguf": tuple(Format("gguf", q) for q in ("q8_0", "q6_k", "q5_k_m", "q4_k_m")),
    "mlx": tuple(Format("mlx", q) for q in ("8bit", "6bit", "4bit")),
    "safetensors": tuple(Format("safetensors", q) for q in ("bf16", "awq", "gptq-int4")),
}
"""Where memory is shared with the rest of the machine: the most faithful first, four bits last."""
USUAL = LADDERS["gguf"][-1]
LAST_RESORTS = tuple(Format("gguf", q) for q in ("q3_k_m", "q2_k"))


@dataclass(frozen=True, slots=True)
class Choice:
    """A format, a layout and why."""

    format: Format
    placed: Placed
    why_format: str


def choose(site: Site, formats: tuple[Format, ...], contexts: tuple[int, ...]) -> Choice | None:
    """Format and context on one platform.

    Args:
        site: its format is replaced by those tried.
        formats: that can be had, all in one container.
        contexts: to try, the most first; one where the user named it.
    """
    container = formats[0].container
    if container == "safetensors" and site.device.kind != "cpu":
        return _on_cards(site, formats, contexts)
    faithful = tuple(f for f in LADDERS[container] if f in formats)
    if not faithful:  # weights that lie here in some other type, or the user's choice
        return _only(site, formats, contexts)
    usual = faithful[-1]
    return (
        _on_the_gpu(site, faithful, usual, contexts)
        or _comfortable(site, faithful, usual, contexts)
        or _tight(site, formats, usual, contexts)
    )


def _only(site: Site, formats: tuple[Format, ...], contexts: tuple[int, ...]) -> Choice | None:
    tries = contexts if len(contexts) == 1 else (*contexts, *TIGHT_CONTEXTS[1:], LEAST_CONTEXT)
    for context, format in ((c, f) for c in tries for f in formats):
        placed = replace(site, format=format).first(context)
        if placed is not None:
            poor = "; expect poorer answers" if fidelity(format) < USUAL_FIDELITY else ""
            return Choice(format, placed, f"the best that can be had{poor}")
    return None


def _on_the_gpu(
    site: Site, faithful: tuple[Format, ...], usual: Format, contexts: tuple[int, ...]
) -> Choice | None:
    """All on the GPU if four bits allow it; else as much as goes, where that is still fast."""
    if not site.gpus:
        return None
    for least in _least(contexts):
        for format in faithful:
            at = replace(site, format=format)
            tries = (at.place("gpu", c) for c in contexts if c >= least)
            placed = next((p for p in tries if p is not None), None)
            if placed is not None:
                why = "the most faithful format that fits on the GPU whole"
                return Choice(format, placed, why)
    for context in contexts:
        at = replace(site, format=usual)
        placed = at.first(context)
        if placed is not None and placed.gpu_layers and not is_slow(at, placed):
            why = "four bits, as it does not fit on the GPU whole"
            return Choice(usual, placed, why)
    return None


def _comfortable(
    site: Site, faithful: tuple[Format, ...], usual: Format, contexts: tuple[int, ...]
) -> Choice | None:
    """In half of the machine's memory: the most bits that leave a fair context, then the context.

    On a processor each token reads all active weights, so more than four bits are taken only as
    long as that stays bearable.
    """
    for least in _least(contexts):
        for format in faithful:
            tries = (_in_comfort(site, format, c) for c in contexts if c >= least)
            placed = next((p for p in tries if p is not None), None)
            if placed is None:
                continue
            if format == usual or not is_slow(replace(site, format=format), placed):
                return Choice(format, placed, _why_comfort(site, faithful, format, least))
    return None


def _least(contexts: tuple[int, ...]) -> tuple[int, ...]:
    """The least context to hold out for before bits are given up: the second best, then less."""
    return contexts[1:] or contexts


def _in_comfort(site: Site, format: Format, context: int) -> Placed | None:
    placed = replace(site, format=format).first(context)
    room = site.budget.comfort_bytes
    if placed is None or (room is not None and placed.bytes_at("host") > room):
        return None
    return placed


def _why_comfort(site: Site, faithful: tuple[Format, ...], format: Format, context: int) -> str:
    if format == faithful[0]:
        return "the most faithful format, as memory is plentiful"
    above = faithful[faithful.index(format) - 1]
    if _in_comfort(site, above, context) is None:
        return f"the most faithful format that leaves half of the memory free (not {above})"
    read = memory.read_bytes_per_token(site.model.architecture, above)
    return (
        f"{above} would read {read / 1e9:.1f} GB for each token, and be slow on a processor"
        if read > SLOW_BYTES_PER_TOKEN
        else f"faster than {above}"
    )


def _tight(
    site: Site, formats: tuple[Format, ...], usual: Format, contexts: tuple[int, ...]
) -> Choice | None:
    """Into what is free now: four bits with what context there is, then fewer bits."""
    for format, context in _tight_order(formats, usual, contexts):
        placed = replace(site, format=format).first(context)
        if placed is None:
            continue
        if format == usual:
            why = "more bits would leave no memory to spare"
        else:
            why = f"{usual} does not fit; expect poorer answers"
        return Choice(format, placed, why)
    return None


def _tight_order(
    formats: tuple[Format, ...], usual: Format, contexts: tuple[int, ...]
) -> Iterator[tuple[Format, int]]:
    single = len(contexts) == 1
    small = contexts if single else TIGHT_CONTEXTS
    low = [f for f in LAST_RESORTS if f in formats]
    yield from ((usual, c) for c in (contexts if single else (*contexts, *TIGHT_CONTEXTS[1:])))
    yield from ((f, c) for f in low for c in small)
    if not single:
        yield from ((f, LEAST_CONTEXT) for f in (usual, *low))


def _on_cards(site: Site, formats: tuple[Format, ...], contexts: tuple[int, ...]) -> Choice | None:
    """Where the engine has the cards to itself: what fits, the most faithful first."""
    bits = sorted(formats, key=lambda f: (-fidelity(f), f.quantization != "bf16"))
    tries = contexts if len(contexts) == 1 else (*contexts, *TIGHT_CONTEXTS[1:])
    for context, format in ((c, f) for c in tries for f in bits):
        placed = replace(site, format=format).place("gpu", context)
        if placed is not None:
            why = "the most faithful format that fits" if len(bits) > 1 else "the format there is"
            return Choice(format, placed, why)
    return None


def default_contexts(site: Site) -> tuple[int, ...]:
    """:data:`CONTEXTS` within the model's own."""
    native = site.model.native_context_tokens
    return tuple(dict.fromkeys(min(c, native) for c in CONTEXTS))


def largest(site: Site, wish: int | None) -> Placed | None:
    """The layout with the largest context: in the fastest mode where that is useful, else in that
    with the most. A ``wish`` is met exactly or not at all.
    """
    if wish is not None:
        return site.first(wish)
    limit = site.model.native_context_tokens
    found: list[Placed] = []
    for mode in site.modes:
        tokens = site.largest(mode, limit)
        placed = None if tokens is None else site.place(mode, tokens)
        if placed is not None:
            if placed.context_tokens >= min(USEFUL_CONTEXT_TOKENS, limit):
                return placed
            found.append(placed)
    return max(found, key=lambda p: p.context_tokens, default=None)
