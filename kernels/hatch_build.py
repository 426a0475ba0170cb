"""Compiles the library into the wheel and names the platform that the wheel is for."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """One library, no Python ABI: ``py3-none-<platform>``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files are collected; an editable install has nothing to compile."""
        module = Path(self.root).parent / "src/qwharf/quantize/building.py"
        spec = importlib.util.spec_from_file_location("building", module)
        if spec is None or spec.loader is None or not module.is_file():
            raise RuntimeError(f"{module} not found: build the wheel from a checkout of qwharf")
        building = importlib.util.module_from_spec(spec)
        sys.modules["building"] = building
        spec.loader.exec_module(building)
        made = building.build(Path(self.directory) / "library")
        build_data["force_include"][str(made)] = f"qwharf_kernels/{made.name}"
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
