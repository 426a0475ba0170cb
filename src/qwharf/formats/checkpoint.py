"""A checkpoint folder in Hugging Face layout: configuration, weight files, template, defaults.

Numbers are read, never assumed: the defaults of transformers' classes match no released Qwen3, so a
missing key is an error. Both spellings are understood, the Hub's (``rope_theta``, ``torch_dtype``,
``num_experts``) and that of transformers 5 (``rope_parameters``, ``dtype``, ``num_local_experts``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qwharf.errors import InvalidFile, UnsupportedArchitecture
from qwharf.formats.safetensors import SafetensorsFile, TensorEntry, read_safetensors
from qwharf.types import Architecture, Format, Thinking

MAX_JSON_BYTES = 64 << 20
ARCHITECTURES = {"Qwen3ForCausalLM": "qwen3", "Qwen3MoeForCausalLM": "qwen3_moe"}


@dataclass(frozen=True)
class Checkpoint:
    """A read folder. Weight headers are read when first asked for."""

    folder: Path
    architecture: Architecture
    format: Format
    weight_files: tuple[Path, ...]
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    chat_template: str | None

    @cached_property
    def files(self) -> Mapping[Path, SafetensorsFile]:
        """Each weight file's header.

        Raises:
            InvalidFile: a file is damaged.
        """
        return {path: read_safetensors(path) for path in self.weight_files}

    @cached_property
    def tensors(self) -> Mapping[str, tuple[Path, TensorEntry]]:
        """Every tensor with its file.

        Raises:
            InvalidFile: a file is damaged, or two hold the same tensor.
        """
        found: dict[str, tuple[Path, TensorEntry]] = {}
        for path, file in self.files.items():
            for name, entry in file.tensors.items():
                if name in found:
                    raise InvalidFile(
                        str(path),
                        found=f"tensor {name}, which {found[name][0].name} has too",
                        expected="each tensor once",
                        hint="remove the weight files that do not belong together",
                    )
                found[name] = (path, entry)
        return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidFile: too large, not JSON, or not an object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InvalidFile(
                str(path), found=f"{path.stat().st_size:,} bytes", expected="at most 64 MiB"
            )
        data = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as e:
        raise InvalidFile(
            str(path), found=f"text that is not JSON ({e})", expected="JSON", hint="fetch it again"
        ) from e
    if not isinstance(data, dict):
        raise InvalidFile(str(path), found=f"a {type(data).__name__}", expected="a JSON object")
    return data


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a folder's configuration and find its weight files.

    Raises:
        InvalidFile: ``config.json`` or the weights are missing, damaged or incomplete.
        UnsupportedArchitecture: another architecture, named.
    """
    path = folder / "config.json"
    if not path.is_file():
        inside = sorted(p.name for p in folder.iterdir())[:5] if folder.is_dir() else []
        raise InvalidFile(
            str(folder),
            found="no config.json" + (f" beside {', '.join(inside)}" if inside else ""),
            expected="a checkpoint folder in Hugging Face layout",
            hint="name the folder that holds config.json, or a .gguf file",
        )
    config = read_json(path)
    generation = folder / "generation_config.json"
    return Checkpoint(
        folder=folder,
        architecture=architecture_from_config(config, file=str(path)),
        format=_format_of(config, path),
        weight_files=_weight_files(folder),
        config=config,
        generation_config=read_json(generation) if generation.is_file() else {},
        chat_template=chat_template_of(folder),
    )


def architecture_from_config(config: Mapping[str, Any], *, file: str) -> Architecture:
    """The numbers of a ``config.json``.

    Args:
        config: its content.
        file: its name, for errors.

    Raises:
        UnsupportedArchitecture: not a Qwen3; the architecture found is named.
        InvalidFile: a number is missing or impossible.
    """
    names = config.get("architectures")
    found = names[0] if isinstance(names, list) and names else config.get("model_type")
    kind = ARCHITECTURES.get(str(found), config.get("model_type") if names is None else None)
    if kind not in ("qwen3", "qwen3_moe"):
        raise UnsupportedArchitecture(
            file,
            found=f"architecture {found!r}",
            expected=" or ".join(ARCHITECTURES),
            hint="qwharf runs Qwen3 models and fine-tunes of them",
        )
    moe = kind == "qwen3_moe"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise _bad(file, "rope_parameters", rope, "an object")
    yarn = rope.get("rope_type", rope.get("type")) == "yarn"
    numbers = {
        key: _whole(config, key, file)
        for key in (
            "num_hidden_layers",
            "hidden_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "vocab_size",
            "max_position_embeddings",
        )
    }
    if moe:
        experts = "num_experts" if "num_experts" in config else "num_local_experts"
        numbers["num_experts"] = _whole(config, experts, file)
        numbers["num_experts_per_tok"] = _whole(config, "num_experts_per_tok", file)
        numbers["moe_intermediate_size"] = _whole(config, "moe_intermediate_size", file)
    if numbers["num_attention_heads"] % numbers["num_key_value_heads"]:
        raise _bad(
            file,
            "num_attention_heads",
            numbers["num_attention_heads"],
            f"a multiple of {numbers['num_key_value_heads']} KV heads",
        )
    theta = config.get("rope_theta", rope.get("rope_theta"))
    tied = config.get("tie_word_embeddings")
    if not isinstance(tied, bool):
        raise _bad(file, "tie_word_embeddings", tied, "true or false")
    return Architecture(
        model_type="qwen3_moe" if moe else "qwen3",
        # Present, but unused, in a mixture of experts.
        intermediate_size=_whole(config, "intermediate_size", file),
        tie_word_embeddings=tied,
        rope_theta=_real(theta, "rope_theta", file),
        rms_norm_eps=_real(config.get("rms_norm_eps"), "rms_norm_eps", file),
        bos_token_id=_token(config.get("bos_token_id")),
        eos_token_id=_token(config.get("eos_token_id")),
        yarn_factor=_real(rope.get("factor"), "factor", file) if yarn else None,
        yarn_original_context_tokens=(
            _whole(rope, "original_max_position_embeddings", file) if yarn else None
        ),
        **numbers,
    )


