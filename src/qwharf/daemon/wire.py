"""What the daemon and its client agree on: routes, and errors that stay themselves."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from qwharf import errors
from qwharf.codec import encode
from qwharf.errors import DaemonError, QwharfError

PREFIX = "/qwharf/v1"
PROGRAM = "qwharf"
"""What the status says, by which a client knows a qwharf daemon."""
HEARTBEAT_SECONDS = 5.0
"""A stream with nothing to say sends an empty line this often."""

STATUS_CODES: tuple[tuple[type[QwharfError], int], ...] = (
    (errors.UsageError, 400),
    (errors.UnknownDeployment, 404),
    (errors.UnknownModel, 404),
    (errors.Conflict, 409),
    (errors.InvalidFile, 422),
    (errors.FormatUnavailable, 422),
    (errors.DoesNotFit, 422),
    (errors.EngineError, 502),
    (errors.DaemonError, 503),
    (errors.StorageError, 507),
)


def deployment_path(name: str, *more: str) -> str:
    """The route of one deployment, or below it."""
    return "/".join([PREFIX, "deployments", quote(name, safe=""), *more])


def error_to_json(error: QwharfError) -> dict[str, Any]:
    """``{"error": …}``, from which :func:`error_from_json` makes the same error."""
    return {
        "error": {
            "code": error.code,
            "exit_code": error.exit_code,
            "message": str(error),
            "subject": error.subject,
            "found": error.found,
            "expected": error.expected,
            "hint": error.hint,
            "facts": encode(error.facts),
        }
    }


def http_status(error: QwharfError) -> int:
    """The HTTP status that goes with ``error``."""
    return next((status for kind, status in STATUS_CODES if isinstance(error, kind)), 500)


def error_from_json(data: Any) -> QwharfError:
    """The error that ``data`` tells of; one that we do not know becomes a :class:`DaemonError`."""
    told = data.get("error") if isinstance(data, dict) else None
    if not isinstance(told, dict):
        return DaemonError("daemon", found="an answer in an unknown shape")
    kind = _KINDS.get(str(told.get("code")))
    if kind is None:
        return DaemonError(
            str(told.get("subject") or "daemon"), found=str(told.get("message") or told)[:500]
        )
    facts = told.get("facts")
    error = kind(
        str(told.get("subject", "")),
        found=str(told.get("found", "")),
        expected=str(told.get("expected", "")),
        hint=str(told.get("hint", "")),
    )
    error.facts = dict(facts) if isinstance(facts, dict) else {}
    return error


def _kinds(base: type[QwharfError]) -> dict[str, type[QwharfError]]:
    found = {base("").code: base}
    for kind in base.__subclasses__():
        found |= _kinds(kind)
    return found


_KINDS = _kinds(QwharfError)
