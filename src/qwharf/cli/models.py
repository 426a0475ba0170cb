"""``models`` and ``show``: the family, and all that is known of one member."""

from __future__ import annotations

import click

from qwharf import catalog
from qwharf.cli.options import model_argument, with_output
from qwharf.cli.output import Output
from qwharf.cli.text import gb, tokens
from qwharf.errors import QwharfError
from qwharf.formats.tensors import active_parameter_count, parameter_count
from qwharf.memory import weight_bytes
from qwharf.types import Model, Repository


@click.command()
@with_output
def models(out: Output) -> None:
    """List every model of the family, with the formats that can be had."""
    entries = catalog.models()
    rows = [
        [
            m.name,
            billions(parameter_count(m.architecture)),
            billions(active_parameter_count(m.architecture)) if m.architecture.is_moe else None,
            m.thinking,
            tokens(m.native_context_tokens),
            tokens(m.max_context_tokens)
            if m.max_context_tokens > m.native_context_tokens
            else None,
            published(m),
        ]
        for m in entries
    ]
    human = out.table(
        ["name", "parameters", "active", "thinking", "context", "with YaRN", "published weights"],
        rows,
        right={"parameters", "active", "context", "with YaRN"},
    )
    out.data(
        [
            {
                "model": m,
                "parameters": parameter_count(m.architecture),
                "active_parameters": active_parameter_count(m.architecture),
            }
            for m in entries
        ],
        human,
    )


@click.command()
@model_argument
@with_output
def show(model: str, out: Output) -> None:
    """Show architecture, sampling, licence and repositories of MODEL."""
    found = catalog.resolve(model).model
    out.data(
        {
            "model": found,
            "parameters": parameter_count(found.architecture),
            "active_parameters": active_parameter_count(found.architecture),
        },
        describe(found, out),
    )


def describe(model: Model, out: Output) -> str:
    """One model for a person."""
    a = model.architecture
    facts = [
        ("name", model.name),
        ("also known as", ", ".join(model.aliases)),
        ("released", model.released),
        ("licence", model.license),
        (
            "thinking",
            {"hybrid": "can be switched per request", "instruct": "never", "thinking": "always"}[
                model.thinking
            ],
        ),
        (
            "context",
            f"{tokens(model.native_context_tokens)} tokens"
            + (
                f", {tokens(model.max_context_tokens)} with YaRN"
                if model.max_context_tokens > model.native_context_tokens
                else ""
            ),
        ),
        ("parameters", f"{parameter_count(a):,}"),
        ("active", f"{active_parameter_count(a):,}" if a.is_moe else None),
        (
            "layers",
            f"{a.num_hidden_layers} x hidden {a.hidden_size}, {a.num_attention_heads} query"
            f" and {a.num_key_value_heads} KV heads of {a.head_dim}",
        ),
        (
            "feed-forward",
            f"{a.num_experts} experts of {a.moe_intermediate_size}, "
            f"{a.num_experts_per_tok} at a time"
            if a.is_moe
            else str(a.intermediate_size),
        ),
        ("vocabulary", f"{a.vocab_size:,}" + (", tied" if a.tie_word_embeddings else "")),
        ("path", model.path),
        ("note", model.note),
    ]
    lines = [out.style(model.title, "bold")]
    lines += [f"  {k:<14} {v}" for k, v in facts if v]
    lines.append(f"\n{out.style('sampling', 'bold')}")
    for mode, s in model.sampling.items():
        lines.append(
            f"  {mode:<14} temperature {s.temperature}, top_p {s.top_p}, top_k {s.top_k}, "
            f"min_p {s.min_p:g}, presence_penalty {s.presence_penalty:g}"
        )
    if model.repositories:
        rows = [
            [
                r.format,
                r.repo_id,
                ", ".join(r.hubs),
                size(model, r),
            ]
            for r in model.repositories
        ]
        lines.append(
            "\n" + out.table(["format", "repository", "hubs", "weights"], rows, right={"weights"})
        )
        lines.append("~ computed from the architecture; GGUF files for other types are made here")
    return "\n".join(lines)


def published(model: Model) -> str:
    """``bf16 fp8 awq; gguf q4_k_m q8_0; mlx 4bit``: what can be fetched, by container."""
    groups = []
    for container in ("safetensors", "gguf", "mlx"):
        found = [
            r.format.quantization for r in model.repositories if r.format.container == container
        ]
        if found:
            groups.append(" ".join([container, *found] if container != "safetensors" else found))
    return "; ".join(groups) or "in the package"


def size(model: Model, repository: Repository) -> str | None:
    """Of the files as published, or computed."""
    sizes = [f.size_bytes for f in repository.files]
    if sizes and None not in sizes:
        return gb(sum(s for s in sizes if s is not None))
    predicted = [f.size_bytes or f.predicted_size_bytes or 0 for f in repository.files]
    try:
        computed = sum(predicted) or weight_bytes(model.architecture, repository.format)
    except QwharfError:
        return None
    return f"~{gb(computed)}"


def billions(parameters: int) -> str:
    """``8.19 B``, or millions below one billion."""
    if parameters >= 10**9:
        return f"{parameters / 1e9:.2f} B"
    return f"{parameters / 1e6:.1f} M"
