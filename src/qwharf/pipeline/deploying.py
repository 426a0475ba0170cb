"""From a plan and weights to what a platform is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from qwharf.errors import CopyNeeded, EngineError
from qwharf.naming import checked_name, name_from
from qwharf.types import DeploymentSpec, Launch, Model, Plan

if TYPE_CHECKING:
    from qwharf.platforms import ServicePlatform, Step


def specify(
    plan: Plan,
    artifact_id: str,
    artifact_path: Path,
    name: str | None,
    engine_version: str | None = None,
) -> DeploymentSpec:
    """What the daemon is asked to run for ``plan``.

    Args:
        plan: how it is to be run.
        artifact_id: the weights in the store.
        artifact_path: and where they lie.
        name: of the deployment; default: made from the model's.
        engine_version: of several installations of the platform; default: its own choice.

    Raises:
        UsageError: ``name`` cannot be one.
    """
    return DeploymentSpec(
        name=checked_name(name or default_name(plan.model)),
        platform=plan.platform,
        model=plan.model.name,
        thinking=plan.model.thinking,
        format=plan.format,
        artifact_id=artifact_id,
        artifact_path=artifact_path,
        architecture=plan.model.architecture,
        context_tokens=plan.context_tokens,
        parallel=plan.parallel,
        kv_cache_type=plan.kv_cache_type,
        threads=plan.threads,
        gpu_layers=plan.gpu_layers,
        cpu_moe_layers=plan.cpu_moe_layers,
        gpus=plan.gpus,
        engine_version=engine_version,
        native_context_tokens=plan.model.native_context_tokens,
        sampling=plan.model.sampling,
        expected_memory_bytes=plan.memory_bytes(),
    )


def default_name(model: Model) -> str:
    """The deployment's name where the user gives none: ``qwen3-8b`` for ``qwen3:8b``."""
    return name_from(model.name)


Actions: TypeAlias = "Launch | tuple[Step, ...]"
"""The command of an engine that is started, or what is done to a service that runs for itself."""


def actions(spec: DeploymentSpec) -> Actions:
    """What ``spec`` leads to, exactly; a command's port is chosen at the real start."""
    from qwharf import platforms

    platform = platforms.get(spec.platform)
    if platforms.is_child(platform):
        return platform.launch(spec, port=0)
    return cast("ServicePlatform", platform).steps(spec)


def require(platform: str) -> None:
    """Refuse a platform that is not here, before anything is fetched for it.

    Raises:
        EngineError: it is not installed; says what to do.
    """
    from qwharf import platforms

    here = platforms.get(platform).availability()
    if not here.installed:
        raise EngineError(
            platform, found=here.reason, expected="it to be installed", hint=here.hint
        )


def refuse_copies(spec: DeploymentSpec) -> None:
    """Find out, before anything is started, whether the weights would lie on the disk twice.

    Raises:
        CopyNeeded: they would, and ``spec`` does not allow it.
    """
    from qwharf import platforms

    platform = platforms.get(spec.platform)
    if spec.may_copy or platforms.is_child(platform):
        return
    steps = cast("ServicePlatform", platform).steps(spec)
    copied = [(step.where, Path(step.content)) for step in steps if step.what == "copy"]
    if not copied:
        return
    size = sum(path.stat().st_size for _, path in copied if path.is_file())
    raise CopyNeeded(
        spec.name,
        found=f"no link leads from the store to {copied[0][0]}",
        expected=f"leave to copy {size / 1e9:.2f} GB",
        hint=f"allow it with `--copy`, or keep {platform.name}'s models and QWHARF_HOME on one "
        "file system",
        copy_bytes=size,
    )
