"""From what people call a model to the catalogue entry, and the format that the name implies."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qwharf.catalog.data import base_repositories, models
from qwharf.errors import UnknownModel
from qwharf.types import Format, Model

SHOWN_CHARACTERS = 200
"""Of a name that is nothing; nobody reads more, and comparing more takes long."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model, and the format where the name asked for one."""

    model: Model
    format: Format | None = None


def find(name: str) -> Model:
    """The model that ``name`` means; see :func:`resolve`."""
    return resolve(name).model


def resolve(name: str) -> Resolved:
    """The model, and perhaps the format, that ``name`` means.

    Understood, in any case: catalogue names (``qwen3:8b``), repository ids with or without a host
    (``Qwen/Qwen3-8B-AWQ``, ``hf.co/Qwen/Qwen3-8B-GGUF:Q8_0``), Ollama's tags
    (``qwen3:8b-q4_K_M``), LM Studio's keys (``qwen/qwen3-8b@q4_k_m``), a checkpoint's folder and a
    ``.gguf`` file. A plain name is a path only if the catalogue does not know it: write ``./name``
    for a folder in the current directory.

    Raises:
        UnknownModel: nothing answers to it; ``facts["suggestions"]`` has what comes nearest.
        InvalidFile, UnsupportedArchitecture: it is a path, and what lies there is no Qwen3 model.
    """
    text = name.strip()
    if _looks_like_path(text):
        return _local(_expanded(text), name)
    found = _known(text)
    if found is not None:
        return found
    if text and _exists(Path(text)):
        return _local(Path(text), name)
    raise _unknown(name)


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~nobody: there is no such user
        return Path(text)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, no permission on the way, a null character
        return False


def _looks_like_path(text: str) -> bool:
    return (
        text.startswith(("./", "../", "/", "~", ".\\", "..\\", "\\\\"))
        or text in (".", "..")
        or text.lower().endswith(".gguf")
        or re.match(r"[A-Za-z]:[\\/]", text) is not None
    )


def _local(path: Path, name: str) -> Resolved:
    from qwharf.catalog.local import read_local

    if not _exists(path):
        raise UnknownModel(
            name[:SHOWN_CHARACTERS],
            found="no such folder or file",
            expected="a checkpoint's folder, a .gguf file or a catalogue name",
            hint="`qwharf models` lists the catalogue",
        )
    model = read_local(path)
    # A .gguf file is run as it is; a checkpoint's folder may become whatever fits best.
    return Resolved(model, None if path.is_dir() else model.path_format)


# --------------------------------------------------------------------------------------- by name

_HOST = re.compile(
    r"^(?:https?://)?(?:www\.)?"
    r"(?:hf\.co|huggingface\.co|modelscope\.cn/models|ollama\.com/library|registry\.ollama\.ai)/"
    r"|^(?:hf|ollama|modelscope)://"
)
_OWNERS = frozenset({"qwen", "ggml-org", "library"})


@cache
def _spellings() -> dict[str, Model]:
    """Every spelling of a model without a format, in the one normal form."""
    found: dict[str, Model] = {}
    for model in models():
        for name in (model.name, *model.aliases, model.title):
            found.setdefault(_normal(name), model)
    return found


def _normal(text: str) -> str:
    """Lower case, words joined by ``-``: ``qwen3:8b``, ``Qwen3-8B``, ``qwen3 8b`` are one."""
    return re.sub(r"[-:@/\s]+", "-", text.strip().lower()).strip("-")


def _known(text: str) -> Resolved | None:
    name = _HOST.sub("", text.lower()).rstrip("/")
    owner, slash, rest = name.partition("/")
    if slash:
        if owner not in _OWNERS or "/" in rest:
            return None
        name = rest
    normal = re.sub(r"^qwen-?3(?=-|\d+(?:\.\d+)?b)-?", "qwen3-", _normal(name))
    words = normal.split("-")
    for count in range(len(words), 0, -1):
        model = _spellings().get("-".join(words[:count]))
        if model is None:
            continue
        suffix = "-".join(words[count:])
        if not suffix or suffix == "hf":
            return Resolved(model)
        format = _format(suffix, model)
        return None if format is None else Resolved(model, format)
    return None


