"""Data flows one way: who may import whom is a table, and the code is held against it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import qwharf

ROOT = Path(qwharf.__file__).parent

NOUNS = {"types", "errors"}
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "texts": set(),
    "file_locks": set(),
    "codec": {"types"},
    "settings": {"errors"},
    "naming": {"errors"},
    "formats": NOUNS,
    "catalog": NOUNS | {"formats"},
    "hardware": NOUNS,
    "quantize": NOUNS | {"formats"},
    "memory": NOUNS | {"formats", "quantize"},
    "compatibility": NOUNS,
    "fit": NOUNS | {"memory", "compatibility"},
    "artifacts": NOUNS | {"settings", "codec", "file_locks", "formats", "quantize"},
    "forward": NOUNS | {"formats", "artifacts", "quantize"},
    "inspection": NOUNS | {"formats", "catalog", "quantize", "memory"},
    "fidelity": NOUNS | {"formats", "memory", "artifacts", "forward", "inspection"},
    "testing": NOUNS | {"formats", "catalog"},
    "engines": NOUNS | {"settings", "file_locks", "hardware"},
    "calibration": NOUNS | {"settings", "texts", "hardware", "formats", "artifacts", "engines"},
    "platforms": NOUNS | {"settings", "naming", "compatibility", "formats", "artifacts", "engines"},
    "verify": NOUNS | {"formats"},
    "gateway": NOUNS | {"settings", "codec", "formats", "platforms"},
    "daemon": NOUNS | {"settings", "naming", "codec", "file_locks", "platforms", "gateway"},
    "survey": NOUNS | {"compatibility", "engines", "platforms", "fit"},
    "pipeline": NOUNS
    | {"settings", "codec", "catalog", "hardware", "fit", "formats", "artifacts", "platforms"}
    | {"naming", "compatibility", "quantize", "calibration", "daemon", "verify", "survey"},
}
"""Beside itself. ``daemon`` from ``pipeline`` means its client. ``cli`` may import everything."""


def unit(module: Path) -> str:
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            if node.module == "qwharf":
                yield from (alias.name for alias in node.names)
            elif (node.module or "").startswith("qwharf."):
                yield (node.module or "").split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("qwharf."))


def test_imports_point_one_way() -> None:
    wrong = []
    for module in sorted(ROOT.rglob("*.py")):
        owner = unit(module)
        if owner in ("cli", "__init__", "__main__"):
            continue
        assert owner in MAY_IMPORT, f"{module} has no row in the table"
        for target in imports(module):
            if target not in MAY_IMPORT[owner] | {owner, "__version__"}:
                wrong.append(f"{module.relative_to(ROOT)} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_the_table_has_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {k for k, v in MAY_IMPORT.items() if k not in done and v <= done}
        assert ready, f"cycle among {sorted(set(MAY_IMPORT) - done)}"
        done |= ready


def test_the_engine_is_imported_only_by_its_child() -> None:
    users = {
        str(m.relative_to(ROOT))
        for m in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(m.read_text("utf-8")))
        if (isinstance(node, ast.Import) and any(a.name == "xllamacpp" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "xllamacpp")
    }
    assert users <= {"platforms/llama_server.py"}
