"""Real engines that load one model after the other: a process each, with the engine's packages.

Importing vLLM takes as long as loading ten small models, so it is done once.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qwharf import engines
from qwharf.platforms.mlx import CHILD

TOKENS = 16
"""Of an answer."""

VLLM = """
import gc, json, os, sys
out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
for line in sys.stdin:
    job = json.loads(line)
    try:
        llm = LLM(
            job["path"], skip_tokenizer_init=True, enforce_eager=True, generation_config="vllm",
            max_model_len=256, max_num_seqs=1, kv_cache_memory_bytes=64 << 20,
        )
        def ask(ids, **wishes):
            how = SamplingParams(temperature=0, detokenize=False, **wishes)
            return llm.generate([{"prompt_token_ids": ids}], how, use_tqdm=False)[0]
        made = ask(job["prompt"], max_tokens=job["tokens"])
        read = ask(job["text"], max_tokens=1, prompt_logprobs=0)
        pairs = zip(job["text"][1:], read.prompt_logprobs[1:])
        told = {
            "answer": list(made.outputs[0].token_ids),
            "logprobs": [entry[token].logprob for token, entry in pairs],
        }
    except Exception as e:
        told = {"error": f"{type(e).__name__}: {e}"}
    llm = None
    cleanup_dist_env_and_memory()
    print(json.dumps(told), file=out)
"""

MLX = """
import importlib.util, json, os, sys
out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
import mlx.core as mx
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
if not mx.metal.is_available():
    child.suit_processor(mx)
from mlx_lm import load
from mlx_lm.generate import generate_step
for line in sys.stdin:
    job = json.loads(line)
    try:
        model, _ = load(job["path"])
        steps = generate_step(mx.array(job["prompt"]), model, max_tokens=job["tokens"])
        answer = [token for token, _ in steps]
        logits = model(mx.array([job["text"][:-1]]))[0].astype(mx.float32)
        found = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        chosen = mx.take_along_axis(found, mx.array(job["text"][1:])[:, None], axis=-1)
        told = {"answer": answer, "logprobs": chosen[:, 0].tolist()}
    except Exception as e:
        told = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(told), file=out)
"""
SCRIPTS = {"vllm": VLLM, "mlx": MLX}
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "passive",
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


class Worker:
    """One engine at work."""

    def __init__(self, engine: str, log: Path) -> None:
        found = engines.find(engine)
        if found is None or found.problems:
            pytest.skip(f"{engine} is not installed: `qwharf engine install {engine}`")
        self.engine, self.version, self.variant = engine, found.version, found.variant
        self._log = log
        self._out = log.open("wb")
        self._process = subprocess.Popen(
            [str(found.python), "-c", SCRIPTS[engine], str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._out,
            env={**os.environ, **ENVIRONMENT},
            text=True,
            bufsize=1,
        )

    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.communicate()
        self._out.close()

    def ask(self, model: Path, prompt: list[int], text: list[int]) -> dict[str, Any]:
        """``answer``: the likeliest tokens after ``prompt``; ``logprobs``: of each token of
        ``text`` but the first.
        """
        job = {"path": str(model), "prompt": prompt, "text": text, "tokens": TOKENS}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        line = self._process.stdout.readline()
        assert line, f"the engine ended: {self._log.read_text('utf-8', 'replace')[-3000:]}"
        told = dict(json.loads(line))
        assert "error" not in told, told
        return told
