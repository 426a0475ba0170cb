"""``inspect``: what is in a file or folder of weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click

from qwharf.cli.models import billions
from qwharf.cli.options import complete_models, with_output
from qwharf.cli.output import Output
from qwharf.cli.text import count, gb, gib, harmless, tokens
from qwharf.cli.weights_at import weights_at
from qwharf.inspection.report import Group, Inspection, Template, Vocabulary

WIDTH = 11


@click.command()
@click.argument("path", shell_complete=complete_models)
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--metadata", is_flag=True, help="List every metadata key.")
@with_output
def inspect(path: str, tensors: bool, metadata: bool, out: Output) -> None:
    """Show what is in PATH, and what is odd about it; only headers are read.

    PATH is a .gguf file (of a split one, any part), a checkpoint's or an MLX folder, a
    .safetensors file, a LoRA adapter, an artifact of the store by its id, or a model's name.

    \b
    Examples:
      qwharf inspect ./Qwen3-8B-Q4_K_M.gguf
      qwharf inspect ./my-finetune --tensors
      qwharf inspect pocket --json
    """
    from qwharf.inspection import inspect as look
    from qwharf.inspection.texts import mapped

    where = weights_at(path)
    found = look(where.path, where.name)
    if not tensors:
        found = replace(found, tensors=())
    out.data(found, "\n\n".join(_parts(mapped(found, harmless), out, metadata)))


def _parts(found: Inspection, out: Output, metadata: bool) -> Iterator[str]:
    yield _head(found, out)
    yield _types(found, out)
    yield _kinds(found, out)
    if found.tensors:
        yield _tensors(found, out)
    if metadata and found.metadata:
        yield _lines("metadata", [(k, _short(v)) for k, v in found.metadata.items()], out)
    if found.needs:
        yield _needs(found, out)
    if found.oddities:
        yield "\n".join(
            [
                out.style("odd", "bold"),
                *(f"  - {o.what}\n    {out.style(o.meaning, 'dim')}" for o in found.oddities),
            ]
        )


def _lines(title: str, facts: Sequence[tuple[str, Any]], out: Output) -> str:
    width = max((len(k) for k, v in facts if v is not None), default=0)
    lines = [out.style(title, "bold")]
    lines += [f"  {k:<{max(width, WIDTH)}}  {v}" for k, v in facts if v is not None]
    return "\n".join(lines)


def _head(found: Inspection, out: Output) -> str:
    what = str(found.format) if found.format else f"{found.container} {found.what}"
    where = harmless(str(found.path))
    if len(found.files) > 1:
        where += f"  ({len(found.files)} files)"
    facts = [("path", where), ("size", _size(found)), *_shape(found), *_behaviour(found)]
    return _lines(f"{found.name}  {what}", facts, out)


def _size(found: Inspection) -> str:
    bits = f", {found.bits_per_weight:.2f} bits per weight" if found.bits_per_weight else ""
    number = sum(f.tensors for f in found.files)
    return f"{gb(sum(f.size_bytes for f in found.files))}, {count(number, 'tensor')}{bits}"


def _shape(found: Inspection) -> Iterator[tuple[str, str | None]]:
    if found.adapter is not None:
        yield from _adapter(found)
    if found.what == "importance matrix":
        yield from _importance(found)
    a = found.architecture
    if a is None or found.parameters is None:
        return
    relative = f"that of {found.relative}: " if found.relative else ""
    yield (
        "shape",
        f"{relative}{a.num_hidden_layers} layers, hidden {a.hidden_size:,}, "
        f"{a.num_attention_heads} query and {a.num_key_value_heads} KV heads of {a.head_dim}"
        + ("" if a.is_moe else f", feed-forward {a.intermediate_size:,}"),
    )
    if a.is_moe:
        yield (
            "experts",
            f"{a.num_experts} of width {a.moe_intermediate_size:,}, "
            f"{a.num_experts_per_tok} at a time",
        )
    active = f", {billions(found.active_parameters or 0)} active" if a.is_moe else ""
    yield "parameters", billions(found.parameters) + active
    tied = "the output matrix too (tied)" if a.tie_word_embeddings else "an output matrix beside it"
    yield "embedding", f"{a.vocab_size:,} rows, {tied}"


def _adapter(found: Inspection) -> Iterator[tuple[str, str | None]]:
    adapter = found.adapter
    if adapter is None:
        return
    yield "base model", adapter.base
    rank = "?" if adapter.rank is None else adapter.rank
    scale = "" if adapter.alpha is None else f", alpha {adapter.alpha:g}"
    yield "LoRA", f"rank {rank}{scale}, {billions(adapter.parameters)} parameters"
    yield "changes", f"{', '.join(adapter.modules)} in {count(len(adapter.layers), 'layer')}"


def _importance(found: Inspection) -> Iterator[tuple[str, str | None]]:
    datasets = found.metadata.get("imatrix.datasets")
    yield "made from", ", ".join(map(str, datasets)) if isinstance(datasets, list) else None
    chunks, size = (found.metadata.get(f"imatrix.chunk_{k}") for k in ("count", "size"))
    if chunks is not None:
        yield "of", f"{chunks} chunks of {size} tokens"


def _behaviour(found: Inspection) -> Iterator[tuple[str, str | None]]:
    context = found.context
    if context is not None:
        stretched = (
            f", {tokens(context.max_tokens)} with YaRN"
            if context.max_tokens > context.native_tokens
            else ""
        )
        baked = (
            ""
            if context.yarn_factor is None
            else f"; YaRN x{context.yarn_factor:g} over {tokens(context.yarn_original_tokens)}"
        )
        yield (
            "context",
            f"{tokens(context.native_tokens)} tokens{stretched}, "
            f"rope base {context.rope_theta:,.0f}{baked}",
        )
    if found.what != "model":
        return
    switch = {"hybrid": "can be switched", "instruct": "never", "thinking": "always"}
    yield "thinking", switch.get(found.thinking or "")
    yield "template", _template(found.template)
    yield "tokenizer", _vocabulary(found.vocabulary)
    yield "defaults", _defaults(found)


def _template(template: Template | None) -> str | None:
    if template is None:
        return None
    if template.kind is None:
        return f"none of Qwen3's ({template.characters:,} characters)"
    if template.differs_in:
        same = template.conversations - len(template.differs_in)
        return f"nearest to {template.kind}'s: the same in {same} of {template.conversations}"
    text = "the published text" if template.published else "another text with the same result"
    return f"{template.kind}'s, exact in {template.conversations} conversations ({text})"


def _vocabulary(vocabulary: Vocabulary | None) -> str | None:
    if vocabulary is None:
        return None
    own = "Qwen3's own, " if vocabulary.is_qwen3 and not vocabulary.added else ""
    padding = (
        f" in {vocabulary.rows:,} rows" if vocabulary.rows not in (None, vocabulary.tokens) else ""
    )
    return f"{own}{vocabulary.tokens:,} tokens{padding}, ends with {vocabulary.end or 'nothing'}"


def _defaults(found: Inspection) -> str | None:
    from qwharf.inspection.oddities import GENERATION

    given = {k: found.generation[k] for k in GENERATION if k in found.generation}
    if not given:
        return None
    modes = [
        mode
        for mode, preset in found.recommended.items()
        if all(getattr(preset, k) == v for k, v in given.items())
    ]
    text = ", ".join(f"{k} {v:g}" for k, v in given.items())
    return text + (f" (Qwen's for {modes[0]})" if modes else "")


# ----------------------------------------------------------------------------------------- tables


def _types(found: Inspection, out: Output) -> str:
    rows = [
        [g.name, f"{g.tensors:,}", gb(g.size_bytes), f"{_share(g, found):.1f} %"]
        for g in found.by_type
    ]
    return out.table(["type", "tensors", "size", "share"], rows, right={"tensors", "size", "share"})


def _share(group: Group, found: Inspection) -> float:
    return 100 * group.size_bytes / found.size_bytes if found.size_bytes else 0.0


def _kinds(found: Inspection, out: Output) -> str:
    rows = [
        [g.name, f"{g.matrices:,}", _type_list(g), _shapes(g), gb(g.size_bytes)]
        for g in found.by_kind
    ]
    return out.table(
        ["matrices", "number", "types", "shape", "size"], rows, right={"number", "size"}
    )


def _type_list(group: Group) -> str:
    if len(group.types) == 1:
        return next(iter(group.types))
    return ", ".join(f"{number:,} {name}" for name, number in group.types.items())


def _shapes(group: Group) -> str:
    more = ", …" if len(group.shapes) > 1 else ""
    return _shape_text(group.shapes[0]) + more if group.shapes else ""


def _shape_text(shape: Sequence[int]) -> str:
    return " x ".join(f"{n:,}" for n in shape) or "one number"


def _tensors(found: Inspection, out: Output) -> str:
    several = len(found.files) > 1
    rows = [
        [t.name, t.type, _shape_text(t.shape), gb(t.size_bytes), *([t.file] if several else [])]
        for t in found.tensors
    ]
    return out.table(
        ["tensor", "type", "shape", "size", *(["file"] if several else [])], rows, right={"size"}
    )


def _needs(found: Inspection, out: Output) -> str:
    known = any(n.buffer_bytes is not None for n in found.needs)
    rows = [
        [
            tokens(n.context_tokens),
            gib(n.weight_bytes),
            gib(n.kv_bytes),
            *([gib(n.buffer_bytes)] if known else []),
            gib(n.total_bytes),
        ]
        for n in found.needs
    ]
    columns = ["context", "weights", "KV cache", *(["buffers"] if known else []), "memory"]
    engine = "llama.cpp on a processor" if known else "any engine; its buffers come on top"
    return (
        out.table(columns, rows, right=set(columns))
        + "\n"
        + out.style(f"one request, f16 KV cache, {engine}; `qwharf fit` plans for a machine", "dim")
    )


def _short(value: Any) -> str:
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= 100 else text[:99] + "…"
