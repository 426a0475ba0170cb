"""Compiling the fast quantisers with the machine's own C compiler.

A module without further imports from the package: the ``qwharf-kernels`` wheel is built with it,
too, from the same sources and with the same flags.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).with_name("native")
FLAGS = (
    "-std=c11",
    "-O3",  # not -O2: the lane arrays must be unrolled into registers
    "-ffp-contract=off",  # a fused multiply-add rounds once instead of twice: other bytes
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
)
SECONDS = 600
"""What a compiler may take; ten are usual."""


class BuildError(Exception):
    """The kernels cannot be built; says why, in the compiler's words if it has any."""


def supported() -> bool:
    """Whether the kernels exist for this machine: x86-64, Linux or macOS.

    Elsewhere llama.cpp's own quantisers are used. On ARM there is no one truth to match: what
    llama.cpp computes there depends on which operations its compiler fused.
    """
    return platform.machine().lower() in ("x86_64", "amd64") and sys.platform in ("linux", "darwin")


@cache
def digest() -> str:
    """Names what a library was made from: sources and flags."""
    text = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        text.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return text.hexdigest()[:16]


def library_name() -> str:
    """The file name of a library made from these sources."""
    return f"qwharf-kernels-{digest()}.so"


def compiler() -> list[str] | None:
    """The C compiler: ``$CC``, else ``cc``, ``gcc`` or ``clang``; ``None`` if there is none."""
    named = shlex.split(os.environ.get("CC", ""))
    for words in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if found := shutil.which(words[0]):
            return [found, *words[1:]]
    return None


def build(folder: Path) -> Path:
    """Compile the library into ``folder``, where it appears when it is complete.

    Raises:
        BuildError: no compiler, not this kind of machine, or the compiler failed.
        OSError: ``folder`` cannot be written.
    """
    words = compiler()
    if not supported():
        raise BuildError(f"there are no kernels for {platform.machine()} on {sys.platform}")
    if words is None:
        raise BuildError("no C compiler found (looked for $CC, cc, gcc, clang)")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder) as scratch:
        made = Path(scratch) / library_name()
        sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
        argv = [*words, *FLAGS, "-o", str(made), *sources]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise BuildError(str(e)) from e
        if done.returncode or not made.is_file():
            raise BuildError(f"{shlex.join(argv)}\n{(done.stderr or done.stdout)[-2000:]}")
        made.chmod(0o755)  # whatever the umask: only its owner may change it
        return made.replace(folder / library_name())