def _bad(file: str, key: str, value: object, expected: str) -> InvalidFile:
    found = f"no {key}" if value is None else f"{key} = {str(value)[:80]}"
    return InvalidFile(file, found=found, expected=expected, hint="fetch config.json again")


def _whole(config: Mapping[str, Any], key: str, file: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise _bad(file, key, value, f"{key}, a positive whole number")
    return value


def _real(value: Any, key: str, file: str) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value <= 0:
        raise _bad(file, key, value, f"{key}, a positive number")
    return float(value)


def _token(value: Any) -> int | None:
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# ----------------------------------------------------------------------------------------- format


def _format_of(config: Mapping[str, Any], path: Path) -> Format:
    """The format that ``config.json`` declares."""
    mlx = config.get("quantization")
    if isinstance(mlx, Mapping) and "bits" in mlx and "quant_method" not in mlx:
        return Format("mlx", f"{mlx['bits']}bit")
    quant = config.get("quantization_config")
    if not isinstance(quant, Mapping):
        dtype = str(config.get("torch_dtype", config.get("dtype", "bfloat16")))
        names = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
        if dtype not in names:
            raise _bad(str(path), "torch_dtype", dtype, " or ".join(names))
        return Format("safetensors", names[dtype])
    method = quant.get("quant_method")
    if method == "gptq":
        return Format("safetensors", f"gptq-int{quant.get('bits')}")
    if method in ("fp8", "awq", "compressed-tensors"):
        return Format("safetensors", str(method))
    raise _bad(str(path), "quant_method", method, "fp8, awq, gptq or compressed-tensors")


# ---------------------------------------------------------------------------------------- weights


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if index.is_file():
        mapping = read_json(index).get("weight_map")
        if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()):
            raise InvalidFile(
                str(index), found="no weight_map", expected="tensor names with their files"
            )
        names = sorted(set(mapping.values()))
        for name in names:
            # The index is data from outside: it may name files of this folder only.
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise InvalidFile(
                    str(index), found=f"weight file {name[:120]!r}", expected="plain file names"
                )
            if not (folder / name).is_file():
                raise InvalidFile(
                    str(folder / name),
                    found="no file",
                    expected=f"one of {len(names)} weight files that {index.name} names",
                    hint="fetch the missing file into the folder",
                )
        return tuple(folder / n for n in names)
    if single.is_file():
        return (single,)
    pickled = [p.name for p in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))]
    raise InvalidFile(
        str(folder),
        found=f"{pickled[0]}, which is a pickle" if pickled else "no model.safetensors",
        expected="safetensors weights",
        hint="qwharf never loads pickles, which can run code; get or save the safetensors version"
        if pickled
        else "fetch the weights into this folder",
    )


# --------------------------------------------------------------------------------------- template


def chat_template_of(folder: Path) -> str | None:
    """The chat template: ``chat_template.jinja``, else in ``tokenizer_config.json``.

    Raises:
        InvalidFile: ``tokenizer_config.json`` is damaged.
    """
    apart = folder / "chat_template.jinja"
    if apart.is_file():
        return apart.read_text("utf-8")
    path = folder / "tokenizer_config.json"
    template = read_json(path).get("chat_template") if path.is_file() else None
    if isinstance(template, list):  # several, by name
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def thinking_of(template: str | None) -> Thinking:
    """Which kind of thinking a chat template stands for.

    The hybrid template knows ``enable_thinking``; Thinking-2507 opens the thought itself at the end
    of the prompt; Instruct-2507 has no thought at all.
    """
    if template is None:
        return "hybrid"
    if "enable_thinking" in template:
        return "hybrid"
    if "add_generation_prompt" in template:
        end = template[template.rindex("add_generation_prompt") :]
        if "<think>" in end and "</think>" not in end:
            return "thinking"
    return "instruct"
