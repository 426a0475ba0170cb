"""``dev``: tools for developers and tests."""

from __future__ import annotations

from pathlib import Path

import click

from qwharf.cli.options import model_argument, with_output
from qwharf.cli.output import Output
from qwharf.cli.text import gb


@click.group()
def dev() -> None:
    """Tools for developers and tests."""


@dev.command()
@model_argument
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the weights.")
@click.option("--layers", type=click.IntRange(min=1), help="Fewer layers than the real model.")
@with_output
def synth(model: str, folder: Path, seed: int, layers: int | None, out: Output) -> None:
    """Write a synthetic checkpoint: MODEL's exact shape and vocabulary, random weights.

    For measuring speed and memory at real size without real weights; it talks nonsense. Needs
    the extra `synth`: pip install 'qwharf[synth]'.
    """
    from qwharf import catalog, testing

    with out.progress() as bar:
        testing.write_synthetic_checkpoint(
            catalog.resolve(model).model, folder, seed=seed, layers=layers, progress=bar
        )
    size = sum(f.stat().st_size for f in folder.iterdir())
    out.data({"path": folder, "size_bytes": size}, f"{folder}: {gb(size)}")


@dev.command()
@with_output
def demo(out: Output) -> None:
    """Deploy the pocket model, prove it, ask it one question. This is `make run`."""
    from qwharf import pipeline, settings
    from qwharf.cli.chat import Conversation
    from qwharf.cli.deploy import deploy_and_show, next_steps
    from qwharf.fit import Wishes

    out.note("qwharf takes Qwen3 from weights to a running, proven local deployment.")
    out.note("Here with its pocket model: a test article, far too small to be a real Qwen3.\n")
    request = pipeline.Request(model="pocket", wishes=Wishes())
    outcome = deploy_and_show(request, settings.load(), out)
    name = outcome.deployment.spec.name
    question = "What is the capital of France?"
    out.note(f"\n{out.style('>>> ' + question, 'bold', err=True)}")
    talk = Conversation(outcome.deployment.base_url, name, out)
    answer = talk.say(question)
    out.data({"deployment": outcome.deployment, "answer": answer}, next_steps(outcome.deployment))


@dev.command()
@click.argument("folder", type=click.Path(path_type=Path))
@with_output
def docs(folder: Path, out: Output) -> None:
    """Write the command reference into FOLDER, from the commands' own help."""
    from qwharf.cli.reference import command_reference

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "commands.md"
    path.write_text(command_reference(), "utf-8")
    out.data({"written": [path]}, str(path))


@dev.command()
@with_output
def kernels(out: Output) -> None:
    """Compile the fast quantisers now, and check them against llama.cpp's.

    Needs a C compiler. Large conversions do this by themselves, in the background; the package
    qwharf-kernels has them ready: pip install 'qwharf[fast]'.
    """
    from qwharf.errors import UsageError
    from qwharf.formats.ggml_types import GGML_TYPES
    from qwharf.quantize import building, ggml
    from qwharf.quantize import kernels as fast

    try:
        native = fast.build(ggml.library())
    except (building.BuildError, OSError) as e:
        raise UsageError(
            "kernels",
            found=str(e),
            expected="a C compiler that builds them (Linux or macOS on x86-64)",
            hint="without them llama.cpp's own quantisers are used, with the same result",
        ) from e
    kinds = [GGML_TYPES[name] for name in sorted(fast.TYPES)]
    wrong = [k.name for k in kinds for w in (False, True) if native.level_of(k, w) is None]
    data = {"path": native.path, "level": native.level_name(native.level), "wrong": wrong}
    text = f"{native.path}: {native.level_name(native.level)}, checked against llama.cpp's bytes"
    if wrong:
        text += f"; not the same, so left to llama.cpp: {', '.join(wrong)}"
    out.data(data, text)
