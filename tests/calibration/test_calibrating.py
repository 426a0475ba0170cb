"""From a text to an artifact, without llm-compressor: refusals, kills, the store, the command."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from qwharf import calibration
from qwharf.artifacts.convert import convert
from qwharf.artifacts.converting import convert_artifact, made_before
from qwharf.artifacts.importing import import_path
from qwharf.artifacts.store import Store
from qwharf.calibration import memory, running
from qwharf.calibration.methods import METHODS, method_of
from qwharf.cli.main import main
from qwharf.errors import DoesNotFit, EngineError, FormatUnavailable, InvalidFile, UsageError
from qwharf.formats.names import FORMATS
from qwharf.settings import Settings
from qwharf.testing import TINY, TINY_MOE
from qwharf.types import Architecture, Format

AWQ = Format("safetensors", "awq")
DEFAULT = calibration.read_text("default")
EIGHT_B = replace(
    TINY,
    num_hidden_layers=36,
    hidden_size=4096,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    intermediate_size=12288,
    vocab_size=151936,
    tie_word_embeddings=False,
)


def test_what_can_be_calibrated() -> None:
    assert {f for f in FORMATS if f.quantization in METHODS} == {
        Format("safetensors", quantization) for quantization in METHODS
    }
    for other in (f for f in FORMATS if f.quantization not in METHODS):
        with pytest.raises(FormatUnavailable) as refused:
            method_of(other)
        assert "awq, gptq-int4" in refused.value.expected
        assert ("--imatrix" in refused.value.hint) is (other.container == "gguf")


def command(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        main(["convert", *words])
    out, err = capfd.readouterr()
    return int(str(ended.value.code)), out, err


def test_without_an_environment_the_command_is_named(
    dense: Path, home: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EngineError) as refused:
        calibration.plan(dense, AWQ, DEFAULT, home)
    assert refused.value.hint == "`qwharf engine install llm-compressor`"
    code, _, err = command(capfd, str(dense), "--to", "awq", "--calibrate", "default")
    assert code == EngineError.exit_code and "qwharf engine install llm-compressor" in err
    assert not home.store_dir.exists()


def test_a_quantised_source_is_refused(dense: Path, tmp_path: Path, player: Settings) -> None:
    for name in ("w8a8", "gguf:q8_0"):
        target = Format("gguf", "q8_0") if ":" in name else Format("safetensors", name)
        source = tmp_path / f"{target.quantization}.gguf"
        convert(dense, target, source)
        with pytest.raises(FormatUnavailable) as refused:
            calibration.plan(source, AWQ, DEFAULT, player)
        assert str(target) in refused.value.found and "--to bf16" in refused.value.hint


@pytest.mark.parametrize("shape", [TINY, TINY_MOE, EIGHT_B], ids=["tiny", "moe", "8b"])
@pytest.mark.parametrize("quantization", METHODS)
def test_memory_does_not_grow_with_layers(shape: Architecture, quantization: str) -> None:
    method = METHODS[quantization]
    deeper = replace(shape, num_hidden_layers=2 * shape.num_hidden_layers)
    needed = [memory.needed_bytes(arch, method, 8192) for arch in (shape, deeper)]
    assert needed[0] == needed[1]
    assert memory.needed_bytes(shape, method, 8193) - needed[0] == memory.token_bytes(shape, method)
    one = sum(s.elements for s in memory.layer(shape)) * memory.SIZE
    assert memory.fixed_bytes(shape, method) > memory.BASE_BYTES + one


def test_the_text_is_cut_to_the_memory(dense: Path, player: Settings) -> None:
    free = calibration.plan(dense, AWQ, DEFAULT, player)
    arch, method = free.stored.arch, METHODS["awq"]
    budget = memory.needed_bytes(arch, method, 7 * 512 + 100)
    short = calibration.plan(dense, AWQ, DEFAULT, player, budget)
    assert len(free.sequences) > len(short.sequences) == 7
    assert short.memory_bytes <= budget and short.digest() != free.digest()
    with pytest.raises(DoesNotFit) as refused:
        calibration.plan(dense, AWQ, DEFAULT, player, 10**9)
    assert refused.value.facts["needed_bytes"] == memory.needed_bytes(arch, method, 2048)
    calibration.plan(dense, AWQ, DEFAULT, player, refused.value.facts["needed_bytes"])


def test_made_once_and_remembered(
    model: Path, player: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(player.store_dir)
    source = import_path(store, model, model="mine").artifact
    plain = convert_artifact(store, source, AWQ)
    plan = calibration.plan(source.path, AWQ, DEFAULT, player)
    told: list[tuple[str, int, int | None]] = []
    made = convert_artifact(
        store, source, AWQ, calibrator=plan, progress=lambda *facts: told.append(facts)
    )
    assert made.id != plain.id and list((store.root / "work").iterdir()) == []
    assert made.provenance["calibration"] == plan.digest()
    assert made.provenance["calibrated_with"] == "llm-compressor 0.14.0.1, awq"
    assert made.provenance["calibrated_on"] == f"default, {plan.tokens} tokens"
    labels = [label for label, _, _ in told]
    assert labels[0] == "calibrate" and "convert to safetensors:awq" in labels
    assert all(0 <= done <= (total or 0) for _, done, total in told)
    assert made_before(store, source, AWQ) == plain
    assert made_before(store, source, AWQ, None, plan) == made
    monkeypatch.setattr(running, "SCRIPT", Path("/nowhere"))
    assert convert_artifact(store, source, AWQ, calibrator=plan) == made


def test_unusable_layers_are_not_kept(
    dense: Path, player: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(player.store_dir)
    source = import_path(store, dense, model="mine").artifact
    plan = calibration.plan(source.path, AWQ, DEFAULT, player)
    good = running.SCRIPT.read_text("utf-8")
    spoilt = tmp_path / "spoilt.py"
    spoilt.write_text(good.replace("scales.astype(np.float32)", "scales * np.float32(np.inf)"))
    with monkeypatch.context() as patched:
        patched.setattr(running, "SCRIPT", spoilt)
        with pytest.raises(InvalidFile):
            convert_artifact(store, source, AWQ, calibrator=plan)
    assert list((store.root / "work").iterdir()) == []
    assert convert_artifact(store, source, AWQ, calibrator=plan).format == AWQ


def test_the_command(
    dense: Path, player: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, source = tmp_path / "out", str(dense)
    care = ("--calibrate", "default")
    code, said, _ = command(capfd, source, "--to", "gptq", *care, "-o", str(out), "--json")
    assert code == 0 and json.loads(said)["provenance"]["calibrated_with"].endswith("gptq")
    config = json.loads((out / "config.json").read_text("utf-8"))["quantization_config"]
    assert config["quant_method"] == "gptq" and config["desc_act"] is False
    assert (out / "tokenizer.json").read_bytes() == (dense / "tokenizer.json").read_bytes()
    code, _, err = command(capfd, source, "--to", "q4_k_m", *care)
    assert code == FormatUnavailable.exit_code and "--imatrix" in err
    short = tmp_path / "short.txt"
    short.write_text("Hi.")
    code, _, err = command(capfd, source, "--to", "awq", "--calibrate", str(short))
    assert code == UsageError.exit_code and "2,048" in err


def test_a_script_that_fails_leaves_nothing(
    dense: Path, player: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = calibration.plan(dense, AWQ, DEFAULT, player)
    script = tmp_path / "script.py"
    monkeypatch.setattr(running, "SCRIPT", script)
    ends = {
        "raise ValueError('no such number')": "ValueError: no such number (exit code 1)",
        "import os; os.kill(os.getpid(), 9)": "memory ran out (exit code -9)",
        "print('done')": "done (exit code 0)",  # without having said that it finished
        "": "it said nothing (exit code 0)",
    }
    for code, says in ends.items():
        script.write_text(code)
        with pytest.raises(EngineError) as failed:
            plan.run(tmp_path / "layers", lambda *_: None)
        assert says in failed.value.found
        assert not (tmp_path / "layers").exists()
    assert "exit code 0" in plan.log_path.read_text("utf-8")


KILLED = """
import sys
from pathlib import Path
from qwharf import calibration, settings
from qwharf.calibration import running
from qwharf.types import Format
running.SCRIPT = Path(sys.argv[1])
text = calibration.read_text("default")
plan = calibration.plan(Path(sys.argv[2]), Format("safetensors", "awq"), text, settings.load())
plan.run(Path(sys.argv[3]), lambda done, total: print(done, flush=True))
"""
SLOW = """
import os, sys, time
while True:
    print('qwharf-calibrate: {"layer": 0, "done": 1, "total": 2}', flush=True)
    time.sleep(0.05)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process as Unix does")
def test_killed_half_way(dense: Path, player: Settings, tmp_path: Path) -> None:
    slow, layers = tmp_path / "slow.py", tmp_path / "layers"
    slow.write_text(SLOW + f"    open({str(tmp_path / 'alive')!r}, 'w').close()\n")
    argv = [sys.executable, "-c", KILLED, str(slow), str(dense), str(layers)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert not layers.exists() and layers.with_name("layers.partial").exists()
    alive = tmp_path / "alive"
    for _ in range(200):  # whoever nobody listens to ends by itself
        alive.unlink(missing_ok=True)
        time.sleep(0.3)
        if not alive.exists():
            break
    else:
        pytest.fail("the script goes on alone")
    plan = calibration.plan(dense, AWQ, DEFAULT, player)
    plan.run(layers, lambda *_: None)
    assert layers.exists() and not layers.with_name("layers.partial").exists()
    shutil.rmtree(layers)


def test_what_the_script_says() -> None:
    assert running.said('qwharf-calibrate: {"done": 1}') == {"done": 1}
    for other in ("", "done", ' qwharf-calibrate: {"done": 1}', "qwharf-calibrate: 3"):
        assert running.said(other) == {}
