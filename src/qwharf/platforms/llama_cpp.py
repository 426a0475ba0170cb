"""The embedded platform: llama.cpp, from the ``xllamacpp`` wheel, in a child process.

What may be asked of it is in :mod:`qwharf.platforms.llama_check`; what it is told, in
:func:`arguments`; what its log says is read by :mod:`qwharf.platforms.llama_log`. Only the child,
:mod:`qwharf.platforms.llama_server`, imports the engine.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from qwharf.errors import FormatUnavailable
from qwharf.formats.names import FORMATS
from qwharf.platforms import llama_check, llama_installed, llama_log
from qwharf.platforms.base import Applied, Availability
from qwharf.platforms.yarn import trained_context, yarn_factor
from qwharf.types import DeploymentSpec, Format, Launch

PACKAGE = "xllamacpp"
CHILD = "qwharf.platforms.llama_server"
HOST = "127.0.0.1"


class LlamaCpp:
    """The platform ``llama.cpp``."""

    name = "llama.cpp"

    def engine(self) -> str:
        """Name and version, e.g. ``llama.cpp (xllamacpp 2026.10.11549)``."""
        return f"llama.cpp ({PACKAGE} {_version() or 'not installed'})"

    def availability(self) -> Availability:
        """Whether the wheel, and the system library that it needs, are here."""
        version = _version()
        found = importlib.util.find_spec(PACKAGE) if version else None
        if version is None or found is None:
            return Availability(
                installed=False,
                version=version,
                where=None,
                reason=f"the package {PACKAGE} is not installed",
                hint="`pip install xllamacpp` (wheels: Linux with glibc, macOS, Windows on x86-64)",
            )
        where = str(Path(found.origin).parent) if found.origin else None
        if not _has_openmp():
            return Availability(
                installed=False,
                version=version,
                where=where,
                reason="libgomp.so.1, which the engine needs, is not on this system",
                hint="install it: `apt install libgomp1`, `dnf install libgomp`",
            )
        return Availability(installed=True, version=version, where=where)

    def formats(self) -> tuple[Format, ...]:
        """Every GGUF quantisation."""
        return tuple(f for f in FORMATS if f.container == "gguf")

    def check(self, spec: DeploymentSpec) -> None:
        """Refuse what llama.cpp would refuse, or end its process over."""
        here = self.availability()
        if llama_installed.require(spec) is None and not here.installed:
            raise FormatUnavailable(
                spec.name,
                found=here.reason,
                expected="the engine of this platform",
                hint=here.hint,
            )
        llama_check.check_format(spec)
        llama_check.check_parameters(spec)
        llama_check.check_file(spec)
        llama_check.check_adapters(spec)

    def launch(self, spec: DeploymentSpec, port: int) -> Launch:
        """The child's command; with ``engine_version``, that of a build that was installed."""
        argv = arguments(spec, port)
        build = llama_installed.require(spec)
        if build is None:
            return Launch(
                argv=(sys.executable, "-m", CHILD, *argv), base_url=f"http://{HOST}:{port}"
            )
        return Launch(
            argv=llama_installed.command(build, argv, spec.gpu_layers),
            env=llama_installed.ENVIRONMENT,
            base_url=f"http://{HOST}:{port}",
        )

    def phase(self, log_line: str) -> str | None:
        """What begins with this line of the log."""
        return llama_log.phase(log_line)

    def applied(self, log: Iterable[str]) -> Applied:
        """The buffers of the latest start."""
        return llama_log.applied(log)

    def explain(self, log: Sequence[str], exit_code: int | None) -> str:
        """Why the latest start failed, or the engine died."""
        return llama_log.explain(log, exit_code)


@cache
def _version() -> str | None:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _has_openmp() -> bool:
    """The wheel for Linux relies on the system's OpenMP."""
    if sys.platform != "linux":
        return True
    import ctypes

    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return False
    return True


# --------------------------------------------------------------------------------------- launch


def arguments(spec: DeploymentSpec, port: int) -> list[str]:
    """The options of llama.cpp's server for ``spec``."""
    each = -(-spec.context_tokens // llama_check.PAD_TOKENS) * llama_check.PAD_TOKENS
    argv = [
        *("--model", str(spec.artifact_path)),
        *("--alias", spec.name),
        *("--host", HOST),
        *("--port", str(port)),
        *("--ctx-size", str(each * spec.parallel)),
        *("--parallel", str(spec.parallel)),
        *("--cache-type-k", spec.kv_cache_type),
        *("--cache-type-v", spec.kv_cache_type),
    ]
    if spec.threads is not None:
        argv += ["--threads", str(spec.threads)]
    argv += ["--n-gpu-layers", str(spec.gpu_layers)]
    if spec.cpu_moe_layers:
        argv += ["--n-cpu-moe", str(spec.cpu_moe_layers)]
    factor = yarn_factor(spec.architecture, spec.context_tokens)
    if factor is not None:
        argv += ["--rope-scaling", "yarn", "--rope-scale", str(factor)]
        argv += ["--yarn-orig-ctx", str(trained_context(spec.architecture))]
    for path in spec.adapters.values():
        argv += ["--lora", str(path)]
    if spec.adapters:  # each request says which, if any
        argv += ["--lora-init-without-apply"]
    return [*argv, "--load-mode", "none", "--die-with-parent"]
