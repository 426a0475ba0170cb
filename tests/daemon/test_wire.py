"""Errors cross the wire as what they are."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf import errors
from qwharf.daemon.wire import error_from_json, error_to_json, http_status
from qwharf.errors import DaemonError, QwharfError


def kinds(base: type[QwharfError]) -> list[type[QwharfError]]:
    return [base, *(k for sub in base.__subclasses__() for k in kinds(sub))]


TEXT = st.text(max_size=20)


@pytest.mark.parametrize("kind", kinds(QwharfError))
def test_each_kind_arrives(kind: type[QwharfError]) -> None:
    sent = kind("s", found="f", expected="e", hint="h", reason="r", subject_of="x")
    got = error_from_json(json.loads(json.dumps(error_to_json(sent))))
    assert type(got) is kind
    assert (got.subject, got.found, got.expected, got.hint) == ("s", "f", "e", "h")
    assert got.facts == sent.facts
    assert 400 <= http_status(sent) < 600


def test_the_table_knows_all_that_the_daemon_raises() -> None:
    assert http_status(errors.UnknownDeployment("x")) == 404
    assert http_status(errors.PortInUse("x")) == 503
    assert http_status(errors.ChecksumMismatch("x")) == 422


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(st.none() | st.integers() | TEXT, lambda x: st.dictionaries(TEXT, x), max_leaves=4)
)
def test_nonsense_is_an_error_too(data: object) -> None:
    for told in (data, {"error": data}, {"error": {"code": data}}):
        assert isinstance(error_from_json(told), QwharfError)


def test_openai_shaped_errors_are_the_daemons() -> None:
    got = error_from_json({"error": {"message": "too big", "type": "x", "code": "y"}})
    assert isinstance(got, DaemonError)
    assert got.found == "too big"
