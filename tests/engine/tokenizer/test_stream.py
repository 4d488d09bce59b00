"""Bytes that come in pieces become whole characters."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lcpu.engine.tokenizer import Utf8Stream

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(ends)]


@given(text=TEXT, cuts=st.lists(st.integers(0, 1000)))
def test_however_text_is_cut(text, cuts):
    stream = Utf8Stream()
    assert "".join(map(stream.feed, pieces_of(text.encode(), cuts))) == text
    assert stream.flush() == ""


@given(data=st.binary(), cuts=st.lists(st.integers(0, 1000)))
def test_however_any_bytes_are_cut(data, cuts):
    stream = Utf8Stream()
    streamed = "".join(map(stream.feed, pieces_of(data, cuts)))
    assert streamed + stream.flush() == data.decode("utf-8", errors="replace")


def test_a_character_waits_for_its_rest():
    stream = Utf8Stream()
    assert [stream.feed(bytes([byte])) for byte in "a🦙".encode()] == ["a", "", "", "", "🦙"]


def test_flush_shows_what_never_became_whole_and_starts_anew():
    stream = Utf8Stream()
    assert stream.feed("a🦙".encode()[:3]) == "a"
    assert stream.flush() == "\ufffd"
    assert stream.feed(b"b") == "b"
    assert stream.flush() == ""
