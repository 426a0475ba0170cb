"""``verify.run`` as a whole: any endpoint at all gets a report or a typed error, in finite time."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fake_endpoint import NAME, PRESETS, Endpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf.errors import NetworkError, UsageError
from qwharf.types import Check
from qwharf.verify import CHECKS, Reference, Target, run


@contextmanager
def answering(status: int, kind: str, body: bytes) -> Iterator[str]:
    """A server that answers everything alike."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def test_checks_are_reported_in_order_as_they_end(reference: Reference) -> None:
    seen: list[Check] = []
    with Endpoint(reference) as endpoint:
        wanted = {"tool-call", "models-listed", "max-tokens"}
        report = run(Target(base_url=f"{endpoint.root}/v1"), on_check=seen.append, only=wanted)
    assert tuple(seen) == report.checks
    assert [c.id for c in seen] == [c.id for c in CHECKS if c.id in wanted]
    assert report.deployment == report.model == NAME  # found by itself: it is the only one
    assert report.passed


def test_an_unknown_check_is_a_usage_error() -> None:
    with pytest.raises(UsageError) as e:
        run(Target(base_url="http://127.0.0.1:9/v1"), only={"no-such-check"})
    assert "no-such-check" in e.value.subject


def test_nothing_there_is_a_network_error() -> None:
    with pytest.raises(NetworkError) as e:
        run(Target(base_url="http://127.0.0.1:9/v1"))
    assert e.value.hint


def test_several_models_need_a_name() -> None:
    body = json.dumps({"data": [{"id": "a"}, {"id": "b"}]}).encode()
    with answering(200, "application/json", body) as url, pytest.raises(UsageError) as e:
        run(Target(base_url=url))
    assert "a, b" in e.value.found
    assert "--model a" in e.value.hint


def test_a_hanging_deployment_fails_within_its_deadlines(reference: Reference) -> None:
    with Endpoint(reference, "hangs") as endpoint:
        target = Target(base_url=f"{endpoint.root}/v1", deadline_seconds=0.2, reference=reference)
        report = run(target, only={"thinking-on", "tool-call", "stream-shape"})
    assert {c.status for c in report.checks} == {"fail"}
    assert all("no complete answer within" in c.found for c in report.checks)


def test_a_slow_deployment_is_no_broken_one(reference: Reference) -> None:
    with Endpoint(reference, "slow") as endpoint:
        target = Target(base_url=f"{endpoint.root}/v1", deadline_seconds=0.5, reference=reference)
        report = run(target, only={"thinking-on", "tool-call", "tool-call-stream"})
    assert {c.status for c in report.checks} == {"pass"}


def test_a_stream_that_only_drips_is_given_up(reference: Reference) -> None:
    with Endpoint(reference, "drips") as endpoint:
        target = Target(base_url=f"{endpoint.root}/v1", deadline_seconds=0.3)
        (check,) = run(target, only={"stream-shape"}).checks
    assert check.status == "fail"
    assert "no complete answer within" in check.found


def test_keys_go_where_they_belong() -> None:
    seen: list[tuple[str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path.split("/")[1], self.headers["Authorization"]))
            self.send_error(500)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    class Bytes:
        def encode(self, text: str) -> list[int]:
            return list(text.encode())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        root = f"http://127.0.0.1:{server.server_address[1]}"
        target = Target(
            base_url=f"{root}/v1",
            served_name="x",
            api_key="public",
            reference=Reference("x", Bytes()),
            probe_url=f"{root}/probe",
            probe_headers={"Authorization": "Bearer private"},
        )
        run(target, only={"template-token-exact", "max-tokens"})
        server.shutdown()
        thread.join()
    assert set(seen) == {("probe", "Bearer private"), ("v1", "Bearer public")}


def test_without_probe_routes_the_template_is_checked_by_counts(reference: Reference) -> None:
    for sabotage, status in (((), "pass"), (("escapes-html",), "fail")):
        with Endpoint(reference, *sabotage) as endpoint:
            target = Target(base_url=f"{endpoint.root}/v1", reference=reference)
            (check,) = run(target, only={"template-token-exact"}).checks
        assert check.status == status
        assert "does not show its prompt" in check.found or "prompt tokens where" in check.found


def test_without_a_reference_context_is_measured(reference: Reference) -> None:
    for sabotage, status in (((), "pass"), (("cuts-early",), "fail"), (("cuts-context",), "pass")):
        with Endpoint(reference, *sabotage) as endpoint:
            target = Target(base_url=f"{endpoint.root}/v1", context_tokens=endpoint.context)
            (check,) = run(target, only={"context-honoured"}).checks
        assert check.status == status, check


def test_what_cannot_be_seen_is_skipped_not_passed(reference: Reference) -> None:
    with Endpoint(reference, "no-slots") as endpoint:
        target = Target(
            base_url=f"{endpoint.root}/v1", probe_url=f"{endpoint.root}/probe", sampling=PRESETS
        )
        (check,) = run(target, only={"sampling-defaults"}).checks
    assert check.status == "skip"
    assert "does not show" in check.meaning


def test_needs_are_named_when_they_are_not_met(reference: Reference) -> None:
    with Endpoint(reference) as endpoint:
        report = run(Target(base_url=f"{endpoint.root}/v1"))
    skipped = {c.id: c.meaning for c in report.checks if c.status == "skip"}
    assert "--checkpoint" in skipped["template-token-exact"]
    assert "--context" in skipped["context-honoured"]
    assert "only for instruct models" in skipped["thinking-absent"]
    assert report.passed


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (200, "text/html", b"<html>hello</html>"),
        (200, "application/json", b"[1, 2, 3]"),
        (200, "application/json", b'{"choices": [{"message": null}]}'),
        (200, "application/json", b'{"choices": [{"message": {"content": 7}}]}'),
        (200, "text/event-stream", b"data: {}\n\ndata: [DONE]\n\n"),
        (200, "text/event-stream", b"data: {"),
        (500, "text/plain", b"\xff\xfe"),
        (401, "application/json", b'{"error": "no"}'),
        (200, "application/json", b""),
    ],
)
def test_any_answer_becomes_a_report(status: int, kind: str, body: bytes) -> None:
    with answering(status, kind, body) as url:
        report = run(Target(base_url=url, served_name="x", context_tokens=4096))
    assert not report.passed
    assert not [c for c in report.checks if c.status == "pass"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "delta", "content", "tool_calls", "usage", "id"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(body=JSON, stream=st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_json_becomes_a_report(body: Any, stream: bool) -> None:
    data = json.dumps(body).encode()
    if stream:
        data = b"data: " + data + b"\n\ndata: [DONE]\n\n"
    kind = "text/event-stream" if stream else "application/json"
    with answering(200, kind, data) as url:
        report = run(
            Target(base_url=url, served_name="x"),
            only={"models-listed", "thinking-on", "tool-call", "stream-shape", "logprobs"},
        )
    assert len(report.checks) == 5
    assert not report.passed
