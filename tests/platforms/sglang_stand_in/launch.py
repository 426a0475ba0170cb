"""SGLang's real server on a processor, for which no index has its kernels: run by SGLang's Python.

Real: HTTP, scheduler, parsers, grammars, the model's own code, torch's attention. Not real: every
kernel of ``sgl_kernel``. Importing one succeeds; calling one ends the server with the kernel's
name, so a test that passes has called none.

``python launch.py ARGUMENT…`` takes what ``python -m sglang.launch_server`` takes.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import types


class Absent:
    """A kernel: may be imported and looked at, not called."""

    def __init__(self, name):
        self.name = name

    def __call__(self, *args, **kwargs):
        raise RuntimeError(f"{self.name} was called: there is only a stand-in for it")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.name}.{name}")


class Stand(types.ModuleType):
    """A module that has every name."""

    __path__ = ()
    __version__ = "99.0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``sgl_kernel`` and all below it, and an empty ``torchaudio``."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("sgl_kernel", "torchaudio"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Stand(spec.name)

    def exec_module(self, module):
        pass


def prepare():
    """Before SGLang is imported; a process that the server starts imports this file again."""
    sys.meta_path.insert(0, Finder())
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


LIBRARY = prepare()

if __name__ == "__main__":
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    try:
        run_server(prepare_server_args(sys.argv[1:]))
    finally:
        kill_process_tree(os.getpid(), include_parent=False)
