"""What the default install weighs: packages and bytes of a fresh environment, limits held."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import header, table

LIMIT_PACKAGES = 35
LIMIT_BYTES = 300_000_000
ROOT = Path(__file__).resolve().parent.parent


def folder_bytes(folder: Path) -> int:
    """Bytes of all regular files below ``folder``."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def main() -> int:
    header("Install size")
    with tempfile.TemporaryDirectory() as made:
        venv = Path(made) / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        before = folder_bytes(venv)
        python = venv / "bin" / "python"
        pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        base = subprocess.run([*pip, "list", "--format=freeze"], check=True, capture_output=True)
        subprocess.run(
            [*pip, "install", "--quiet", "--no-compile", str(ROOT)], check=True, stderr=sys.stderr
        )
        after = folder_bytes(venv)
        listed = subprocess.run([*pip, "list", "--format=freeze"], check=True, capture_output=True)
        packages = len(listed.stdout.splitlines()) - len(base.stdout.splitlines())
    size = after - before
    table(
        ["", "measured", "limit"],
        [
            ["packages, qwharf included", packages, LIMIT_PACKAGES],
            ["installed, MB", f"{size / 1e6:.0f}", f"{LIMIT_BYTES / 1e6:.0f}"],
        ],
    )
    return 0 if packages <= LIMIT_PACKAGES and size <= LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
