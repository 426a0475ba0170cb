"""Nouns survive the trip to JSON and back, and nonsense is named."""

import dataclasses
import json
from pathlib import Path

import pytest

from qwharf.codec import decode, encode
from qwharf.types import (
    Architecture,
    Check,
    Deployment,
    DeploymentSpec,
    Format,
    Hardware,
    Model,
    Report,
    Sampling,
)
from qwharf.types import Cpu as CpuFacts

ARCH = Architecture(
    model_type="qwen3",
    num_hidden_layers=28,
    hidden_size=1024,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    intermediate_size=3072,
    vocab_size=151_936,
    tie_word_embeddings=True,
    max_position_embeddings=40_960,
)
SPEC = DeploymentSpec(
    name="a",
    platform="llama.cpp",
    model="qwen3:0.6b",
    thinking="hybrid",
    format=Format("gguf", "q8_0"),
    artifact_id="00",
    artifact_path=Path("/models/a.gguf"),
    architecture=ARCH,
    context_tokens=4096,
    sampling={"thinking": Sampling(temperature=0.6, top_p=0.95, top_k=20)},
)


@pytest.mark.parametrize(
    "noun",
    [
        SPEC,
        Deployment(spec=SPEC, state="ready", base_url="http://127.0.0.1:1/v1", ready_at=1.5),
        Hardware(
            system="Linux",
            cpu=CpuFacts(
                name=None,
                machine="x86_64",
                physical_cores=None,
                logical_cores=2,
                usable_cores=1.5,
                instruction_sets=frozenset({"avx2"}),
            ),
            memory_total_bytes=1,
            memory_available_bytes=None,
        ),
        Report(
            deployment="a",
            base_url="u",
            model="m",
            thinking="hybrid",
            created_at=1.0,
            checks=(Check(id="i", title="t", status="pass", expected="e", found="f", meaning="m"),),
            spec=SPEC,
        ),
        Model(
            name="m",
            title="M",
            architecture=ARCH,
            thinking="hybrid",
            sampling={},
            native_context_tokens=1,
            max_context_tokens=2,
            license="apache-2.0",
            path=Path("x"),
        ),
    ],
)
def test_round_trip(noun: object) -> None:
    text = json.dumps(encode(noun))
    assert decode(type(noun), json.loads(text)) == noun


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"platfrom": "x"}, "platfrom"),
        ({"context_tokens": "4096"}, "context_tokens"),
        ({"context_tokens": True}, "context_tokens"),
        ({"format": "zip:q8"}, "format"),
        ({"thinking": "maybe"}, "thinking"),
        ({"architecture": 3}, "architecture"),
        ({"sampling": {"thinking": {"temperature": "hot"}}}, "sampling"),
    ],
)
def test_nonsense_is_named(change: dict[str, object], named: str) -> None:
    data = {**encode(SPEC), **change}
    with pytest.raises(ValueError, match=named):
        decode(DeploymentSpec, data)


def test_a_missing_field_is_named() -> None:
    data = encode(SPEC)
    del data["name"]
    with pytest.raises(ValueError, match="name"):
        decode(DeploymentSpec, data)


def test_every_noun_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.name = "b"  # type: ignore[misc]
