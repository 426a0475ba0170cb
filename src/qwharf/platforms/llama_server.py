"""The embedded engine's process: llama.cpp's HTTP server, out of the ``xllamacpp`` wheel.

Run by the daemon as ``python -m qwharf.platforms.llama_server …``; the options are those of
llama.cpp's own ``llama-server``, so a printed command can be tried with either program (but for
``--die-with-parent``). It is a process of its own because llama.cpp may end its process when it
meets bad data, and because loading holds Python's global lock.

The log goes to stderr. Exit codes: 0 asked to stop, 1 could not start, 2 bad options.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

LOG_LEVEL = 4
"""With the sizes of all buffers, without what each request does."""
PARENT_SECONDS = 1.0
"""Between two looks at whether the parent still lives, where the system does not tell."""
LOG_SECONDS = 0.2
"""The engine writes its log from a thread; give it time before the last word."""

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
MAX_CONTEXT = 2**31 - 1
MAX_PARALLEL = 256
"""Llama.cpp's own limit of sequences."""
MAX_THREADS = 512
"""ggml's own limit."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until asked to stop, which ends the process; returns an exit code if it could not."""
    args = options(argv)
    # Python's handlers cannot run while the engine loads, because it holds the global lock.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stop = threading.Event()
    if args.die_with_parent:
        _follow_parent(stop)
    # A failed assertion would start a debugger, if there is one, to print where it happened.
    os.environ["GGML_NO_BACKTRACE"] = "1"
    # Threads that wait for each other by spinning starve each other as soon as anything else
    # runs: 0.4 tokens a second instead of 12 beside one busy process on two cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _say(f"starting, process {os.getpid()}")
    try:
        server = _start(args)
    except (RuntimeError, ValueError, ImportError) as e:
        time.sleep(LOG_SECONDS)
        _say(f"could not start: {e}")
        return 1
    # The engine has just installed handlers that end its server, but not the process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    _say(f"ready at {server.listening_address}")
    if not stop.wait(1.0) and _listens(server.listening_address):  # no signal came in between
        stop.wait()
    _say("stopping")
    # Taking the server down in order would wait for the answers under way; whoever told us to
    # stop has waited for those that matter.
    os._exit(0)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"qwharf-engine: {text}\n")
        sys.stderr.flush()


# ------------------------------------------------------------------------------------- options


