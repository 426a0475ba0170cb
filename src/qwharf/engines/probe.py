"""Run by an engine's own Python, not by qwharf's: says what the engine is, or dies of why not.

Imports nothing of qwharf, and keeps to what Python 3.10 has.
"""

import argparse
import json
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any


def vllm(variant: str) -> dict[str, Any]:
    """Its command line is imported too: that is where a broken installation shows."""
    engine = import_module("vllm")
    import_module("vllm.entrypoints.cli.main")
    version("vllm")  # `vllm serve` asks for it
    platform = import_module("vllm.platforms").current_platform
    return {"version": engine.__version__, "device": platform.device_type}


def sglang(variant: str) -> dict[str, Any]:
    """The parser; of a full installation the kernels, too."""
    engine = import_module("sglang")
    arguments = import_module("sglang.srt.server_args").ServerArgs
    arguments.add_cli_args(argparse.ArgumentParser())
    device = "none: it only checks command lines"
    if variant != "parser":
        import_module("sgl_kernel")
        device = "cuda" if import_module("torch").cuda.is_available() else "cpu"
    return {"version": engine.__version__, "device": device}


def mlx(variant: str) -> dict[str, Any]:
    """One sum is computed, since the libraries are loaded late."""
    core = import_module("mlx.core")
    import_module("mlx_lm.server")
    total = core.sum(core.arange(5)).item()
    if total != 10:
        raise RuntimeError(f"mlx counts 0 + 1 + 2 + 3 + 4 as {total}")
    kind = str(core.default_device().type)
    return {"version": version("mlx-lm"), "device": kind.rpartition(".")[2]}


def llama_cpp(variant: str) -> dict[str, Any]:
    """The wheel that serves, and the devices that it sees."""
    import_module("psutil")
    names = [d["name"] for d in import_module("xllamacpp").get_device_info()]
    return {"version": version("xllamacpp"), "device": f"{variant}: {', '.join(names)}"}


def llm_compressor(variant: str) -> dict[str, Any]:
    """What calibrates is imported, with what it is handed."""
    import_module("llmcompressor.modifiers.gptq")
    import_module("llmcompressor.modifiers.transform.awq")
    import_module("transformers.models.qwen3")
    device = "cuda" if import_module("torch").cuda.is_available() else "cpu"
    return {"version": version("llmcompressor"), "device": device}


if __name__ == "__main__":
    probes = {"vllm": vllm, "sglang": sglang, "mlx": mlx, "llama.cpp": llama_cpp}
    probes["llm-compressor"] = llm_compressor
    answer = probes[sys.argv[1]](sys.argv[2])
    sys.stdout.write("\nqwharf-probe: " + json.dumps(answer) + "\n")
