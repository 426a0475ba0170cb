"""Which tensor gets which type in a GGUF file of a given quantisation.

A quantisation such as Q4_K_M is a mix: most matrices take the base type, a few that matter more
take a better one. The rules here are those that llama.cpp's ``llama-quantize`` applies to the
Qwen3 architectures (``src/llama-quant.cpp``), with or without an importance matrix, written as
data. They are held against recorded output of that program in the tests.

Norms and the router are never quantised: they are F32 in every file. The special rules for models
of exactly eight experts are left out; no Qwen3 has eight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType

from qwharf.errors import UsageError
from qwharf.formats.ggml_types import GGML_TYPES, GgmlType
from qwharf.formats.tensors import TensorSpec, gguf_tensors
from qwharf.types import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a tensor stands, as far as the rules ask."""

    layer: int
    layers: int
    group: int
    """Query heads per key-value head."""
    experts: int

    @property
    def eighth(self) -> int:
        """Number of layers that count as the first eighth."""
        return self.layers // 8


When = Callable[[Place], bool]


def always(_: Place) -> bool:
    """In every layer."""
    return True


def more_bits(at: Place) -> bool:
    """The first and last eighth of the layers and every third one between."""
    first = at.eighth
    return at.layer < first or at.layer >= 7 * at.layers // 8 or (at.layer - first) % 3 == 2


def first_eighth(at: Place) -> bool:
    """The first eighth of the layers."""
    return at.layer < at.eighth


def middle(at: Place) -> bool:
    """All but the first and the last eighth of the layers."""
    return at.eighth <= at.layer < 7 * at.layers // 8


def grouped(at: Place) -> bool:
    """Four or more query heads share a key-value head."""
    return at.group >= 4


def grouped_or_experts(at: Place) -> bool:
    """As :func:`grouped`, or a mixture of four or more experts."""
    return at.group >= 4 or at.experts >= 4


def first_layers(count: int) -> When:
    """The first ``count`` layers."""
    return lambda at: at.layer < count


def first_sixteenth(at: Place) -> bool:
    """The first sixteenth of the layers."""
    return at.layer < at.layers // 16


Rules = tuple[tuple[When, str], ...]
"""Tried in order; the first that holds names the type, otherwise the base type stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """One quantisation: its id in ``general.file_type``, its base type and the exceptions."""

    file_type: int
    base: str
    output: str = "Q6_K"
    """Of ``output.weight``, or of ``token_embd.weight`` when it serves as the output too."""
    embedding: str | None = None
    """Of an untied ``token_embd.weight``; ``None``: the base type."""
    rules: MappingProxyType[str, Rules] = field(default_factory=lambda: MappingProxyType({}))
    """By the middle part of a layer's tensor name, ``attn_v``; experts follow the dense name."""
    experts: str | None = None
    """Of all expert tensors, where they differ from the rest whatever the layer."""
    needs_importance: bool = False
    """The program refuses to make it without an importance matrix."""
    weighted: MappingProxyType[str, Rules] = field(default_factory=lambda: MappingProxyType({}))
    """In place of those of :attr:`rules` where there is an importance matrix."""


def _rules(**by_tensor: Rules | str) -> MappingProxyType[str, Rules]:
    return MappingProxyType(
        {k: ((always, v),) if isinstance(v, str) else v for k, v in by_tensor.items()}
    )


