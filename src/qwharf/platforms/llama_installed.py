"""The builds of llama.cpp that ``qwharf engine install llama.cpp`` makes, as commands.

``native`` is llama.cpp's own ``llama-server``, compiled for this processor; ``cuda``, ``rocm`` and
``vulkan`` are environments with another wheel of the embedded engine, in which qwharf's own child
runs as a script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qwharf import engines
from qwharf.engines import Installed
from qwharf.errors import FormatUnavailable
from qwharf.types import DeploymentSpec

CHILD = Path(__file__).with_name("llama_server.py")

ENVIRONMENT: Mapping[str, str] = {"GGML_NO_BACKTRACE": "1", "OMP_WAIT_POLICY": "passive"}
"""What the child sets for itself; why is told there."""

AS_THE_CHILD = (
    *("--log-verbosity", "4", "--offline", "--no-ui"),
    *("--no-kv-unified", "--no-context-shift", "--fit", "off"),
    *("--cache-ram", "0", "--no-cache-idle-slots", "--ctx-checkpoints", "0"),
    *("--jinja", "--reasoning-format", "deepseek", "--metrics", "--slots"),
    *("--cors-origins", "http://qwharf.invalid", "--no-cors-credentials"),
)
"""Options with which llama.cpp's own server does what the child does (llama_server.py)."""


def require(spec: DeploymentSpec) -> Installed | None:
    """The build that ``spec`` asks for; ``None``: the embedded one.

    Raises:
        FormatUnavailable: it is not installed, or cannot be used.
    """
    if spec.engine_version is None:
        return None
    found = engines.find("llama.cpp", spec.engine_version)
    if found is None or found.problems:
        raise FormatUnavailable(
            spec.name,
            found=found.problems[0] if found else f"no llama.cpp of kind {spec.engine_version}",
            expected="native, cuda, rocm or vulkan, installed",
            hint="`qwharf engine install llama.cpp --native` (or --cuda, --rocm, --vulkan)",
        )
    return found


def command(build: Installed, arguments: Sequence[str], gpu_layers: int) -> tuple[str, ...]:
    """The command line that serves with ``build``.

    Args:
        build: the installation.
        arguments: those of the embedded engine's child.
        gpu_layers: without any, the GPU's memory is left alone.
    """
    if build.variant != "native":
        return (str(build.python), str(CHILD), *arguments)
    own = [a for a in arguments if a != "--die-with-parent"]
    for at, word in enumerate(own):
        if word == "--lora":  # a list for llama.cpp's own server, as a row of CSV
            own[at + 1] = '"' + own[at + 1].replace('"', '""') + '"'
    keep_off = () if gpu_layers else ("--no-kv-offload", "--no-op-offload")
    return (str(build.command("llama-server")), *own, *AS_THE_CHILD, *keep_off)
