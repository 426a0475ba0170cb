"""What ``qwharf up MODEL --platform P --hardware M --dry-run`` prints, for every model, platform
and machine, as files to be read: one for each machine and platform.

Written anew by ``python tests/goldens/golden_rehearsals.py`` in the project's environment; read the
difference before it is committed. Plans are arithmetic, so the files are the same everywhere:
nothing that is installed here, and nobody's home folder, shows in them.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from qwharf import catalog, compatibility, platforms
from qwharf.cli.main import main

HERE = Path(__file__).parent
MACHINES = tuple(sorted((HERE / "machines").glob("*.toml")))
MODELS = ("0.6b", "1.7b", "4b", "8b", "14b", "32b", "30b-a3b", "235b-a22b")
NOBODY = "127.0.0.1:9"
"""An address where nothing listens, in place of the services that may run here."""
HOME = Path("/home/user")
SHOWN = {
    NOBODY: "127.0.0.1:11434",
    sys.executable: "python",
    str(Path(platforms.__file__).parent): "qwharf/platforms",
}


def driven() -> tuple[str, ...]:
    """The platforms that can be planned for and driven; a new one needs no line here."""
    return tuple(name for name in platforms.names() if name in compatibility.names())


def path_of(machine: Path, platform: str) -> Path:
    """Where the text for them is kept."""
    return HERE / machine.stem / f"{platform}.txt"


def text_of(machine: Path, platform: str) -> str:
    """All models on one platform of one machine."""
    return "\n".join(_rehearsal(machine, platform, f"qwen3:{size}") for size in MODELS)


def _rehearsal(machine: Path, platform: str, model: str) -> str:
    name = catalog.find(model).name
    words = ["up", name, "--platform", platform, "--hardware", machine.name, "--dry-run"]
    code, out, err = _run([str(machine) if w == machine.name else w for w in words])
    body = out if code == 0 else f"refused, exit code {code}\n{err}"
    for found, shown in SHOWN.items():
        body = body.replace(found, shown)
    lines = (line.rstrip() for line in body.strip().splitlines())
    return f"$ qwharf {' '.join(words)}\n" + "\n".join(lines) + "\n"


def _run(argv: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with _elsewhere(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(argv)
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 1
    return code, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """An environment without anything of this machine's."""
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(
        HOME=str(HOME),
        USERPROFILE=str(HOME),
        QWHARF_HOME=str(HOME / "qwharf"),
        OLLAMA_HOST=NOBODY,
        LMS_SERVER_HOST=NOBODY,
        PATH="",
        NO_COLOR="1",
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


if __name__ == "__main__":
    for place in MACHINES:
        for platform_name in driven():
            path = path_of(place, platform_name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text_of(place, platform_name), "utf-8")
            sys.stdout.write(f"{path}\n")
