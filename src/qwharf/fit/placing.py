"""Placing one model in one format on one platform: does it fit, and how is it laid out?

A *mode* is a way to lay a model out: all on the GPU, its experts on the host, some layers on the
GPU, all on the host. In each mode more context takes more memory, so the largest context is found
by bisection. Everything here is arithmetic on the sums of :mod:`qwharf.memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from qwharf import compatibility, memory
from qwharf.compatibility import Device, Verdict
from qwharf.fit.budget import GPU_HEADROOM_BYTES, Budget, budget, free_bytes
from qwharf.memory import Placement
from qwharf.types import Format, Gpu, Hardware, KvCacheType, MemoryLine, Model

Mode = Literal["gpu", "experts on the host", "layers on both", "cpu"]

STEP_TOKENS = 256
"""Contexts are multiples of this."""
TENSOR_PARALLEL = frozenset({"vllm", "sglang"})
"""Platforms that share every matrix among equal cards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A layout that fits."""

    mode: Mode
    context_tokens: int
    lines: tuple[MemoryLine, ...]
    gpu_layers: int = 0
    cpu_moe_layers: int = 0
    gpus: int = 0
    """Cards used."""

    def bytes_at(self, where: Literal["host", "gpu"]) -> int:
        """The sum in one place."""
        return sum(x.size_bytes for x in self.lines if x.where == where)


@dataclass(frozen=True, kw_only=True)
class Site:
    """One model, format and platform on one machine."""

    model: Model
    format: Format
    platform: str
    hardware: Hardware
    device: Device
    """What computes: one of ``gpus``, or the processor."""
    gpus: tuple[Gpu, ...]
    """The cards that the platform may use."""
    kv_cache_type: KvCacheType
    parallel: int
    version: str | None = None
    """Of the platform, where it is installed."""

    @cached_property
    def budget(self) -> Budget:
        """Of the host."""
        return budget(self.hardware)

    @cached_property
    def verdict(self) -> Verdict:
        """Whether it runs at all, whatever the memory."""
        return self.verdict_on(self.format)

    def verdict_on(self, format: Format) -> Verdict:
        """Whether the model in another format runs here."""
        return compatibility.lookup(
            self.platform,
            format,
            moe=self.model.architecture.is_moe,
            device=self.device,
            version=self.version,
        )

    @cached_property
    def modes(self) -> tuple[Mode, ...]:
        """The modes to try, the fastest first."""
        if not self.verdict.runs:
            return ()
        if self.device.kind == "cpu":
            return ("cpu",)
        if self.platform in TENSOR_PARALLEL or self.format.container == "mlx":
            return ("gpu",)
        if self.hardware.unified_memory:
            return ("gpu", "cpu")
        moe = self.model.architecture.is_moe
        return ("gpu", "experts on the host", "cpu") if moe else ("gpu", "layers on both", "cpu")

    def place(self, mode: Mode, context_tokens: int) -> Placed | None:
        """The layout for ``context_tokens`` in ``mode``; ``None``: it does not fit."""
        if mode not in self.modes:
            return None
        if self.platform in TENSOR_PARALLEL and mode == "gpu":
            return self._tensor_parallel(context_tokens)
        if self.platform in TENSOR_PARALLEL or self.format.container == "mlx":
            return self._in_host_memory(mode, context_tokens)
        return self._llama(mode, context_tokens)

    def largest(self, mode: Mode, limit_tokens: int) -> int | None:
        """The largest context up to ``limit_tokens`` that fits in ``mode``."""
        return largest(lambda tokens: self.place(mode, tokens) is not None, limit_tokens)

    def first(self, context_tokens: int) -> Placed | None:
        """The layout in the fastest mode that holds ``context_tokens``."""
        found = (self.place(mode, context_tokens) for mode in self.modes)
        return next((placed for placed in found if placed is not None), None)

    # ------------------------------------------------------------------------------- llama.cpp

    def _llama(self, mode: Mode, context: int) -> Placed | None:
        layers = self.model.architecture.num_hidden_layers
        if mode == "cpu":
            return self._try(mode, context, Placement())
        if mode == "gpu":  # over as few cards as hold it
            whole = Placement(gpu_layers=layers + 1)
            tries = (self._try(mode, context, whole, cards=n + 1) for n in range(len(self.gpus)))
            return next((placed for placed in tries if placed is not None), None)
        if mode == "experts on the host":
            # The most layers whose experts the cards hold; what is left is the least for the host.
            def at(n: int) -> Placement:
                return Placement(gpu_layers=layers + 1, cpu_moe_layers=layers - n)

        else:
            kept = layers if self.model.architecture.is_moe else 0

            def at(n: int) -> Placement:
                return Placement(gpu_layers=n, cpu_moe_layers=kept)

        count = most(lambda n: self._try(mode, context, at(n), host=False) is not None, layers - 1)
        return self._try(mode, context, at(count))

    def _try(
        self,
        mode: Mode,
        context: int,
        placement: Placement,
        *,
        host: bool = True,
        cards: int | None = None,
    ) -> Placed | None:
        """The layout if it is within the budget; ``host``: of the host too, ``cards``: over them
        (default: all).
        """
        lines = memory.llama_cpp_lines(
            self.model.architecture,
            self.format,
            context_tokens=context,
            parallel=self.parallel,
            kv_cache_type=self.kv_cache_type,
            placement=placement,
            unified_memory=self.hardware.unified_memory,
            weight_bytes=self._file_bytes,
        )
        used = (cards or len(self.gpus)) if placement.gpu_layers else 0
        if used > 1 and not self.hardware.unified_memory:
            lines = self._over_cards(lines, used)
        placed = Placed(
            mode=mode,
            context_tokens=context,
            lines=lines,
            gpu_layers=placement.gpu_layers,
            cpu_moe_layers=placement.cpu_moe_layers,
            gpus=used,
        )
        return placed if self._within(placed, host=host) else None

    def _over_cards(self, lines: tuple[MemoryLine, ...], used: int) -> tuple[MemoryLine, ...]:
        """Each card has buffers and a context of its own."""
        each = [x for x in lines if x.where == "gpu" and "weights" not in x.label]
        each = [x for x in each if "KV" not in x.label]
        return (
            *(x for x in lines if x not in each),
            *(
                replace(x, size_bytes=x.size_bytes * used, formula=f"{used} x ({x.formula})")
                for x in each
            ),
        )

    def _within(self, placed: Placed, *, host: bool) -> bool:
        need = placed.bytes_at("host")
        if host and self.budget.host_bytes is not None and need > self.budget.host_bytes:
            return False
        if not placed.gpu_layers:
            return True
        if self.hardware.unified_memory:
            shared = self.budget.shared_gpu_bytes
            return shared is None or need <= shared
        free = sorted((free_bytes(g) or 0 for g in self.gpus), reverse=True)[: placed.gpus]
        room = sum(max(0, size - GPU_HEADROOM_BYTES) for size in free)
        return placed.bytes_at("gpu") <= room

    @cached_property
    def _file_bytes(self) -> int | None:
        """The tensors' bytes by the header of a ``.gguf`` file that is run as it is."""
        path = self.model.path
        if path is None or path.is_dir() or self.model.path_format != self.format:
            return None
        return memory.weight_bytes_of_file(path)

    # ------------------------------------------------------------------------- vLLM and SGLang

    def _tensor_parallel(self, context: int) -> Placed | None:
        """Over as few cards as hold it: fewer is faster per card, and the rest stay free."""
        for count in self.tensor_parallel_sizes():
            total = min(g.memory_total_bytes or 0 for g in self.gpus[:count])
            free = min(free_bytes(g) or 0 for g in self.gpus[:count])
            sums = memory.vllm_lines if self.platform == "vllm" else memory.sglang_lines
            lines = sums(
                self.model.architecture,
                self.format,
                context_tokens=context,
                parallel=self.parallel,
                kv_cache_type=self.kv_cache_type,
                gpus=count,
                gpu_total_bytes=total,
            )
            room = free - GPU_HEADROOM_BYTES
            if self.platform == "vllm":
                room = min(room, memory.vllm_budget_bytes(total))
            if sum(x.size_bytes for x in lines) <= room * count:
                return Placed(mode="gpu", context_tokens=context, lines=lines, gpus=count)
        return None

    def tensor_parallel_sizes(self) -> Iterator[int]:
        """Over how many cards the model can be shared: powers of two that divide the heads, give
        each card whole KV heads or a copy of one, and cut no block or group of the format in two.
        Experts too narrow for that are kept whole and shared out, where their number allows it.
        """
        arch = self.model.architecture
        inner = arch.moe_intermediate_size if arch.is_moe else arch.intermediate_size
        heads, kv_heads = arch.num_attention_heads, arch.num_key_value_heads
        count = 1
        while count <= len(self.gpus):
            shared = kv_heads % count == 0 or count % kv_heads == 0
            cut = count == 1 or inner % (count * self.slice) == 0
            if heads % count == 0 and shared and (cut or self.experts_apart(count)):
                yield count
            count *= 2

    @property
    def slice(self) -> int:
        """What one card holds of a matrix must be a multiple of this."""
        return self.verdict.cell.slice if self.verdict.cell else 1

    def experts_apart(self, gpus: int) -> bool:
        """Whether ``gpus`` cards must hold whole experts each (expert parallelism), and can."""
        arch = self.model.architecture
        narrow = arch.is_moe and arch.moe_intermediate_size % (gpus * self.slice) != 0
        return narrow and gpus > 1 and arch.num_experts % gpus == 0

    # ---------------------------------------------------- all in the host's, or unified, memory

    def _in_host_memory(self, mode: Mode, context: int) -> Placed | None:
        """MLX, and vLLM or SGLang on a processor."""
        sums = {"vllm": memory.vllm_cpu_lines, "sglang": memory.sglang_cpu_lines}
        lines = sums.get(self.platform, memory.mlx_lines)(
            self.model.architecture,
            self.format,
            context_tokens=context,
            parallel=self.parallel,
            kv_cache_type=self.kv_cache_type,
        )
        need = sum(x.size_bytes for x in lines)
        rooms = [self.budget.host_bytes]
        if mode == "gpu":
            rooms.append(self.budget.shared_gpu_bytes)
        if any(room is not None and need > room for room in rooms):
            return None
        gpus = 1 if mode == "gpu" else 0
        return Placed(mode=mode, context_tokens=context, lines=lines, gpus=gpus)


# -------------------------------------------------------------------------------------- bisection


def largest(fits: Callable[[int], bool], limit_tokens: int) -> int | None:
    """The largest context that ``fits``: ``limit_tokens`` itself, or a multiple of 256 below."""
    if limit_tokens < 1:
        return None
    if fits(limit_tokens):
        return limit_tokens
    count = most(lambda n: fits(n * STEP_TOKENS), (limit_tokens - 1) // STEP_TOKENS)
    return count * STEP_TOKENS or None


def most(holds: Callable[[int], bool], limit: int) -> int:
    """The largest number up to ``limit`` that holds, where smaller ones hold too; 0: none."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
