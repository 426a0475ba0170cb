"""``add``: take a server that somebody else started for a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from qwharf import pipeline, settings
from qwharf.cli.options import with_output
from qwharf.cli.output import Output
from qwharf.cli.text import tokens
from qwharf.daemon.client import DaemonClient
from qwharf.errors import UnknownModel, UsageError
from qwharf.naming import checked_name
from qwharf.platforms import endpoint_kind
from qwharf.platforms.endpoint import key_of
from qwharf.platforms.endpoint_kind import Found, ServedModel
from qwharf.types import DeploymentSpec, Endpoint, Format, Model

CONTAINERS: Mapping[str, Literal["gguf", "mlx"]] = {
    "llama.cpp": "gguf",
    "ollama": "gguf",
    "mlx": "mlx",
}
"""Of the weights behind each kind of server; safetensors behind the others."""
MOVED = frozenset(
    {
        "qwen3:4b",
        "qwen3:30b",
        "qwen3:30b-a3b",
        "qwen3:235b",
        "qwen3:235b-a22b",
    }
)
"""Tags of Ollama's library that once were the hybrid models and are Thinking-2507 now:
which one lies there, the name does not tell."""


@click.command()
@click.argument("url")
@click.option("--name", help="Name of the deployment; default: made from the model's.")
@click.option(
    "--model",
    "model_name",
    metavar="MODEL|PATH",
    help="Which Qwen3 it serves, or the checkpoint; default: guessed from its own name.",
)
@click.option("--served-model", metavar="ID", help="What the server calls it, if it has several.")
@click.option(
    "--context",
    type=click.IntRange(min=256),
    metavar="N",
    help="Tokens of context per request; default: what the server tells.",
)
@click.option(
    "--api-key-env",
    "key_variable",
    metavar="VAR",
    help="The environment variable that holds the server's key.",
)
@with_output
def add(
    url: str,
    name: str | None,
    model_name: str | None,
    served_model: str | None,
    context: int | None,
    key_variable: str | None,
    out: Output,
) -> None:
    """Adopt the server at URL as a deployment.

    Any server that speaks OpenAI's API: vLLM, SGLang, llama.cpp, Ollama, LM Studio, mlx-lm, or
    another. It can then be verified, talked to and served through qwharf like any other; nothing
    there is ever changed, and `down` only forgets it.

    \b
    Examples:
      qwharf add http://127.0.0.1:8000
      qwharf add http://gpu-box:30000/v1 --model qwen3:30b-a3b --name big
      qwharf add http://127.0.0.1:11434 --served-model qwen3:8b --context 16384
    """
    config = settings.load()
    root = endpoint_kind.root(url)
    if root == config.daemon_url:
        raise UsageError(url, found="qwharf's own address", expected="another server's")
    found = endpoint_kind.look(root, key_of(key_variable))
    served = chosen(root, found, served_model)
    out.step("found", f"{found.engine} at {root}, with `{served.name}`")
    model = recognised(found, served, model_name)
    spec = specified(model, found, served, root, name, context, key_variable)
    client = DaemonClient(config)
    client.ensure_running()
    deployment = client.deploy(spec, on_progress=lambda text: out.step("add", text))
    out.data(
        {"deployment": deployment},
        f"\n`{spec.name}` is {model.title} on {found.engine}, {tokens(spec.context_tokens)} of "
        f"context, served at {deployment.base_url} too\n\n"
        f"  qwharf verify {spec.name}   see whether it behaves like Qwen3\n"
        f"  qwharf chat {spec.name}     talk to it\n"
        f"  qwharf down {spec.name}     forget it; it runs on",
    )


def chosen(url: str, found: Found, wanted: str | None) -> ServedModel:
    """The model that is meant.

    Raises:
        UsageError: there is none, several, or none of that name.
    """
    names = ", ".join(m.name for m in found.models) or "none"
    if wanted is not None:
        model = found.model(wanted)
        if model is None:
            raise UsageError("--served-model", found=wanted, expected=f"one of these: {names}")
        return model
    if len(found.models) != 1:
        raise UsageError(
            url,
            found=f"{found.engine} with these models: {names}",
            expected="one",
            hint="say which with --served-model" if found.models else "load one there first",
        )
    return found.models[0]


def recognised(found: Found, served: ServedModel, told: str | None) -> Model:
    """Which Qwen3 it is.

    Raises:
        UnknownModel: ``told`` is none.
        UsageError: its name does not say.
    """
    from qwharf import catalog

    if told is not None:
        return catalog.resolve(told).model
    hint = "say which Qwen3 it is with --model, such as --model qwen3:8b or --model ./checkpoint"
    if found.kind == "ollama" and served.name.casefold() in MOVED:
        raise UsageError(
            served.name,
            found="a tag that has meant different models",
            expected="to know which one lies there",
            hint=f"`ollama show {served.name}`, then {hint}",
        )
    try:
        return catalog.resolve(served.name).model
    except UnknownModel as e:
        raise UsageError(
            served.name, found="a name that no Qwen3 is known by", expected="a Qwen3", hint=hint
        ) from e


def specified(
    model: Model,
    found: Found,
    served: ServedModel,
    url: str,
    name: str | None,
    context: int | None,
    key_variable: str | None,
) -> DeploymentSpec:
    """What the daemon is asked to look after.

    Raises:
        UsageError: the context is not known, or larger than it is.
    """
    told = served.context_tokens
    if context is None and told is None:
        raise UsageError(
            served.name,
            found=f"{found.engine} does not tell its context",
            expected="to know what to promise",
            hint="say it with --context; Ollama and LM Studio tell once the model is loaded",
        )
    if context is not None and told is not None and context > told:
        raise UsageError("--context", found=str(context), expected=f"at most {told}, as it is")
    return DeploymentSpec(
        name=checked_name(name or pipeline.default_name(model)),
        platform="endpoint",
        model=model.name,
        thinking=model.thinking,
        format=Format(CONTAINERS.get(found.kind, "safetensors"), "unknown"),
        artifact_id="",
        artifact_path=model.path or Path(),
        architecture=model.architecture,
        context_tokens=context or told or 0,
        native_context_tokens=model.native_context_tokens,
        sampling=model.sampling,
        endpoint=Endpoint(
            url=url, model=served.name, kind=found.kind, api_key_variable=key_variable
        ),
    )
