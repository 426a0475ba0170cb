"""What the user asked for; what is ``None`` is ours to choose."""

from __future__ import annotations

from dataclasses import dataclass

from qwharf.types import Format, KvCacheType


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Constraints on a plan."""

    platform: str | None = None
    format: Format | None = None
    context_tokens: int | None = None
    """Of each request."""
    parallel: int = 1
    """Requests served at once."""
    kv_cache_type: KvCacheType | None = None
    adapters: bool = False
    """Whether requests are to ask for LoRA adapters by name."""
    gpu: bool = True
    """Whether GPUs may be used."""
