"""Engines in environments of their own, so that none of them can break another, or qwharf.

``find`` is what a platform asks: it looks at files and runs nothing. ``run_python`` runs something
with an engine's packages. Installing is in :mod:`qwharf.engines.install`; what is known about
which version needs what, in ``known.toml``.
"""

from __future__ import annotations

from qwharf.engines import system
from qwharf.engines.installed import Installed, own
from qwharf.engines.running import Finished, run_python
from qwharf.settings import Settings

__all__ = ["ENGINES", "Finished", "Installed", "find", "installed", "run_python"]

ENGINES = ("vllm", "sglang", "mlx", "llama.cpp", "llm-compressor")
"""What can be installed."""


def installed(engine: str | None = None, settings: Settings | None = None) -> tuple[Installed, ...]:
    """All that can be used here: qwharf's own first, the newest version first, then others'."""
    found = [*own(engine, settings)]
    for name in (engine,) if engine else ENGINES:
        found += system.find(name)
    return tuple(found)


def find(
    engine: str, version: str | None = None, settings: Settings | None = None
) -> Installed | None:
    """The one to use: qwharf's newest without problems, else the machine's own, else one with
    problems (that says which), else ``None``.

    Args:
        engine: one of :data:`ENGINES`.
        version: accept only this one.
        settings: where qwharf's own lie; default: the environment's.
    """
    candidates = [x for x in installed(engine, settings) if version in (None, x.version)]
    return next((x for x in candidates if not x.problems), candidates[0] if candidates else None)
