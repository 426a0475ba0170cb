"""Everything that qwharf raises on purpose.

QwharfError
├── UsageError                    exit 2   the command line or a setting makes no sense
├── UnknownModel                  exit 3   no such model; carries suggestions
├── InvalidFile                   exit 4   a file is not what it claims to be
│   ├── UnsupportedArchitecture            not a Qwen3 model
│   └── ChecksumMismatch                   bytes differ from the recorded hash
├── FormatUnavailable             exit 5   this platform or repository does not offer the format
├── DoesNotFit                    exit 6   not enough memory; carries the largest that would fit
├── StorageError                  exit 7   disk full, read-only, locked, no permission
│   └── CopyNeeded                         weights can only be had twice; the user must allow it
├── NetworkError                  exit 8   hub unreachable, refused, not found
├── EngineError                   exit 9   an engine could not start or died; carries its own words
├── VerificationFailed            exit 10  the deployment runs, but does not behave like Qwen3
├── DaemonError                   exit 11  the daemon cannot be reached or started
│   └── PortInUse
├── UnknownDeployment             exit 12  no deployment of that name
└── Conflict                      exit 13  the name is taken by something else, or work is under way

An error carries facts; :mod:`qwharf.cli.messages` turns them into sentences. Anything else that
escapes is a bug.
"""

from __future__ import annotations

from typing import Any, ClassVar


class QwharfError(Exception):
    """Base of all; ``summary`` says what went wrong, the arguments to what.

    Args:
        subject: the file, model, deployment or setting concerned, as the user knows it.
        found: the fact found.
        expected: the fact expected.
        hint: the next step, as an instruction; ends, where it can, with a command.
        facts: further facts for ``--json`` (JSON-able values).
    """

    exit_code: ClassVar[int] = 1
    summary: ClassVar[str] = "something went wrong"

    def __init__(
        self,
        subject: str,
        *,
        found: str = "",
        expected: str = "",
        hint: str = "",
        **facts: Any,
    ) -> None:
        super().__init__(subject)
        self.subject = subject
        self.found = found
        self.expected = expected
        self.hint = hint
        self.facts = facts

    @property
    def code(self) -> str:
        """Stable identifier for programs, e.g. ``unknown_model``."""
        name = type(self).__name__
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")

    def __str__(self) -> str:
        parts = [f"`{self.subject}`: {self.summary}"]
        if self.found:
            parts.append(f"found {self.found}")
        if self.expected:
            parts.append(f"expected {self.expected}")
        return ", ".join(parts)


class UsageError(QwharfError):
    """An option, argument or setting makes no sense."""

    exit_code = 2
    summary = "not a valid value"


class UnknownModel(QwharfError):
    """No catalogue entry, folder or file answers to that name."""

    exit_code = 3
    summary = "no such model"


class InvalidFile(QwharfError):
    """A file is damaged or not what it claims to be."""

    exit_code = 4
    summary = "not a valid file"


class UnsupportedArchitecture(InvalidFile):
    """A model, but not a Qwen3 one."""

    summary = "not a Qwen3 model"


class ChecksumMismatch(InvalidFile):
    """The bytes differ from the recorded sha256."""

    summary = "the bytes are not the recorded ones"


class FormatUnavailable(QwharfError):
    """The platform cannot run that format, or the repository does not have it."""

    exit_code = 5
    summary = "format not available"


class DoesNotFit(QwharfError):
    """More memory is needed than there is."""

    exit_code = 6
    summary = "does not fit in memory"


class StorageError(QwharfError):
    """The disk is full, read-only, locked or closed to us."""

    exit_code = 7
    summary = "cannot store files"


class CopyNeeded(StorageError):
    """No link leads there, so the weights would lie on the disk twice; nothing was done.

    ``facts["copy_bytes"]`` says how much. Resolved by ``DeploymentSpec.may_copy``.
    """

    summary = "would have to be copied"


class NetworkError(QwharfError):
    """A hub or URL cannot be reached, or refuses."""

    exit_code = 8
    summary = "network request failed"


class EngineError(QwharfError):
    """An engine could not start, or died; ``found`` holds its own words."""

    exit_code = 9
    summary = "the engine failed"


class VerificationFailed(QwharfError):
    """The deployment runs, but breaks the Qwen3 contract."""

    exit_code = 10
    summary = "does not behave like Qwen3"


class DaemonError(QwharfError):
    """The daemon cannot be reached or started."""

    exit_code = 11
    summary = "the qwharf daemon cannot be used"


class PortInUse(DaemonError):
    """Another program listens on the port."""

    summary = "the port is taken"


class UnknownDeployment(QwharfError):
    """No deployment of that name."""

    exit_code = 12
    summary = "no such deployment"


class Conflict(QwharfError):
    """The name is taken by something different, or the same work is under way."""

    exit_code = 13
    summary = "already in use"
