"""What is unusual about a model, by comparison with what Qwen released.

Each check is a function from what was found to remarks; none reads a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from qwharf.errors import UsageError
from qwharf.formats.tensors import TensorSpec
from qwharf.inspection.report import Context, Oddity, Template, Tensor, Vocabulary
from qwharf.types import Architecture, Format, Mode, Sampling

SHOWN = 3


def some(names: Sequence[str], shown: int = SHOWN) -> str:
    """``a, b, c and 5 more``."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")


def of_names(
    found: Mapping[str, tuple[int, ...]], wanted: Iterable[TensorSpec], *, tied: bool, head: str
) -> Iterator[Oddity]:
    """Missing, unknown and misshapen tensors.

    Args:
        found: logical shapes by name.
        wanted: what the architecture has.
        tied: whether the embedding is the output matrix too.
        head: the output matrix's name.
    """
    specs = {spec.name: spec for spec in wanted}
    missing = [name for name in specs if name not in found]
    if missing:
        yield Oddity(
            what=f"{_count(missing, 'tensor')} of {len(specs):,} missing: {some(missing)}",
            meaning="no engine will load it; fetch the rest",
        )
    extra = [name for name in found if name not in specs and not (tied and name == head)]
    if extra:
        yield Oddity(
            what=f"{_count(extra, 'tensor')} that no Qwen3 has: {some(extra)}",
            meaning="engines refuse or ignore them",
        )
    wrong = [
        f"{name} {list(found[name])} instead of {list(spec.shape)}"
        for name, spec in specs.items()
        if name in found and found[name] and found[name] != spec.shape
    ]
    if wrong:
        yield Oddity(
            what=f"{_count(wrong, 'tensor')} of another shape than the configuration says: "
            + some(wrong),
            meaning="the configuration belongs to another model",
        )
    if tied and head in found:
        yield Oddity(
            what=f"{head} is stored although the embeddings are tied",
            meaning="a copy of the embedding, as Qwen's 0.6B and 1.7B have; left out in conversion",
        )


def of_mix(
    tensors: Sequence[Tensor], arch: Architecture, format: Format, *, weighted: bool
) -> Iterator[Oddity]:
    """GGUF types other than those that llama-quantize gives that quantisation.

    Args:
        tensors: of the file.
        arch: the model.
        format: what the file says that it is.
        weighted: whether it was made with an importance matrix.
    """
    from qwharf.quantize.mixing import tensor_types

    try:
        usual_types = tensor_types(arch, format.quantization, weighted=weighted)
    except UsageError:
        return
    mix = {spec.name: type.name for spec, type in usual_types}
    differing: dict[tuple[str, str], list[str]] = {}
    for t in tensors:
        usual = mix.get(t.name, t.type)
        if t.type != usual and "norm" not in t.kind:
            differing.setdefault((t.kind, t.type), []).append(usual)
    for (kind, found), others in sorted(differing.items()):
        yield Oddity(
            what=f"{kind} is {found} in {_count(others, 'tensor')}, where "
            f"{format.quantization.upper()} has {' or '.join(sorted(set(others)))}",
            meaning="another mix than llama-quantize's; size and quality are its maker's choice",
        )


def of_vocabulary(vocabulary: Vocabulary | None, rows: int | None) -> Iterator[Oddity]:
    """Another vocabulary, added tokens, an unusual end."""
    if vocabulary is None:
        yield Oddity(what="no tokenizer", meaning="it cannot be run or converted alone")
        return
    if not vocabulary.is_qwen3:
        missing = f"; without {some(vocabulary.missing)}" if vocabulary.missing else ""
        yield Oddity(
            what=f"another vocabulary than Qwen3's: {vocabulary.tokens:,} tokens{missing}",
            meaning="its tokenizer must travel with it; drafts of the family do not match it",
        )
    if vocabulary.added:
        yield Oddity(
            what=f"{_count(vocabulary.added, 'added token')}: {some(vocabulary.added, 8)}",
            meaning="a fine-tune's own",
        )
    if rows is not None and vocabulary.largest_id >= rows:
        yield Oddity(
            what=f"token ids up to {vocabulary.largest_id:,}, but {rows:,} rows of the embedding",
            meaning="some tokens have no row: engines will refuse it or crash",
        )
    if vocabulary.end is None:
        yield Oddity(what="no end token", meaning="answers will not end by themselves")
    elif vocabulary.end != "<|im_end|>":
        yield Oddity(
            what=f"its end token is {vocabulary.end}, not <|im_end|>",
            meaning="a base model, or a fine-tune saved with the wrong one: answers may not end",
        )


def of_template(template: Template | None) -> Iterator[Oddity]:
    """No template, or another than Qwen's."""
    if template is None:
        yield Oddity(
            what="no chat template", meaning="a base model, or its tokenizer files are incomplete"
        )
    elif template.kind is None:
        yield Oddity(
            what="a chat template unlike any of Qwen3's",
            meaning="thinking, tools and history may not work as the model learnt them",
        )
    elif template.differs_in:
        yield Oddity(
            what=f"the chat template differs from {template.kind}'s in "
            f"{len(template.differs_in)} of {template.conversations} conversations: "
            + some(template.differs_in),
            meaning="harmless if the fine-tune was trained with it, harmful if not",
        )


GENERATION = ("temperature", "top_p", "top_k", "min_p", "presence_penalty")


def of_generation(
    generation: Mapping[str, Any], recommended: Mapping[Mode, Sampling], *, container: str
) -> Iterator[Oddity]:
    """Defaults that are missing or are none of Qwen's presets."""
    given = {key: generation[key] for key in GENERATION if _is_number(generation.get(key))}
    if not given:
        place = "general.sampling.*" if container == "gguf" else "generation_config.json"
        yield Oddity(
            what=f"no generation defaults ({place})",
            meaning="engines sample with their own; qwharf's gateway sends Qwen's",
        )
    elif recommended and not any(
        all(abs(getattr(s, key) - value) < 1e-6 for key, value in given.items())
        for s in recommended.values()
    ):
        listed = ", ".join(f"{k} {v:g}" for k, v in given.items())
        yield Oddity(
            what=f"generation defaults that are none of Qwen's: {listed}",
            meaning="a fine-tuner's choice, or a mistake",
        )


def of_context(context: Context) -> Iterator[Oddity]:
    """Positions stretched for good."""
    if context.yarn_factor is not None:
        yield Oddity(
            what=f"YaRN x{context.yarn_factor:g} is baked in",
            meaning="short conversations are stretched too, which costs a little quality",
        )


def _count(items: Sequence[Any], noun: str) -> str:
    return f"{len(items):,} {noun}" + ("" if len(items) == 1 else "s")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
