"""Run by llm-compressor's own Python, not by qwharf's: chooses the numbers of quantised matrices.

    python script.py JOB.json

Imports nothing of qwharf, reads nothing but the job, a ``config.json`` and safetensors files, and
runs no code that comes with a model. Of the model one decoder layer is in memory at a time: it is
loaded when the first tokens reach it, and written, as compressed-tensors stores it, when they have
left it. The job::

    model       folder with a config.json
    files       the weights, safetensors
    out         folder for layer-00000.safetensors …, and an index of them
    method      awq or gptq
    weights     what compressed-tensors is to know of them: num_bits, symmetric, strategy …
    activations the same of what is multiplied with them, or null
    format      pack-quantized or int-quantized
    scales      what they will be stored in: float16 or bfloat16; computed is in float32
    sequences   lists of tokens, all of one length
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import compress_module
from llmcompressor import oneshot
from llmcompressor.modeling.moe.helpers import FusedExpertsProtocol
from llmcompressor.modeling.moe.linear_experts import LinearExperts2D
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.observers import Observer
from llmcompressor.pipelines.cache import IntermediatesCache
from llmcompressor.pipelines.sequential import pipeline
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM

SIGN = "qwharf-calibrate: "
"""Begins each line that is meant for qwharf; a JSON object follows."""
IGNORE = ["lm_head", "re:.*mlp.gate$"]
TO_BE_FOUND = ("weight_scale", "weight_zero_point")
LEAST_SCALE = 1e-7
"""Of a group of zeros: float16 has it, if only just."""
GRID = 20
"""Scales that AWQ tries."""
PASSES = {"gptq": 2, "awq": 2 + 1 + GRID}
"""How often each sequence goes through each half of a layer: to measure, and at the end with the
rounded weights, for the next layer; AWQ compares what comes out, of the original and every trial.
"""
EVERY_SECONDS = 0.5


class Weights:
    """Tensors by name, out of all files."""

    def __init__(self, files: Sequence[str]) -> None:
        self.open = [safe_open(file, framework="pt", device="cpu") for file in files]
        self.place = {name: file for file in self.open for name in file.keys()}  # noqa: SIM118

    def __getitem__(self, name: str) -> torch.nn.Parameter:
        tensor = self.place[name].get_tensor(name).float()
        return torch.nn.Parameter(tensor, requires_grad=False)


class Layers:
    """The decoder layers of a model, of which one is there."""

    def __init__(
        self, model: Any, weights: Weights, job: Mapping[str, Any], tell: Callable[..., None]
    ) -> None:
        self.layers, self.weights, self.tell = model.model.layers, weights, tell
        self.out, self.format = Path(job["out"]), job["format"]
        self.held: int | None = None
        self.map: dict[str, str] = {}
        self.done, self.told_at = 0, 0.0
        self.total = PASSES[job["method"]] * len(job["sequences"]) * len(self.layers) * 2
        for number, layer in enumerate(self.layers):
            layer.register_forward_pre_hook(lambda *_, n=number: self.enter(n))
            for half in (layer.self_attn, layer.mlp):
                half.register_forward_pre_hook(lambda *_: self.count())

    def enter(self, number: int) -> None:
        """Tokens come to a layer."""
        if number != self.held:
            self.leave()
            self.load(number)

    def count(self) -> None:
        """Tokens come to half a layer."""
        self.done = min(self.done + 1, self.total)  # mixtures try more
        if time.monotonic() - self.told_at > EVERY_SECONDS:
            self.told_at = time.monotonic()
            self.tell(layer=self.held, done=self.done, total=self.total)

    def load(self, number: int) -> None:
        """Read a layer's weights; what is to be found of it begins as zeros."""
        for name, module in self.layers[number].named_modules():
            for key, old in list(module.named_parameters(recurse=False)):
                if key in TO_BE_FOUND:
                    new = torch.nn.Parameter(torch.zeros_like(old, device="cpu"), False)
                else:
                    new = self.weights[".".join(["model.layers", str(number), name, key])]
                module._parameters[key] = new
        self.held = number

    def leave(self) -> None:
        """Write the layer that is held, and let it go."""
        if self.held is None:
            return
        layer, file = self.layers[self.held], f"layer-{self.held:05d}.safetensors"
        for module in layer.modules():
            if hasattr(module, "quantization_scheme"):
                compress_module(module, self.format)
        at = f"model.layers.{self.held}."
        tensors = {at + name: tensor.contiguous() for name, tensor in layer.state_dict().items()}
        save_file(tensors, self.out / file, metadata={"format": "pt"})
        self.map |= dict.fromkeys(tensors, file)
        layer.to("meta")
        self.held = None

    def finish(self) -> None:
        """No more tokens come."""
        self.leave()
        self.tell(done=self.total, total=self.total)
        index = {"metadata": {}, "weight_map": self.map}
        (self.out / "model.safetensors.index.json").write_text(json.dumps(index))


def bare_model(folder: str) -> Any:
    """The model without weights, its experts as matrices of their own."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False).float()
        for name, module in list(model.named_modules()):
            if isinstance(module, FusedExpertsProtocol):
                experts = LinearExperts2D.get_linear_experts_cls(type(module))(config)
                model.set_submodule(name, experts.float())
    decoder = model.model
    decoder.rotary_emb = type(decoder.rotary_emb)(config)  # it has computed numbers
    model.config._name_or_path = folder
    return model.eval().requires_grad_(False)


def recipe(job: Mapping[str, Any]) -> list[Any]:
    """What llm-compressor is to do, in this order."""
    group = {
        "targets": ["Linear"],
        "weights": job["weights"],
        "input_activations": job["activations"],
    }
    facts = {"config_groups": {"group_0": group}, "ignore": IGNORE}
    if job["method"] == "gptq":
        return [GPTQModifier(**facts, batched_quantization=None)]
    return [AWQModifier(n_grid=GRID), QuantizationModifier(**facts)]


def stay_on_the_processor() -> None:
    """Take back what llm-compressor does for accelerators: here :class:`Layers` moves weights."""
    pipeline.get_main_device = lambda: torch.device("cpu")
    pipeline.set_onload_device = lambda model, device: model
    IntermediatesCache.pin_memory = lambda *_: None  # fails where there is none


def keep_scales(dtype: torch.dtype) -> None:
    """Let llm-compressor find no scales but those that will be stored."""
    find = Observer.get_qparams

    def get_qparams(self: Observer) -> Any:
        found = find(self)
        return {**found, "scale": found["scale"].clamp(min=LEAST_SCALE).to(dtype).float()}

    Observer.get_qparams = get_qparams


def main(job: Mapping[str, Any]) -> None:
    """Do the job."""
    stay_on_the_processor()
    words = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")

    def tell(**facts: Any) -> None:
        words.write(SIGN + json.dumps(facts) + "\n")  # raises when nobody listens any more

    torch.manual_seed(0)
    keep_scales(getattr(torch, job["scales"]))
    model, weights = bare_model(job["model"]), Weights(job["files"])
    model.model.embed_tokens.weight = weights["model.embed_tokens.weight"]
    model.model.norm.weight = weights["model.norm.weight"]
    layers = Layers(model, weights, job, tell)
    sequences = [{"input_ids": torch.tensor(tokens)} for tokens in job["sequences"]]
    with torch.no_grad():
        oneshot(
            model=model,
            processor=object(),  # the text is in tokens already
            recipe=recipe(job),
            dataset=DataLoader(sequences, batch_size=1),
            pipeline="sequential",
        )
        layers.finish()
    tell(finished=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
