"""Why an installation failed: what pip, uv and CMake wrote, as errors of ours."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qwharf.errors import (
    ChecksumMismatch,
    EngineError,
    NetworkError,
    QwharfError,
    StorageError,
    UsageError,
)

NO_SPACE = re.compile(r"No space left on device|Errno 28|ENOSPC|os error 28|quota exceeded", re.I)
NOT_OURS = re.compile(r"Permission denied|Errno 13|Read-only file system|os error 13\b", re.I)
NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|Max retries exceeded"
    r"|Temporary failure in name resolution|Name or service not known|getaddrinfo failed"
    r"|nodename nor servname|Network is unreachable|Connection refused|Connection reset"
    r"|ProxyError|SSLError|IncompleteRead|dns error|error sending request|tcp connect error"
    r"|client error \(Connect\)|\b(?:403|407|429|500|502|503|504) (?:Client|Server) Error",
    re.I,
)
HASHES = re.compile(r"DO NOT MATCH THE HASHES|hash mismatch", re.I)
NO_RELEASE = re.compile(
    r"Could not find a version that satisfies the requirement (?P<what>.+?) "
    r"\(from versions: (?P<versions>.*)\)"
)
NO_RELEASE_UV = re.compile(r"[Bb]ecause (?:there (?:is|are) no versions? of )(?P<what>[^,]+?) and")
NOT_FOUND = re.compile(
    r"No matching distribution found for (?P<what>.+)|(?P<uv>\S+) was not found in the package reg"
)
WRONG_PYTHON = re.compile(r"Ignored the following versions that require a different python", re.I)
CONFLICT = re.compile(r"ResolutionImpossible|conflicting dependencies|No solution found", re.I)


def lacks_something(lines: Sequence[str]) -> bool:
    """Whether a package, not the network, is what was missing: another index may have it."""
    text = "\n".join(lines)
    return bool(
        NO_RELEASE.search(text) or NO_RELEASE_UV.search(text) or NOT_FOUND.search(text)
    ) and not NETWORK.search(text)


def explain(what: str, lines: Sequence[str], log: str, *, doing: str = "install") -> QwharfError:
    """The error for a program that failed.

    Args:
        what: the engine and version, as the user knows it.
        lines: the last that it wrote.
        log: where all of it is.
        doing: ``install`` or ``build``.
    """
    text = "\n".join(lines)
    last = last_error(lines)
    see = f"all that was said: {log}"
    if NO_SPACE.search(text):
        return StorageError(
            what,
            found="the disk became full",
            hint=f"free some space (`qwharf engine ls` shows what engines take), then {doing} it "
            f"again; {see}",
        )
    if HASHES.search(text):
        return ChecksumMismatch(
            what,
            found="a package whose bytes are not those that were locked",
            hint=f"clear pip's cache (`pip cache purge`) and install it again; {see}",
        )
    if NETWORK.search(text):
        return NetworkError(
            what,
            found=_line_of(NETWORK, lines) or "no answer from the package index",
            expected="a package index that answers",
            hint="check the network, or name an index that you reach (PIP_INDEX_URL for pip, "
            f"UV_DEFAULT_INDEX for uv), then run it again: what was fetched is kept; {see}",
        )
    if found := NO_RELEASE.search(text):
        versions = [v.strip() for v in found["versions"].split(",")]
        some = found["versions"] not in ("", "none")
        return UsageError(
            what,
            found=f"no release of {found['what']} for this Python and system",
            expected=f"one of {', '.join(versions[-5:])}"
            if some
            else "a package index that has it",
            hint=(
                "the releases that need another Python were passed over; "
                if WRONG_PYTHON.search(text)
                else ""
            )
            + see,
        )
    if found := NO_RELEASE_UV.search(text) or NOT_FOUND.search(text):
        return UsageError(
            what,
            found=f"no release of {(found.groupdict().get('what') or found.group(0)).strip()}",
            expected="a release that the package index has",
            hint=see,
        )
    if CONFLICT.search(text):
        return EngineError(
            what,
            found=last,
            expected="packages that go together",
            hint=f"try the version known to be good (leave ==VERSION out); {see}",
        )
    if NOT_OURS.search(text):
        return StorageError(
            what,
            found=_line_of(NOT_OURS, lines) or last,
            hint=f"set QWHARF_HOME to a folder that you may write to; {see}",
        )
    return EngineError(what, found=last, hint=see)


def last_error(lines: Sequence[str]) -> str:
    """The line that says most: the first error of a compiler, the last of anything else."""
    errors = [x.strip() for x in lines if re.search(r"\berror\b", x, re.I)]
    compiled = [x for x in errors if re.search(r": (?:fatal )?error:", x)]
    chosen = compiled[:1] or errors[-1:] or [x.strip() for x in lines if x.strip()][-1:]
    return re.sub(r"^ERROR:\s*|^error:\s*", "", chosen[0])[:300] if chosen else "it said nothing"


def _line_of(pattern: re.Pattern[str], lines: Sequence[str]) -> str | None:
    found = next((x.strip() for x in reversed(lines) if pattern.search(x)), None)
    return found[:300] if found else None