def _format(suffix: str, model: Model) -> Format | None:
    """The format that stands behind a model's name; ``None``: there is none of that name."""
    if suffix == "gguf":
        return _preferred_gguf(model)
    inner = suffix.removeprefix("gguf-").removesuffix("-gguf")
    if inner != suffix:
        return _gguf(inner)
    if suffix in ("fp16", "f16"):  # Ollama's tag for unquantised weights, which are GGUF there
        return Format("gguf", "f16")
    return _parse(suffix) or _gguf(suffix)


def _gguf(quantization: str) -> Format | None:
    return _parse("gguf:" + quantization.replace("-", "_"))


def _parse(text: str) -> Format | None:
    from qwharf.errors import UsageError
    from qwharf.formats.names import parse_format

    try:
        return parse_format(text)
    except UsageError:
        return None


def _preferred_gguf(model: Model) -> Format:
    """What a GGUF repository named without a type means: Q4_K_M, or the first that is there."""
    there = [r.format for r in model.repositories if r.format.container == "gguf"]
    usual = Format("gguf", "q4_k_m")
    return usual if usual in there or not there else there[0]


# ------------------------------------------------------------------------------------- not found


def _unknown(name: str) -> UnknownModel:
    """Say why, with the nearest names."""
    name = name[:SHOWN_CHARACTERS]
    text = _HOST.sub("", name.strip().lower())
    owner, slash, rest = text.partition("/")
    base = base_repositories().get(_normal(rest if slash else text))
    if base is not None:
        return UnknownModel(
            name,
            found="a pretrained model, which cannot chat",
            expected="one of the chat models",
            hint=f"the chat model made from it is `{base}`; to run the pretrained one, download it "
            "and give its folder",
            suggestions=[base],
        )
    if slash and owner not in _OWNERS:
        known = _known(rest)
        return UnknownModel(
            name,
            found=f"a repository of {name.split('/')[-2]}",
            expected="one of Qwen's own",
            hint="download it and give its folder or .gguf file"
            + (f", or take Qwen's: `qwharf show {known.model.name}`" if known else ""),
            suggestions=[known.model.name] if known else [],
        )
    close = list(_nearest(_normal(rest if slash else text)))
    return UnknownModel(
        name,
        found="nothing of that name in the catalogue or on disk",
        expected="a catalogue name, a repository id, a folder or a .gguf file",
        hint=(f"did you mean {' or '.join(f'`{c}`' for c in close)}? " if close else "")
        + "`qwharf models` lists the catalogue",
        suggestions=close,
    )


def _nearest(normal: str) -> Iterator[str]:
    """At most four names: exact prefixes first (``qwen3``), then the closest spellings."""
    from qwharf.formats.names import FORMATS

    spellings = dict(_spellings())
    if normal in ("qwen", "qwen3", "qwen3-latest"):
        yield from ("qwen3:0.6b", "qwen3:8b", "qwen3:30b-a3b", "qwen3:235b-a22b")
        return
    suffixes = {f.quantization for f in FORMATS}
    model = spellings.get(_longest(normal))
    if model is not None:  # the model is right, the format is not
        wrong = normal.removeprefix(_longest(normal)).strip("-")
        for q in difflib.get_close_matches(wrong, suffixes, n=2, cutoff=0.5):
            yield f"{model.name}-{q}"
        # … or a longer name was meant: qwen3:30b-a3b-instuct-2507
        longer = [
            spellings[c].name for c in difflib.get_close_matches(normal, spellings, cutoff=0.9)
        ]
        yield from list(dict.fromkeys([*longer, model.name]))[:3]
        return
    guesses = {**spellings, **{k.removeprefix("qwen3-"): v for k, v in spellings.items()}}
    close = difflib.get_close_matches(normal, guesses, n=8, cutoff=0.6)
    yield from list(dict.fromkeys(guesses[c].name for c in close))[:4]


def _longest(normal: str) -> str:
    words = normal.split("-")
    joined = ("-".join(words[:n]) for n in range(len(words), 0, -1))
    return next((j for j in joined if j in _spellings()), "")
