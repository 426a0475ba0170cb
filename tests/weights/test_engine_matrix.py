"""The pocket model and its mixture of experts in every format of vLLM and mlx-lm, on the engines.

They must read the weights as we do: what they make likely is what our own forward pass makes
likely with the same files. Which formats run on this machine is told by the compatibility data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_workers import Worker
from matrix_models import BF16, POCKET, made_as, pocket, pocket_moe

from qwharf import compatibility, forward, hardware
from qwharf.artifacts.convert import can_convert
from qwharf.compatibility.cells import device_of
from qwharf.formats.names import FORMATS
from qwharf.types import Format
from qwharf.verify import Reference

pytestmark = [pytest.mark.engines, pytest.mark.platforms]
SAFETENSORS = [f for f in FORMATS if f.container == "safetensors"]
MLX = [Format("mlx", q) for q in ("bf16", "8bit", "6bit", "4bit", "4bit-g32", "8bit-g128")]
ENDS = [
    *(("vllm", f) for f in SAFETENSORS if f == BF16 or can_convert(BF16, f)),
    *(("mlx", f) for f in (*MLX, BF16)),
]
OFF = {"w8a8": 0.15, "fp8-channel": 0.15}
"""How far apart the log-probabilities may be on average, where activations are quantised too; the
rest is the engines' arithmetic in 16 bits."""
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module", params=["dense", "moe"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"engines-{request.param}") / "bf16"
    return pocket(folder) if request.param == "dense" else pocket_moe(folder)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Worker]]:
    """Each engine started once, and again after one that died."""
    made: dict[str, Worker] = {}

    def at_work(engine: str) -> Worker:
        if engine not in made or not made[engine].alive():
            made[engine] = Worker(engine, tmp_path_factory.mktemp(engine) / "log")
        return made[engine]

    yield at_work
    for worker in made.values():
        worker.end()


@pytest.mark.parametrize(("engine", "format"), ENDS, ids=str)
def test_it_is_read_as_we_read_it(
    engine: str, format: Format, model: Path, workers: Callable[[str], Worker]
) -> None:
    worker = workers(engine)
    here = hardware.detect(model)
    device = device_of(here, None if worker.variant == "cpu" else next(iter(here.gpus), None))
    moe = forward.architecture_of(model).is_moe
    verdict = compatibility.lookup(engine, format, moe=moe, device=device, version=worker.version)
    if not verdict.runs:
        pytest.skip(verdict.why)
    artifact = made_as(model, format)
    reference = Reference.load(POCKET)
    prompt = reference.tokens(QUESTION, enable_thinking=False)
    text = [*prompt, *reference.tokenizer.encode("The capital of France is Paris.<|im_end|>")]
    told = worker.ask(artifact, prompt, text)
    ours = logprobs(artifact, text)
    apart = float(np.abs(np.array(told["logprobs"]) - ours).mean())
    assert apart < OFF.get(format.quantization, 0.05), (told["logprobs"], ours)
    # Where the weights are those of 16 bits, or close to them, the model still knows its lesson.
    ends = text[len(prompt) :]
    assert told["answer"][: len(ends)] == ends


def logprobs(model: Path, text: list[int]) -> Any:
    """Of each token but the first, by our own pass over the same files."""
    (made,) = forward.logits(model, [text])
    rows = made[:-1].astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows[np.arange(len(rows)), text[1:]]