def _number(low: int, high: int) -> Any:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not from {low} to {high}")
        return value

    return parse


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the options; ends the process with 2 when one is wrong."""
    p = argparse.ArgumentParser(
        prog="qwharf.platforms.llama_server", description=__doc__, allow_abbrev=False
    )
    p.add_argument("--model", required=True, metavar="FILE", help="the (first) .gguf file")
    p.add_argument("--alias", metavar="NAME", help="how the model is called in answers")
    p.add_argument("--host", default="127.0.0.1", help="address to listen at")
    p.add_argument("--port", type=_number(0, 65535), default=8080, help="0: any that is free")
    p.add_argument(
        "--ctx-size",
        type=_number(1, MAX_CONTEXT),
        required=True,
        metavar="N",
        help="tokens of context of all slots together",
    )
    p.add_argument(
        "--parallel",
        type=_number(1, MAX_PARALLEL),
        default=1,
        metavar="N",
        help="slots: requests served at once, each with an equal part of the context",
    )
    p.add_argument("--cache-type-k", choices=KV_TYPES, default="f16", help="type of the keys")
    p.add_argument("--cache-type-v", choices=KV_TYPES, default="f16", help="type of the values")
    p.add_argument(
        "--threads",
        type=_number(1, MAX_THREADS),
        metavar="N",
        help="threads that compute; default: one per core that this process may use",
    )
    p.add_argument(
        "--n-gpu-layers",
        type=_number(0, 10_000),
        default=0,
        metavar="N",
        help="layers on the GPU, the last ones first; one more than there are: the output too",
    )
    p.add_argument(
        "--n-cpu-moe",
        type=_number(0, 10_000),
        default=0,
        metavar="N",
        help="in how many layers, the first ones first, the experts stay on the host",
    )
    p.add_argument(
        "--load-mode",
        choices=("none", "mmap"),
        default="none",
        help="read the file (none) or map it into memory (mmap)",
    )
    p.add_argument("--rope-scaling", choices=("yarn",), help="stretch the trained context")
    p.add_argument("--rope-scale", type=float, metavar="F", help="by what factor")
    p.add_argument(
        "--yarn-orig-ctx", type=_number(1, MAX_CONTEXT), metavar="N", help="the trained context"
    )
    p.add_argument(
        "--lora", action="append", default=[], metavar="FILE", help="a LoRA adapter; again for more"
    )
    p.add_argument(
        "--lora-init-without-apply",
        action="store_true",
        help="load them only: requests say which is to work, in `lora`",
    )
    p.add_argument(
        "--die-with-parent",
        action="store_true",
        help="end when the parent process ends, or closes the pipe that is our stdin",
    )
    return p.parse_args(argv)


# -------------------------------------------------------------------------------------- engine


def _start(args: argparse.Namespace) -> Any:
    """Load the model and listen; returns when both are done.

    Raises:
        RuntimeError: the engine could not; why is in its log.
    """
    import xllamacpp as engine

    if args.n_gpu_layers and not _has_gpu(engine):
        raise RuntimeError("this build of xllamacpp has no GPU support, or there is no GPU")
    p = engine.CommonParams()
    p.model.path = args.model
    p.model_alias = {args.alias} if args.alias else set()
    p.hostnames = [args.host]
    p.port = args.port
    p.verbosity = LOG_LEVEL
    p.offline = True

    p.n_ctx = args.ctx_size
    p.n_parallel = args.parallel
    p.kv_unified = False  # each slot has its own part, whatever the others do
    p.ctx_shift = False  # what is too long is refused, not cut
    p.fit_params = False  # nothing is made smaller than what was asked for
    p.cache_type_k = getattr(engine.ggml_type, f"GGML_TYPE_{args.cache_type_k.upper()}")
    p.cache_type_v = getattr(engine.ggml_type, f"GGML_TYPE_{args.cache_type_v.upper()}")
    # No caches of old prompts beside the slots: they would take memory nobody planned for.
    p.cache_ram_mib = 0
    p.cache_idle_slots = False
    p.n_ctx_checkpoints = 0

    threads = args.threads or usable_cores()
    p.cpuparams.n_threads = threads
    p.cpuparams_batch.n_threads = threads
    modes = engine.llama_load_mode
    p.load_mode = (
        modes.LLAMA_LOAD_MODE_MMAP if args.load_mode == "mmap" else modes.LLAMA_LOAD_MODE_NONE
    )
    p.n_gpu_layers = args.n_gpu_layers
    if not args.n_gpu_layers:  # otherwise a GPU would still be used, and its memory
        p.no_kv_offload = True
        p.no_op_offload = True
    if args.n_cpu_moe:
        p.tensor_buft_overrides = experts_on_host(args.n_cpu_moe)
    if args.rope_scaling:
        p.rope_scaling_type = engine.llama_rope_scaling_type.LLAMA_ROPE_SCALING_TYPE_YARN
        p.rope_freq_scale = 1.0 / (args.rope_scale or 1.0)
        p.yarn_orig_ctx = args.yarn_orig_ctx or 0

    p.lora_adapters = [engine.CommonAdapterLoraInfo(path, 1.0) for path in args.lora]
    p.lora_init_without_apply = args.lora_init_without_apply

    p.use_jinja = True
    p.reasoning_format = engine.common_reasoning_format.COMMON_REASONING_FORMAT_DEEPSEEK
    p.endpoint_metrics = True
    p.endpoint_slots = True
    p.ui = False
    # A web page in the user's browser must not be able to talk to the engine past the gateway.
    p.cors_origins = "http://qwharf.invalid"
    p.cors_credentials = False
    return engine.Server(p)


def _has_gpu(engine: Any) -> bool:
    kinds = engine.ggml_backend_dev_type
    host = (kinds.GGML_BACKEND_DEVICE_TYPE_CPU, kinds.GGML_BACKEND_DEVICE_TYPE_ACCEL)
    return any(device["type"] not in host for device in engine.get_device_info())


def experts_on_host(layers: int) -> str:
    """The placement rule, as llama.cpp writes it, for the experts of the first ``layers``."""
    return rf"blk\.({'|'.join(map(str, range(layers)))})\.ffn_(up|down|gate)_exps=CPU"


def usable_cores() -> int:
    """Cores that this process may use, without their second threads where that is known."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = psutil.cpu_count(logical=False)
    return max(1, min(allowed or 1, physical or allowed or 1))


def _listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


# -------------------------------------------------------------------------------------- parent


def _follow_parent(stop: threading.Event) -> None:
    """End when the parent does.

    On Linux the kernel sees to it, at any moment (when the *thread* that started us ends, to be
    exact). Elsewhere, and beside it, a thread does: it waits for the end of the pipe that is our
    stdin, or, if stdin is no pipe, looks after the parent; it cannot run while a model loads.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(0)
    if _stdin_is_pipe():
        threading.Thread(target=_await_eof, args=(stop,), daemon=True).start()
    elif sys.platform not in ("linux", "win32"):
        threading.Thread(target=_await_orphanage, args=(parent, stop), daemon=True).start()


def _stdin_is_pipe() -> bool:
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _await_eof(stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    stop.set()


def _await_orphanage(parent: int, stop: threading.Event) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
