"""The Qwen3 family as data, and the ways people name its members.

:func:`find` and :func:`resolve` take a catalogue name, a repository id, an Ollama or LM Studio tag,
a folder or a ``.gguf`` file. Nothing is looked up on the network.
"""

from __future__ import annotations

from qwharf.catalog.data import models
from qwharf.catalog.names import Resolved, find, resolve

__all__ = ["Resolved", "find", "models", "resolve"]
