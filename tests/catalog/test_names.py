"""What people call a model."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf import catalog
from qwharf.catalog import Resolved
from qwharf.errors import InvalidFile, QwharfError, UnknownModel, UnsupportedArchitecture
from qwharf.formats.names import FORMATS
from qwharf.testing import TINY, write_synthetic_checkpoint
from qwharf.types import Format


def said(found: Resolved) -> tuple[str, str | None]:
    return found.model.name, None if found.format is None else str(found.format)


@pytest.mark.parametrize(
    ("text", "model", "format"),
    [
        ("qwen3:8b", "qwen3:8b", None),
        ("Qwen3-8B", "qwen3:8b", None),
        ("qwen3 8b", "qwen3:8b", None),
        ("qwen-3-8b", "qwen3:8b", None),
        ("Qwen/Qwen3-8B", "qwen3:8b", None),
        ("https://huggingface.co/Qwen/Qwen3-8B", "qwen3:8b", None),
        ("https://www.modelscope.cn/models/Qwen/Qwen3-8B/", "qwen3:8b", None),
        ("hf://Qwen/Qwen3-0.6B", "qwen3:0.6b", None),
        ("Qwen/Qwen3-8B-AWQ", "qwen3:8b", "safetensors:awq"),
        ("Qwen/Qwen3-8B-FP8", "qwen3:8b", "safetensors:fp8"),
        ("Qwen/Qwen3-30B-A3B-GPTQ-Int4", "qwen3:30b-a3b", "safetensors:gptq-int4"),
        ("Qwen/Qwen3-1.7B-GPTQ-Int8", "qwen3:1.7b", "safetensors:gptq-int8"),
        ("Qwen/Qwen3-4B-MLX-4bit", "qwen3:4b", "mlx:4bit"),
        ("Qwen/Qwen3-8B-GGUF", "qwen3:8b", "gguf:q4_k_m"),
        ("Qwen/Qwen3-0.6B-GGUF", "qwen3:0.6b", "gguf:q8_0"),
        ("hf.co/Qwen/Qwen3-8B-GGUF:Q8_0", "qwen3:8b", "gguf:q8_0"),
        ("Qwen3-8B-GGUF:Q5_K_M", "qwen3:8b", "gguf:q5_k_m"),
        ("qwen3:8b-q4_K_M", "qwen3:8b", "gguf:q4_k_m"),
        ("qwen3:8b-fp16", "qwen3:8b", "gguf:f16"),
        ("ollama.com/library/qwen3:8b", "qwen3:8b", None),
        ("qwen/qwen3-8b@q4_k_m", "qwen3:8b", "gguf:q4_k_m"),
        ("qwen/qwen3-8b", "qwen3:8b", None),
        ("qwen3:30b", "qwen3:30b-a3b", None),
        ("qwen3:30b-a3b-instruct-2507", "qwen3:30b-a3b-instruct-2507", None),
        ("qwen3:4b-instruct-2507-q4_K_M", "qwen3:4b-instruct-2507", "gguf:q4_k_m"),
        ("Qwen/Qwen3-4B-Thinking-2507-FP8", "qwen3:4b-thinking-2507", "safetensors:fp8"),
        ("qwen3:235b", "qwen3:235b-a22b", None),
        (
            "ggml-org/Qwen3-4B-Instruct-2507-Q8_0-GGUF",
            "qwen3:4b-instruct-2507",
            "gguf:q8_0",
        ),
        ("  QWEN3:8B ", "qwen3:8b", None),
    ],
)
def test_names_people_use(text: str, model: str, format: str | None) -> None:
    assert said(catalog.resolve(text)) == (model, format)


def test_every_name_and_title_and_repository_resolves_to_its_model() -> None:
    for model in catalog.models():
        for text in (model.name, model.title, *model.aliases):
            assert catalog.find(text) == model
            assert catalog.find(text.upper()) == model
            assert catalog.find(text.replace(":", "-")) == model
        for repository in model.repositories:
            found = catalog.resolve(repository.repo_id)
            assert found.model == model
            if repository.format.container != "gguf":
                assert found.format in (repository.format, None)


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("qwen3:9b", "qwen3:8b"),
        ("qwen3:80b", "qwen3:8b"),
        ("qwen3:32", "qwen3:32b"),
        ("qwne3:8b", "qwen3:8b"),
        ("qwen3", "qwen3:8b"),
        ("Qwen3-30B-A3", "qwen3:30b-a3b"),
        ("qwen3:30b-a3b-instuct-2507", "qwen3:30b-a3b-instruct-2507"),
        ("qwen3:8b-q4_k_x", "qwen3:8b"),
        ("Qwen/Qwen3-8B-Base", "qwen3:8b"),
        ("unsloth/Qwen3-8B-GGUF", "qwen3:8b"),
    ],
)
def test_a_misspelling_gets_a_suggestion(text: str, suggestion: str) -> None:
    with pytest.raises(UnknownModel) as error:
        catalog.resolve(text)
    assert suggestion in error.value.facts["suggestions"]
    assert error.value.hint


@pytest.mark.parametrize("text", ["llama3:8b", "", "   ", "x" * 5000, "qwen2.5:7b-q4", "\0"])
def test_what_is_nothing_of_ours(text: str) -> None:
    with pytest.raises(UnknownModel) as error:
        catalog.resolve(text)
    assert "qwharf models" in error.value.hint or error.value.facts["suggestions"]


def test_every_suggestion_works() -> None:
    for text in ("qwen3:9b", "qwen3", "qwen3:8b-q4_k_x", "Qwen/Qwen3-14B-Base"):
        with pytest.raises(UnknownModel) as error:
            catalog.resolve(text)
        for suggestion in error.value.facts["suggestions"]:
            assert catalog.resolve(suggestion)


# ------------------------------------------------------------------------------------------ paths


def test_a_folder_leaves_the_format_open(tmp_path: Path) -> None:
    write_synthetic_checkpoint(TINY, tmp_path / "my-model", vocab="tiny")
    found = catalog.resolve(str(tmp_path / "my-model"))
    assert said(found) == ("my-model", None)
    assert found.model.path == tmp_path / "my-model"
    assert found.model.path_format == Format("safetensors", "bf16")
    assert found.model.native_context_tokens == TINY.max_position_embeddings


def test_a_gguf_file_is_run_as_it_is(tmp_path: Path) -> None:
    from qwharf.artifacts.convert import convert

    write_synthetic_checkpoint(TINY, tmp_path / "hf", vocab="tiny")
    convert(tmp_path / "hf", Format("gguf", "q4_k_m"), tmp_path / "mine.gguf")
    found = catalog.resolve(str(tmp_path / "mine.gguf"))
    assert said(found) == ("mine", "gguf:q4_k_m")


def test_a_plain_name_is_the_catalogues_before_it_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_synthetic_checkpoint(TINY, Path("qwen3-8b"), vocab="tiny")
    write_synthetic_checkpoint(TINY, Path("other"), vocab="tiny")
    assert catalog.find("qwen3-8b").name == "qwen3:8b"
    assert catalog.find("./qwen3-8b").path == tmp_path / "qwen3-8b"
    assert catalog.find("other").path == tmp_path / "other"


def test_a_fine_tune_has_the_context_of_its_shape(tmp_path: Path) -> None:
    """Seen from its configuration alone: no weights of that size are written."""
    from dataclasses import replace

    from qwharf.catalog.local import _model

    eight = catalog.find("qwen3:8b")
    mine = _model(
        tmp_path,
        name="mine",
        architecture=replace(eight.architecture, vocab_size=151_669),
        thinking="hybrid",
        format=Format("safetensors", "bf16"),
        license="mine",
    )
    assert mine.native_context_tokens == 32_768
    assert mine.max_context_tokens == 131_072
    assert "Qwen3-8B" in mine.note


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    for text in ("./missing", str(tmp_path / "missing.gguf"), "~/surely/not/here", "missing.gguf"):
        with pytest.raises(UnknownModel) as error:
            catalog.resolve(text)
        assert "no such folder or file" in error.value.found


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile):
        catalog.resolve(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["Llama"]}')
    with pytest.raises(UnsupportedArchitecture):
        catalog.resolve(str(tmp_path))


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"PK\3\4" * 100)
    with pytest.raises(InvalidFile):
        catalog.resolve(str(tmp_path / "x.gguf"))


# ------------------------------------------------------------------------------------- properties

NAMES = [m.name for m in catalog.models() if m.name != "pocket"]
TITLES = {m.name: m.title for m in catalog.models()}


@given(
    name=st.sampled_from(NAMES),
    joint=st.sampled_from(["-", ":", " ", "@"]),
    host=st.sampled_from(
        ["", "Qwen/", "hf.co/Qwen/", "https://huggingface.co/Qwen/", "hf://Qwen/"]
    ),
    upper=st.booleans(),
    format=st.none() | st.sampled_from([f for f in FORMATS if f.container == "gguf"]),
)
def test_any_dress_of_a_name(
    name: str, joint: str, host: str, upper: bool, format: Format | None
) -> None:
    text = host + TITLES[name]
    if format is not None:
        text += joint + format.quantization
    text = text.upper() if upper else text
    found = catalog.resolve(text)
    assert found.model.name == name
    # bf16, f16 and f32 by themselves mean the weights as they were released.
    if format is not None and format.quantization not in ("bf16", "f16", "f32"):
        assert found.format == format


@given(st.text(max_size=60))
def test_any_text_is_a_model_or_an_error_with_a_hint(text: str) -> None:
    try:
        found = catalog.resolve(text)
    except QwharfError as error:
        assert error.hint or isinstance(error, InvalidFile)
    else:
        assert found.model.name


@given(st.sampled_from(NAMES), st.integers(0, 40), st.characters(codec="ascii"))
def test_one_wrong_letter(name: str, at: int, letter: str) -> None:
    broken = name[: at % len(name)] + letter + name[at % len(name) + 1 :]
    try:
        found = catalog.resolve(broken)
    except UnknownModel as error:
        assert error.hint
    except InvalidFile:
        pass
    else:
        assert found.model.name in NAMES
