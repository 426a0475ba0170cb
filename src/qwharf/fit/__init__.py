"""Which model, format and platform fit a machine, and with how much context."""

from __future__ import annotations

from collections.abc import Iterable

from qwharf.errors import DoesNotFit, FormatUnavailable
from qwharf.fit.wishes import Wishes
from qwharf.memory import llama_cpp_lines
from qwharf.types import Format, Hardware, Model, Plan

__all__ = ["Wishes", "choose", "plans"]

_USUAL = tuple(Format("gguf", q) for q in ("q8_0", "q6_k", "q5_k_m", "q4_k_m"))


def choose(model: Model, hardware: Hardware, wishes: Wishes) -> Plan:
    """The plan that ``up`` follows."""
    if wishes.format is not None and wishes.format.container != "gguf":
        raise FormatUnavailable(
            model.name,
            found=f"{wishes.format} asked for",
            expected="a gguf format, which llama.cpp runs",
            hint="try `--format gguf:q8_0`",
        )
    formats = (wishes.format,) if wishes.format else _USUAL
    context = wishes.context_tokens or min(model.native_context_tokens, 32_768)
    available = hardware.memory_available_bytes
    for format in formats:
        lines = llama_cpp_lines(
            model.architecture,
            format,
            context_tokens=context,
            parallel=wishes.parallel,
            kv_cache_type=wishes.kv_cache_type or "f16",
        )
        if available is None or sum(x.size_bytes for x in lines) <= available * 0.9:
            cores = hardware.cpu.physical_cores or 2
            return Plan(
                model=model,
                format=format,
                platform="llama.cpp",
                context_tokens=context,
                parallel=wishes.parallel,
                kv_cache_type=wishes.kv_cache_type or "f16",
                threads=max(1, int(min(cores, hardware.cpu.usable_cores or cores))),
                memory=lines,
                reasons=("on the CPU",),
            )
    raise DoesNotFit(model.name, hint="try less context: `--context 4096`")


def plans(models: Iterable[Model], hardware: Hardware, wishes: Wishes) -> tuple[Plan, ...]:
    """Every model that fits."""
    found = []
    for model in models:
        try:
            found.append(choose(model, hardware, wishes))
        except (DoesNotFit, FormatUnavailable):
            continue
    return tuple(found)
