"""The contract on the embedded engine and the pocket model, through daemon and gateway."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwharf import pipeline
from qwharf.daemon.client import DaemonClient
from qwharf.fit import Wishes
from qwharf.settings import Settings
from qwharf.types import Check, Deployment
from qwharf.verify import Reference, Target, run

pytestmark = pytest.mark.engines


class Silent:
    """An observer that keeps what it is told, for the message of a failing test."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def step(self, name: str, text: str) -> None:
        self.told.append((name, text))

    def progress(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """Bytes are of no interest."""

    def check(self, check: Check) -> None:
        self.told.append(check)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, Settings]]:
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings(data_dir=home / "data", state_dir=home / "state", port=port)
    request = pipeline.Request(model="pocket", wishes=Wishes(), only_checks=["models-listed"])
    try:
        yield pipeline.up(request, settings, Silent()).deployment, settings
    finally:
        DaemonClient(settings).shutdown()


def target_of(served: tuple[Deployment, Settings]) -> Target:
    deployment, settings = served
    client = DaemonClient(settings)
    spec = deployment.spec
    return Target(
        base_url=deployment.base_url,
        served_name=spec.name,
        model=spec.model,
        thinking=spec.thinking,
        context_tokens=spec.context_tokens,
        sampling=spec.sampling,
        reference=pipeline.reference(spec, settings),
        probe_url=client.probe_url(spec.name),
        probe_headers=client.headers(),
    )


def test_the_pocket_model_keeps_the_contract(served: tuple[Deployment, Settings]) -> None:
    report = run(target_of(served))
    assert not [c for c in report.checks if c.status == "fail"]
    skipped = {c.id for c in report.checks if c.status == "skip"}
    assert skipped <= {"thinking-absent", "thinking-stays-on", "tool-parallel"}


def only(target: Target, check: str) -> Check:
    (done,) = run(target, only={check}).checks
    return done


def test_another_template_is_noticed(served: tuple[Deployment, Settings]) -> None:
    """Line breaks more after the role (two: one more makes the same number of tokens here)."""
    target = target_of(served)
    assert target.reference is not None
    altered = target.reference.chat_template.replace("assistant\\n", "assistant\\n\\n\\n")
    assert altered != target.reference.chat_template
    other = replace(target, reference=Reference(altered, target.reference.tokenizer))
    for check in ("template-token-exact", "usage-counts"):
        assert only(target, check).status == "pass"
        assert only(other, check).status == "fail"
    unseen = replace(other, probe_url=None)
    assert only(unseen, "template-token-exact").status == "fail"


def test_another_context_is_noticed(served: tuple[Deployment, Settings]) -> None:
    target = target_of(served)
    assert target.context_tokens is not None
    more = replace(target, context_tokens=target.context_tokens * 2)
    less = replace(target, context_tokens=target.context_tokens // 2)
    assert "are refused" in only(more, "context-honoured").found
    assert "is not the promised" in only(less, "context-refused-beyond").found


def test_another_sampling_is_noticed(served: tuple[Deployment, Settings]) -> None:
    target = target_of(served)
    hot = {mode: replace(s, temperature=1.25) for mode, s in target.sampling.items()}
    found = only(replace(target, sampling=hot), "sampling-defaults")
    assert "not 1.25" in found.found


def test_a_gguf_alone_serves_as_reference(served: tuple[Deployment, Settings]) -> None:
    target = target_of(served)
    path = Path(served[0].spec.artifact_path)
    assert path.suffix == ".gguf"
    alone = replace(target, reference=Reference.load(path))
    assert only(alone, "template-token-exact").status == "pass"
