"""What is peculiar to the embedded llama.cpp: bad files, its log, its options."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from engine_process import Engine, free_port, spec_of, started
from gguf_edits import Change, edited, put, random_change, retype

from qwharf.errors import FormatUnavailable, InvalidFile, QwharfError, UsageError
from qwharf.formats.gguf import read_gguf
from qwharf.formats.gguf_check import validate_for_engine
from qwharf.platforms import llama_check, llama_cpp, llama_log, llama_server, yarn
from qwharf.platforms.llama_cpp import LlamaCpp
from qwharf.testing import TINY, TINY_MOE

PLATFORM = LlamaCpp()

# ------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (put("qwen3.block_count", 0), "block_count"),
        (put("qwen3.block_count", 2**31), "block_count"),
        (put("qwen3.context_length", 0), "context_length"),
        (put("qwen3.attention.head_count", 0), "head_count"),
        (put("qwen3.attention.head_count_kv", 0), "head_count_kv"),
        (put("qwen3.attention.head_count_kv", 3), "head_count"),
        (put("qwen3.embedding_length", 512), "by the metadata"),
        (put("qwen3.rope.freq_base", float("nan")), "freq_base"),
        (put("tokenizer.ggml.eos_token_id", 320), "eos_token_id"),
        (put("tokenizer.ggml.tokens", ["a"] * 320), "tokens"),
        (put("tokenizer.ggml.tokens", ["a", "b"]), "tokens"),
        (put("tokenizer.ggml.token_type", [1, 1]), "token_type"),
        (put("tokenizer.ggml.pre", "nonsense"), "pre"),
        (put("general.architecture", "llama"), "llama"),
        # These end its process by signal, SIGABRT and SIGSEGV.
        (retype("output_norm.weight", "BF16"), "output_norm.weight"),
        (retype("blk.1.ffn_up.weight", "I64"), "blk.1.ffn_up.weight"),
        (put("general.sampling.mirostat", 255, "u32"), "mirostat"),
        (put("general.sampling.penalty_repeat", 0, "u32"), "penalty_repeat"),
        (put("general.sampling.temp", float("nan")), "general.sampling.temp"),
    ],
)
def test_deadly_files_are_refused(
    change: Change, names: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    bad = edited(tiny_gguf, tmp_path / "bad.gguf", change)
    with pytest.raises(InvalidFile) as e:
        PLATFORM.check(spec_of(bad))
    assert str(bad) == e.value.subject
    assert names in f"{e.value.found} {e.value.expected}"
    assert e.value.hint


@pytest.mark.parametrize(
    "cut",
    [lambda b: b[: len(b) // 2], lambda b: b[:500], lambda b: b"", lambda b: b"RIFF" + b[4:]],
    ids=["half", "header", "empty", "magic"],
)
def test_damaged_files_are_refused(
    cut: Callable[[bytes], bytes], tiny_gguf: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(cut(tiny_gguf.read_bytes()))
    with pytest.raises(InvalidFile):
        PLATFORM.check(spec_of(bad))


@pytest.mark.engines
@pytest.mark.parametrize("seed", range(14))
def test_what_passes_the_check_does_not_crash_it(
    seed: int, tiny_gguf: Path, tmp_path: Path
) -> None:
    """Random files: refused by us, refused by it with a reason, or served; never a signal."""
    source = random.Random(seed)
    done: list[str] = []
    bad = edited(
        tiny_gguf,
        tmp_path / "bad.gguf",
        lambda m, t: done.append(random_change(source, m, t)),
    )
    try:
        arch = validate_for_engine(read_gguf(bad))
        spec = spec_of(bad, architecture=arch, context_tokens=256)
        PLATFORM.check(spec)
    except QwharfError as e:
        assert e.found
        return
    with started(PLATFORM, spec, tmp_path / "log") as engine:
        if engine.await_ready():
            for prompt in ("the and <|im_end|> ü", "x"):
                engine.post(
                    "/v1/chat/completions",
                    {"messages": [{"role": "user", "content": prompt}], "max_tokens": 4},
                )
            assert engine.get("/health").status_code == 200, done
        else:
            code = engine.await_end()
            assert code == 1, (done, PLATFORM.explain(engine.log(), code))
            assert "did not say" not in PLATFORM.explain(engine.log(), code)


def test_a_missing_engine_is_told_with_what_to_do(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "PACKAGE", "no-such-engine")
    llama_cpp._version.cache_clear()
    try:
        here = PLATFORM.availability()
        with pytest.raises(FormatUnavailable) as e:
            PLATFORM.check(spec_of(tiny_gguf))
    finally:
        llama_cpp._version.cache_clear()
    assert not here.installed
    assert here.version is None
    assert "pip install" in here.hint
    assert e.value.hint == here.hint


def test_a_quantised_cache_needs_whole_blocks() -> None:
    spec = spec_of(Path("x"), architecture=replace(TINY, head_dim=80), kv_cache_type="q8_0")
    with pytest.raises(UsageError) as e:
        llama_check.check_parameters(spec)
    assert "80" in e.value.found


# ------------------------------------------------------------------------------- placement


@pytest.mark.engines
def test_experts_context_and_cache_are_as_asked_for(moe_gguf: Path, tmp_path: Path) -> None:
    """A mixture of experts, the context stretched by YaRN, and an 8-bit cache."""
    spec = spec_of(
        moe_gguf,
        architecture=TINY_MOE,
        context_tokens=4096,
        cpu_moe_layers=2,
        kv_cache_type="q8_0",
    )
    PLATFORM.check(spec)
    with started(PLATFORM, spec, tmp_path / "log") as engine:
        assert engine.await_ready(), engine.log()
        assert engine.chat("the")["choices"]
        assert [s["n_ctx"] for s in engine.get("/slots").json()] == [4096]
        applied = PLATFORM.applied(engine.log())
    assert applied.context_tokens == 4096
    # 2 x 3 layers x 2 heads x 64 numbers x 4,096 tokens, 34 bytes for 32
    assert applied.kv_bytes == pytest.approx(2 * 3 * 2 * 64 * 4096 * 34 / 32, rel=0.01)
    log = "\n".join(engine.log())
    assert "freq_scale            = 0.5" in log


def test_yarn_comes_in_only_where_needed() -> None:
    hybrid = replace(TINY, max_position_embeddings=40_960)
    assert yarn.yarn_factor(hybrid, 40_960) is None
    assert yarn.yarn_factor(hybrid, 40_961) == 2
    assert yarn.yarn_factor(hybrid, 65_537) == 4
    assert yarn.yarn_factor(replace(hybrid, yarn_factor=4.0), 131_072) is None
    with pytest.raises(UsageError) as e:
        llama_check.check_parameters(
            spec_of(Path("x"), architecture=hybrid, context_tokens=131_073)
        )
    assert "131,072" in e.value.expected


# --------------------------------------------------------------------------------- reasons


@pytest.mark.engines
@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        (put("general.architecture", "nonsense"), 1, "unknown model architecture: 'nonsense'"),
        (put("qwen3.block_count", 9), 1, "tensor 'blk.3.attn_norm.weight' not found"),
        (put("tokenizer.ggml.pre", "nonsense"), 1, "unknown pre-tokenizer type: 'nonsense'"),
        (put("tokenizer.chat_template", "{% if"), 1, "the chat template cannot be read: "),
        (put("qwen3.block_count", 0), -6, "GGML_ASSERT(hparams.n_layer_all > 0"),
    ],
)
def test_its_own_reasons_are_found(
    change: Change, code: int, why: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    bad = edited(tiny_gguf, tmp_path / "bad.gguf", change)
    with started(PLATFORM, spec_of(bad), tmp_path / "log") as engine:
        assert engine.await_end() == code
        told = PLATFORM.explain(engine.log(), code)
    assert why in told
    assert "\n" not in told


@pytest.mark.engines
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory the Unix way")
def test_a_lack_of_memory_is_told(tiny_gguf: Path, tmp_path: Path) -> None:
    """3 GB of cache in a process that may have 2."""
    launch = PLATFORM.launch(spec_of(tiny_gguf, context_tokens=2_000_000), free_port())
    module = launch.argv[2]
    code = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        f"sys.argv = ['x', *{list(launch.argv[3:])!r}]\n"
        f"runpy.run_module({module!r}, run_name='__main__')\n"
    )
    engine = Engine(replace(launch, argv=(sys.executable, "-c", code)), tmp_path / "log")
    exit_code = engine.await_end()
    engine.end()
    told = PLATFORM.explain(engine.log(), exit_code)
    assert told.startswith("not enough memory, asked for 2.86 GiB")


@pytest.mark.parametrize(
    ("log", "code", "why"),
    [
        ([], None, "the engine said nothing"),
        ([], 3, "the engine ended with code 3"),
        ([], -11, "the engine crashed (SIGSEGV)"),
        ([], -4, "processor lacks"),
        (["qwharf-engine: starting", "Traceback", "ModuleNotFoundError: No x"], 1, "No x"),
        (["qwharf-engine: could not start: libgomp.so.1: not found"], 1, "libgomp.so.1"),
        (
            ["qwharf-engine: starting", "0.1 I load_tensors: loading model tensors, ..."],
            None,
            "did not finish loading weights",
        ),
        (
            ["terminate called after throwing", "  what():  std::bad_alloc"],
            -6,
            "not enough memory",
        ),
        (  # a refused request before it was killed is not the reason
            ["qwharf-engine: ready at x", "0.00.252.567 E srv    send_error: task id = 18, error"],
            -9,
            "SIGKILL",
        ),
        (  # nor is what an earlier start said
            ["0.00.252.567 E srv  init: old", "qwharf-engine: starting, process 7"],
            -9,
            "SIGKILL",
        ),
        (["", "--- qwharf: engine 7 ended"], 5, "the engine ended with code 5"),
    ],
)
def test_explanations(log: list[str], code: int | None, why: str) -> None:
    told = llama_log.explain(log, code)
    assert why in told
    assert "old" not in told


def test_the_latest_start_counts() -> None:
    def run(mib: int) -> list[str]:
        return [
            "qwharf-engine: starting, process 7",
            f"0.00.1 I load_tensors:        CUDA0 model buffer size =  {mib}.50 MiB",
            "0.00.1 I load_tensors:   CPU_Mapped model buffer size =     1.00 MiB",
            "0.00.1 I load_tensors:   CPU_Mapped model buffer size =     2.00 MiB",
            "0.00.1 I llama_context:  CUDA_Host  output buffer size =     0.58 MiB",
            "0.00.1 I srv    load_model: initializing, n_slots = 1, n_ctx_slot = 4096, kv",
        ]

    found = llama_log.applied([*run(900), *run(700)])
    assert found.lines == {
        "CUDA0 model": int(700.5 * 2**20),
        "CPU_Mapped model": 3 * 2**20,
        "CUDA_Host output": round(0.58 * 2**20),
    }
    assert found.weights_bytes == int(703.5 * 2**20)
    assert found.kv_bytes is None
    assert found.context_tokens == 4096
    assert llama_log.applied([]).total_bytes is None


# --------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "wrong",
    [
        ["--ctx-size", "0"],
        ["--parallel", "0"],
        ["--threads", "0"],
        ["--port", "65536"],
        ["--cache-type-v", "fp8"],
        ["--n-gpu-layers", "-1"],
        ["--model-that-is-none", "x"],
    ],
)
def test_the_child_refuses_what_would_crash_it(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as e:
        llama_server.options(["--model", "x", "--ctx-size", "256", *wrong])
    assert e.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_the_child_takes_what_the_platform_says() -> None:
    spec = spec_of(Path("m.gguf"), context_tokens=5000, cpu_moe_layers=3, parallel=2)
    args = llama_server.options(llama_cpp.arguments(spec, 4000))
    assert (args.ctx_size, args.parallel, args.threads) == (10_240, 2, 1)
    assert (args.rope_scaling, args.rope_scale, args.yarn_orig_ctx) == ("yarn", 4.0, 2048)
    assert llama_server.experts_on_host(args.n_cpu_moe) == (
        r"blk\.(0|1|2)\.ffn_(up|down|gate)_exps=CPU"
    )
    assert llama_server.usable_cores() >= 1