MIXES: MappingProxyType[str, Mix] = MappingProxyType(
    {
        "f32": Mix(file_type=0, base="F32", output="F32"),
        "f16": Mix(file_type=1, base="F16", output="F16"),
        "bf16": Mix(file_type=32, base="BF16", output="BF16"),
        "q8_0": Mix(file_type=7, base="Q8_0", output="Q8_0"),
        "q6_k": Mix(file_type=18, base="Q6_K"),
        "q5_k_m": Mix(
            file_type=17,
            base="Q5_K",
            rules=_rules(attn_v=((more_bits, "Q6_K"),), ffn_down=((more_bits, "Q6_K"),)),
        ),
        "q5_k_s": Mix(file_type=16, base="Q5_K"),
        "q5_1": Mix(file_type=9, base="Q5_1"),
        "q5_0": Mix(file_type=8, base="Q5_0", weighted=_rules(ffn_down=((first_eighth, "Q5_1"),))),
        "q4_k_m": Mix(
            file_type=15,
            base="Q4_K",
            rules=_rules(attn_v=((more_bits, "Q6_K"),), ffn_down=((more_bits, "Q6_K"),)),
        ),
        "q4_k_s": Mix(
            file_type=14,
            base="Q4_K",
            rules=_rules(attn_v=((first_layers(4), "Q5_K"),), ffn_down=((first_eighth, "Q5_K"),)),
        ),
        "q4_1": Mix(file_type=3, base="Q4_1"),
        "q4_0": Mix(file_type=2, base="Q4_0", weighted=_rules(ffn_down=((first_eighth, "Q4_1"),))),
        "iq4_nl": Mix(
            file_type=25,
            base="IQ4_NL",
            rules=_rules(attn_v=((grouped, "Q5_K"),), ffn_down=((first_eighth, "Q5_K"),)),
            weighted=_rules(ffn_down=()),
        ),
        "iq4_xs": Mix(
            file_type=30,
            base="IQ4_XS",
            rules=_rules(attn_v=((grouped, "Q5_K"),), ffn_down=((first_eighth, "Q5_K"),)),
            weighted=_rules(ffn_down=()),
        ),
        "mxfp4_moe": Mix(
            file_type=38, base="Q8_0", output="Q8_0", embedding="Q8_0", experts="MXFP4"
        ),
        "q3_k_l": Mix(
            file_type=13,
            base="Q3_K",
            rules=_rules(attn_v="Q5_K", attn_output="Q5_K", ffn_down="Q5_K"),
        ),
        "q3_k_m": Mix(
            file_type=12,
            base="Q3_K",
            rules=_rules(
                attn_v=((first_layers(2), "Q5_K"), (always, "Q4_K")),
                attn_output="Q4_K",
                ffn_down=((first_sixteenth, "Q5_K"), (always, "Q4_K")),
            ),
        ),
        "q3_k_s": Mix(file_type=11, base="Q3_K"),
        "iq3_m": Mix(
            file_type=27,
            base="IQ3_S",
            rules=_rules(attn_v="Q4_K", attn_output="Q4_K", ffn_down=((first_eighth, "Q4_K"),)),
        ),
        "iq3_s": Mix(file_type=26, base="IQ3_S", rules=_rules(attn_v=((grouped, "Q4_K"),))),
        "iq3_xs": Mix(
            file_type=22,
            base="IQ3_S",
            needs_importance=True,
            rules=_rules(
                attn_v=((grouped, "Q4_K"),),
                attn_q="IQ3_XXS",
                attn_k="IQ3_XXS",
                ffn_gate=((middle, "IQ3_XXS"),),
                ffn_up=((middle, "IQ3_XXS"),),
            ),
        ),
        "iq3_xxs": Mix(
            file_type=23,
            base="IQ3_XXS",
            output="Q5_K",
            embedding="IQ3_S",
            needs_importance=True,
            rules=_rules(
                attn_v=((grouped, "Q4_K"),),
                attn_output="IQ3_S",
                attn_q="IQ2_S",
                attn_k="IQ2_S",
            ),
        ),
        "q2_k": Mix(
            file_type=10,
            base="Q2_K",
            rules=_rules(
                attn_v=((grouped, "Q4_K"), (always, "Q3_K")), attn_output="Q3_K", ffn_down="Q3_K"
            ),
        ),
        "q2_k_s": Mix(
            file_type=21,
            base="Q2_K",
            needs_importance=True,
            rules=_rules(attn_v=((grouped, "Q4_K"),), ffn_down=((first_eighth, "Q4_K"),)),
        ),
        **{
            name: Mix(
                file_type=file_type,
                base=base,
                output="Q5_K",
                embedding="IQ3_S",
                needs_importance=True,
                rules=_rules(
                    attn_v=((grouped_or_experts, "Q4_K"), (always, "IQ3_S")),
                    attn_output="IQ3_S",
                    ffn_down=((first_eighth, "IQ3_S"),),
                ),
            )
            for name, file_type, base in (("iq2_m", 29, "IQ2_S"), ("iq2_s", 28, "IQ2_XS"))
        },
        **{
            name: Mix(
                file_type=file_type,
                base=base,
                output="Q5_K",
                embedding="Q2_K",
                needs_importance=True,
                rules=_rules(
                    attn_v=((grouped_or_experts, "Q4_K"), (always, "Q2_K")),
                    ffn_down=((first_eighth, "Q2_K"),),
                    **({"attn_output": "IQ2_XXS"} if name.startswith("iq1") else {}),
                ),
            )
            for name, file_type, base in (
                ("iq2_xs", 20, "IQ2_XS"),
                ("iq2_xxs", 19, "IQ2_XXS"),
                ("iq1_m", 31, "IQ1_M"),
                ("iq1_s", 24, "IQ1_S"),
            )
        },
    }
)
"""All quantisations by lower-case name, best first. Where ``needs_importance`` is set, the mix is
the one made with an importance matrix."""

