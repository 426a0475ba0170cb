"""Events are cut where they end, wherever the network cut them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.gateway.events import EventCutter, is_complete

EVENT = st.builds(
    lambda text, end: b"data: " + text.encode() + end,
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12),
    st.sampled_from([b"\n\n", b"\r\n\r\n"]),
)


@given(st.lists(EVENT, max_size=6), st.binary(max_size=5), st.lists(st.integers(0, 120)))
def test_nothing_is_lost_and_nothing_is_torn(
    events: list[bytes], half: bytes, cuts: list[int]
) -> None:
    half = half.replace(b"\n", b"")
    raw = b"".join(events) + half
    at = [0, *sorted(c for c in cuts if c < len(raw)), len(raw)]
    cutter = EventCutter()
    out = [cutter.feed(raw[a:b]) for a, b in itertools.pairwise(at)]
    assert b"".join(out) == b"".join(events)
    assert all(not piece or piece.endswith((b"\n\n", b"\r\n\r\n")) for piece in out)
    assert cutter.pending_bytes == len(half)


@pytest.mark.parametrize(
    ("latest", "complete"),
    [
        (b"data: [DONE]\n\n", True),
        (b"data: {}\n\ndata: [DONE]\r\n\r\n", True),
        (b'data: {}\n\ndata: {"error":{}}\n\n', True),
        (b'data: {"error":{}}\n\ndata: {}\n\n', False),
        (b'data: {"text":"data: [DONE]"}\n\n', False),
        (b"", False),
    ],
)
def test_the_end_is_known(latest: bytes, complete: bool) -> None:
    assert is_complete(latest) is complete
