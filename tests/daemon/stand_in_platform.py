"""A platform over the stand-in engine; the artifact is the file that says how to behave."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from qwharf.errors import InvalidFile
from qwharf.platforms.base import Applied, Availability
from qwharf.types import Architecture, DeploymentSpec, Format, Launch, Sampling

ENGINE = Path(__file__).with_name("stand_in_engine.py")


class StandIn:
    name = "stand-in"
    version = "stand-in 1"

    def engine(self) -> str:
        return self.version

    def availability(self) -> Availability:
        return Availability(installed=True, version="1", where=str(ENGINE))

    def formats(self) -> tuple[Format, ...]:
        return (Format("gguf", "q8_0"),)

    def check(self, spec: DeploymentSpec) -> None:
        wish = json.loads(spec.artifact_path.read_text("utf-8"))
        if "refuse" in wish:
            raise InvalidFile(str(spec.artifact_path), found=wish["refuse"], expected="better")

    def launch(self, spec: DeploymentSpec, port: int) -> Launch:
        return Launch(
            argv=(sys.executable, "-I", "-S", str(ENGINE), str(spec.artifact_path), str(port)),
            base_url=f"http://127.0.0.1:{port}",
        )

    def phase(self, log_line: str) -> str | None:
        return log_line.removeprefix("phase: ") if log_line.startswith("phase: ") else None

    def applied(self, log: Iterable[str]) -> Applied:
        found = [int(x.split(" = ")[1]) for x in log if x.startswith("weights = ")]
        return Applied(weights_bytes=found[-1] if found else None)

    def explain(self, log: Sequence[str], exit_code: int | None) -> str:
        said = [x.removeprefix("error: ") for x in log if x.startswith("error: ")]
        return said[-1] if said else ""


def wish(folder: Path, name: str = "engine", **behaviour: Any) -> DeploymentSpec:
    """A spec whose engine behaves as told."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps(behaviour), "utf-8")
    return DeploymentSpec(
        name=name,
        platform="stand-in",
        model="pocket",
        thinking="hybrid",
        format=Format("gguf", "q8_0"),
        artifact_id="0" * 64,
        artifact_path=file,
        architecture=Architecture(
            model_type="qwen3",
            num_hidden_layers=2,
            hidden_size=64,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            intermediate_size=128,
            vocab_size=1000,
            tie_word_embeddings=True,
            max_position_embeddings=4096,
        ),
        context_tokens=1024,
        sampling={"thinking": Sampling(temperature=0.6, top_p=0.95, top_k=20)},
        expected_memory_bytes=5,
    )


def starts(spec: DeploymentSpec) -> list[tuple[int, int]]:
    """Process and port of every start of its engine so far."""
    file = spec.artifact_path.with_suffix(".starts")
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return [(int(pid), int(port)) for pid, port in map(str.split, lines)]