FALLBACK: MappingProxyType[str, str] = MappingProxyType(
    {
        "Q6_K": "Q8_0",
        "Q5_K": "Q5_1",
        "Q4_K": "Q5_0",
        "Q3_K": "Q4_0",
        "Q2_K": "Q4_0",
        **dict.fromkeys(
            ("IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"), "IQ4_NL"
        ),
    }
)
"""What a type of 256-element blocks becomes where the rows are not a multiple of 256 long."""


def mix_of(quantization: str) -> Mix:
    """The mix named ``quantization`` (``q4_k_m``, in any case).

    Raises:
        UsageError: there is none of that name.
    """
    mix = MIXES.get(quantization.lower())
    if mix is None:
        raise UsageError(
            quantization, found=quantization, expected=f"one of {', '.join(MIXES)}", hint=""
        )
    return mix


def tensor_types(
    arch: Architecture, quantization: str, *, weighted: bool = False
) -> list[tuple[TensorSpec, GgmlType]]:
    """Every tensor of a GGUF file of ``arch``, in file order, with its type.

    Args:
        arch: the model; a tied one has no ``output.weight``.
        quantization: a key of :data:`MIXES`.
        weighted: whether it is made with an importance matrix.

    Raises:
        UsageError: no such quantisation.
    """
    mix = mix_of(quantization)
    return [(spec, _type_of(spec, arch, mix, weighted)) for spec in gguf_tensors(arch)]


def tensor_type(
    spec: TensorSpec, arch: Architecture, quantization: str, *, weighted: bool = False
) -> GgmlType:
    """The type of one tensor; see :func:`tensor_types`."""
    return _type_of(spec, arch, mix_of(quantization), weighted)


def _type_of(spec: TensorSpec, arch: Architecture, mix: Mix, weighted: bool) -> GgmlType:
    if len(spec.shape) < 2 or "_norm." in spec.name or "ffn_gate_inp." in spec.name:
        return GGML_TYPES["F32"]
    base = GGML_TYPES[mix.base]
    wanted = GGML_TYPES[_wanted(spec, arch, mix, base, weighted)]
    columns = spec.shape[-1]
    if columns % wanted.block_elements:
        wanted = GGML_TYPES[FALLBACK.get(wanted.name, wanted.name)]
    if columns % wanted.block_elements:
        wanted = GGML_TYPES["F16"]
    return wanted


def _wanted(spec: TensorSpec, arch: Architecture, mix: Mix, base: GgmlType, weighted: bool) -> str:
    name = spec.name.removesuffix(".weight")
    if name == "output" or (name == "token_embd" and arch.tie_word_embeddings):
        # A row that the base type cannot hold costs the output its own type, even when that one
        # has smaller blocks.
        return "Q8_0" if spec.shape[-1] % base.block_elements else mix.output
    if name == "token_embd":
        return mix.embedding or mix.base
    _, layer, part = name.split(".", 2)
    if mix.experts and part.endswith("_exps"):
        return mix.experts
    at = Place(
        layer=int(layer),
        layers=arch.num_hidden_layers,
        group=arch.num_attention_heads // arch.num_key_value_heads,
        experts=arch.num_experts,
    )
    part = part.removesuffix("_exps")
    rules = mix.weighted if weighted and part in mix.weighted else mix.rules
    for holds, type_name in rules.get(part, ()):
        if holds(at):
            return type_name
    return mix.base
