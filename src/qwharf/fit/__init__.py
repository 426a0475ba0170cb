"""Which model, format and platform fit a machine, and with how much context.

:func:`plans` lists everything that fits, :func:`choose` finds the plan for one model. Arithmetic
only: nothing is started and nothing is looked up; what is installed is told by the caller.
"""

from __future__ import annotations

from qwharf.fit.means import Engine, Means
from qwharf.fit.planning import choose, plans, threads
from qwharf.fit.refusing import most_context
from qwharf.fit.wishes import Wishes

__all__ = ["Engine", "Means", "Wishes", "choose", "most_context", "plans", "threads"]
