"""Prompt and decode speed of the embedded engine, against ``llama-server`` on the same file.

    python -m benchmarks.speed --llama-server PATH [--model qwen3:0.6b] [--format gguf:q4_k_m]

The weights are a synthetic checkpoint of the model's exact shape, converted by qwharf. Both engines
run at once, idle but for the one being asked; rounds are interleaved so that noise hits both alike,
and each round asks a new prompt so that no cache helps. Rates are the engines' own timings. The
third column asks the embedded engine through the gateway.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import header, table

PROMPT_TOKENS = 256
NEW_TOKENS = 64
PORT = 18471


def ask(url: str, body: dict[str, Any], timeout: float = 300) -> tuple[float, dict[str, Any]]:
    """Wall seconds and answer of one request."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    start = time.perf_counter()
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        data = json.load(answer)
    return time.perf_counter() - start, data


@contextlib.contextmanager
def server(argv: list[str], port: int) -> Iterator[str]:
    """A running ``llama-server``."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(url + "/health", timeout=2).close()
                    break
                time.sleep(0.1)
            yield url
        finally:
            child.terminate()


def prompt(rng: random.Random) -> list[int]:
    """Random token ids: the same work whatever the text, and never cached."""
    return [rng.randrange(1000, 100_000) for _ in range(PROMPT_TOKENS)]


def round_of(url: str, ids: list[int], model: str) -> tuple[float, float, float]:
    """(prompt tokens/s, decode tokens/s, wall seconds) of one request."""
    wall, data = ask(
        f"{url}/completions",
        {"model": model, "prompt": ids, "max_tokens": NEW_TOKENS, "temperature": 0,
         "ignore_eos": True, "cache_prompt": False},
    )  # fmt: skip
    timings = data["timings"]
    return timings["prompt_per_second"], timings["predicted_per_second"], wall


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--llama-server", type=Path, help="the peer's binary")
    options.add_argument("--model", default="qwen3:0.6b")
    options.add_argument("--format", default="gguf:q4_k_m")
    options.add_argument("--rounds", type=int, default=8)
    args = options.parse_args()
    header("Speed")
    with tempfile.TemporaryDirectory() as home:
        os.environ["QWHARF_HOME"] = home
        os.environ["QWHARF_PORT"] = str(PORT)
        return compare(args, Path(home))


def compare(args: argparse.Namespace, home: Path) -> int:
    """Deploy, ask in turns, print."""
    from qwharf import catalog, pipeline, settings, survey, testing
    from qwharf.cli.observer import TerminalObserver
    from qwharf.cli.output import Output
    from qwharf.daemon.client import DaemonClient
    from qwharf.fit import Wishes
    from qwharf.formats.names import parse_format
    from qwharf.hardware import detect

    config = settings.load()
    folder = home / "synthetic"
    testing.write_synthetic_checkpoint(catalog.find(args.model), folder)
    quiet = Output(quiet=True)
    observer = TerminalObserver(quiet, quiet.progress().__enter__())
    wishes = Wishes(format=parse_format(args.format), context_tokens=4096)
    machine = detect(config.data_dir)
    plan = pipeline.plan(
        pipeline.Request(model=str(folder), wishes=wishes), machine, survey.means(machine)
    )
    artifact = pipeline.obtain(plan.model, plan.format, config, observer)
    client = DaemonClient(config)
    client.ensure_running()
    try:
        spec = pipeline.specify(plan, artifact.id, artifact.path, "speed")
        deployment = client.deploy(spec)
        urls = {
            "embedded": f"{deployment.engine_url}/v1",
            "through the gateway": deployment.base_url,
        }
        with contextlib.ExitStack() as stack:
            if args.llama_server:
                argv = [str(args.llama_server), "-m", str(artifact.path), "-c", "4096", "-np", "1",
                        "-t", str(spec.threads or os.cpu_count()), "--port", str(PORT + 1),
                        "--no-webui"]  # fmt: skip
                urls["llama-server"] = stack.enter_context(server(argv, PORT + 1)) + "/v1"
            rng = random.Random(1)
            seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in urls}
            for n in range(args.rounds + 1):
                for name, url in urls.items():
                    result = round_of(url, prompt(rng), "speed")
                    if n:
                        seen[name].append(result)
        show(seen)
    finally:
        client.shutdown()
    return 0


def show(seen: dict[str, list[tuple[float, float, float]]]) -> None:
    """Medians, and ratios to the peer where there is one."""
    medians = {
        n: [statistics.median(x) for x in zip(*rows, strict=True)] for n, rows in seen.items()
    }
    peer = medians.get("llama-server")
    rows = []
    for name, (pp, tg, wall) in medians.items():
        ratio = (
            [f"{pp / peer[0]:.2f}", f"{tg / peer[1]:.2f}", f"{wall / peer[2]:.2f}"]
            if peer
            else (["-"] * 3)
        )
        rows.append([name, f"{pp:.0f}", ratio[0], f"{tg:.1f}", ratio[1], f"{wall:.2f}", ratio[2]])
    print(f"{PROMPT_TOKENS} prompt tokens, {NEW_TOKENS} new ones, medians of the rounds\n")
    table(["", "prompt tokens/s", "ratio", "decode tokens/s", "ratio", "wall s", "ratio"], rows)


if __name__ == "__main__":
    sys.exit(main())
