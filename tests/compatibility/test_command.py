"""`qwharf platforms`, and what `up` says of a platform that is not here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qwharf import compatibility, platforms, survey
from qwharf.cli.main import main
from qwharf.errors import UsageError
from qwharf.fit import Engine
from qwharf.platforms import Availability
from qwharf.types import Cpu, Gpu, Hardware

TWO_H100 = Path(__file__).parents[2] / "docs" / "hardware" / "two-h100.toml"


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> object:
    """One command with an empty home and nothing installed; gives exit code, output, errors."""
    monkeypatch.setenv("QWHARF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setenv("LMS_SERVER_HOST", "127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("QWHARF_PORT", "18399")

    def once(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(argv))
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return once


def test_all_platforms_of_this_machine(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("platforms", "--json")
    assert code == 0
    rows = {x["name"]: x for x in json.loads(out)}
    assert set(rows) == set(compatibility.names())
    assert rows["llama.cpp"]["installed"] is True
    assert "gguf:q4_k_m" in rows["llama.cpp"]["formats"]
    assert rows["vllm"]["installed"] is False
    assert "qwharf engine install vllm" in rows["vllm"]["hint"]


def test_the_table(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("platforms", "--hardware", str(TWO_H100))
    assert code == 0
    line = next(x for x in out.splitlines() if x.startswith("sglang"))
    assert "nvidia" in line
    assert "fp8" in line
    assert "not installed" not in out, "of another machine it is not known"


def test_one_platform_with_the_sources(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("platforms", "lm-studio")
    assert code == 0
    assert "read" in out
    assert "lmstudio-ai/docs" in out
    assert "LoRA adapters by name: no, LM Studio has no way" in out
    assert "LoRA adapters by name: yes" in run("platforms", "llama.cpp")[1]
    cells = json.loads(run("platforms", "vllm", "--json")[1])["cells"]
    assert len(cells) == len(compatibility.facts("vllm").cells)
    assert all(c["source"] for c in cells)


def test_a_misspelt_platform(run) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("platforms", "tensorrt")
    assert code == 2
    assert "vllm" in err


def test_up_on_what_is_not_installed_fetches_nothing(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("up", "qwen3:0.6b", "--platform", "sglang", "--format", "bf16")
    assert code in (5, 9)
    assert "hint:" in err
    assert not (tmp_path / "home").exists()


def test_hardware_is_for_rehearsals(run) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("up", "qwen3:0.6b", "--hardware", str(TWO_H100))
    assert code == 2
    assert "--dry-run" in err


def test_a_rehearsal_in_json(run) -> None:  # type: ignore[no-untyped-def]
    words = ["up", "qwen3:30b-a3b", "--hardware", str(TWO_H100), "--dry-run", "--json"]
    child = json.loads(run(*words, "--platform", "sglang")[1])
    assert child["plan"]["platform"] == "sglang"
    assert "--model-path" in child["launch"]["argv"]
    assert child["steps"] is None
    service = json.loads(run(*words, "--platform", "ollama")[1])
    assert service["launch"] is None
    assert {"link", "write", "request"} <= {step["what"] for step in service["steps"]}


# ------------------------------------------------------------------------------------ surveying


NO_CARD = Hardware(
    system="Linux",
    cpu=Cpu(name=None, machine="x86_64", physical_cores=4, logical_cores=8, usable_cores=8.0),
    memory_total_bytes=32 * 2**30,
    memory_available_bytes=32 * 2**30,
)
CARD = replace(
    NO_CARD,
    gpus=(
        Gpu(
            index=0,
            vendor="nvidia",
            name="a card",
            memory_total_bytes=24 * 2**30,
            memory_free_bytes=24 * 2**30,
            compute_capability=(8, 9),
        ),
    ),
)


class Stub:
    """A platform that is found, or not, or cannot be asked."""

    def __init__(self, answer: Availability | None) -> None:
        self.answer = answer
        self.asked = 0

    def availability(self) -> Availability:
        self.asked += 1
        if self.answer is None:
            raise UsageError("OLLAMA_HOST", found="nonsense", expected="an address")
        return self.answer


def found(version: str | None) -> Availability:
    return Availability(installed=version is not None, version=version, where=None)


def test_each_platform_is_asked_once_and_only_when_it_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stubs = {"llama.cpp": Stub(found("1")), "ollama": Stub(found("2")), "lmstudio": Stub(None)}
    monkeypatch.setattr(platforms, "get", stubs.__getitem__)
    installed = survey.Installed(tuple(stubs), NO_CARD)
    assert stubs["ollama"].asked == 0
    assert installed["ollama"] == Engine(version="2", gpu=True)
    assert "lmstudio" not in installed, "which cannot be asked"
    assert "tensorrt" not in installed
    assert list(installed) == ["llama.cpp", "ollama"]
    assert len(installed) == 2
    assert [s.asked for s in stubs.values()] == [1, 1, 1]


def install_build(home: Path, variant: str) -> None:
    """An installation as `qwharf engine install llama.cpp` leaves it, without the engine."""
    folder = home / "data" / "engines" / "llama.cpp" / variant
    folder.mkdir(parents=True)
    manifest = {"schema": 1, "variant": variant, "compiled": True, "detail": "a build"}
    (folder / "engine.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("installed", "machine", "build", "gpu"),
    [
        ((), NO_CARD, None, False),
        (("native",), NO_CARD, "native", False),
        (("cuda",), NO_CARD, None, False),
        (("native", "vulkan"), CARD, "vulkan", True),
        (("cuda", "vulkan"), CARD, "cuda", True),
        (("native",), CARD, "native", False),
        (("rocm",), CARD, None, False),
    ],
)
def test_the_build_of_llama_cpp_for_this_hardware(
    installed: tuple[str, ...],
    machine: Hardware,
    build: str | None,
    gpu: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QWHARF_HOME", str(tmp_path))
    for variant in installed:
        install_build(tmp_path, variant)
    found = survey.means(machine).engine("llama.cpp")
    assert (found.build, found.gpu) == (build, gpu)
