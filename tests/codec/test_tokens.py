"""Page tokens (format specification, section 5)."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmsavedstate.codec import BAD, BLOCK, END, MORE, PAGE, SEGMENT, Codec, ScanAnswer, extension_is_built, select

CODECS = ["python", *(["rust"] if extension_is_built() else [])]
END_TOKEN = b"\xff\xff\xff\xff"


def word(value: int) -> bytes:
    return struct.pack("<I", value)


def fill(pattern: bytes = b"\0" * 8) -> bytes:
    return word(0xFFFFFFFE) + pattern


def fills(pages: int, pattern: bytes = b"\0" * 8) -> bytes:
    return word(0xFFFFFFFD) + pattern + word(pages)


def part(out_size: int, data: bytes) -> bytes:
    return word(0xFFFFFFFC) + word(out_size) + word(len(data)) + data


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return select(request.param)


def scan_all(codec: Codec, data: bytes) -> ScanAnswer:
    return codec.scan(data, 0, 0, 0, len(data), BLOCK)


def decoded(codec: Codec, data: bytes) -> bytes:
    segments, position, produced, state, reason = scan_all(codec, data)
    assert (state, reason, produced) == (END, "", BLOCK)
    assert position in (len(data), len(data) - 4)
    out, bad = codec.decode(data, 0, segments, 0, BLOCK)
    assert not bad
    return out


def test_every_token(codec: Codec) -> None:
    page = bytes(range(256)) * 16
    packed = codec.xpress_encode(page)
    assert len(packed) < PAGE
    halves = codec.xpress_encode(page[:1000])
    stream = (
        word(len(packed)) + packed
        + fill(b"ABCDEFGH")
        + word(PAGE) + page
        + part(1000, halves) + part(3096, page[1000:])
        + fills(252, b"\xff" * 8)
        + END_TOKEN
    )  # fmt: skip
    assert decoded(codec, stream) == page + b"ABCDEFGH" * 512 + page + page + b"\xff" * (252 * PAGE)


def test_a_block_of_one_fill_is_20_bytes(codec: Codec) -> None:
    stream = codec.encode_block(bytes(BLOCK))
    assert stream == fills(256) + END_TOKEN
    assert len(stream) == 20
    assert decoded(codec, stream) == bytes(BLOCK)


def test_256_single_fills_are_3076_bytes(codec: Codec) -> None:
    stream = fill() * 256 + END_TOKEN
    assert len(stream) == 3076
    assert decoded(codec, stream) == bytes(BLOCK)


def test_missing_end_is_tolerated_when_the_output_is_complete(codec: Codec) -> None:
    assert decoded(codec, fills(256)) == bytes(BLOCK)


@pytest.mark.parametrize(
    ("stream", "produced"),
    [
        (b"", 0),
        (b"\xff\xff", 0),
        (END_TOKEN, 0),
        (fill() * 255 + END_TOKEN, 255 * PAGE),
        (fill() * 255, 255 * PAGE),
        (fill() * 257 + END_TOKEN, BLOCK),
        (word(0), 0),
        (word(4097) + bytes(4097), 0),
        (word(0xFFFFFFFB), 0),
        (fills(0) + END_TOKEN, 0),
        (fills(257) + END_TOKEN, 0),
        (fills(0xFFFFFFFF) + END_TOKEN, 0),
        (fill() + word(100) + bytes(99), PAGE),
        (part(0, b""), 0),
        (part(4096, bytes(4096)), 0),
        (part(4000, bytes(4000)) + part(97, bytes(97)), 4000),
        (part(4000, bytes(4000)) + fill(), 4000),
        (part(0xFFFFFFFF, b""), 0),
        (word(0xFFFFFFFC) + word(5), 0),
    ],
)
def test_malformed_streams(codec: Codec, stream: bytes, produced: int) -> None:
    segments, position, made, state, reason = scan_all(codec, stream)
    assert state == BAD
    assert reason
    assert made == produced
    assert 0 <= position <= len(stream)
    out, _ = codec.decode(stream, 0, segments, 0, produced)
    assert len(out) == produced


def test_one_bad_page_does_not_spoil_its_neighbours(codec: Codec) -> None:
    good = bytes(range(256)) * 16
    bad = word(6) + b"\x00\x00\x00\x80\xff\xff"
    stream = word(PAGE) + good + bad + word(PAGE) + good + fills(253) + END_TOKEN
    segments, *_, state, _ = scan_all(codec, stream)
    assert state == END
    out, lost = codec.decode(stream, 0, segments, 0, BLOCK)
    assert [(at, size) for at, size, _ in lost] == [(PAGE, PAGE)]
    assert out[:PAGE] == good
    assert out[PAGE : 2 * PAGE] == bytes(PAGE)
    assert out[2 * PAGE : 3 * PAGE] == good


def _stream(seed: int, codec: Codec) -> tuple[bytes, bytes]:
    """A random valid stream and what it decodes to."""
    chance = random.Random(seed)
    plain, stream = b"", b""
    while len(plain) < BLOCK:
        left = (BLOCK - len(plain)) // PAGE
        kind = chance.randrange(5)
        if kind == 0:
            pages, pattern = chance.randrange(1, min(left, 40) + 1), chance.randbytes(8)
            plain, stream = plain + pattern * (512 * pages), stream + fills(pages, pattern)
        elif kind == 1:
            pattern = chance.randbytes(8)
            plain, stream = plain + pattern * 512, stream + fill(pattern)
        elif kind == 2:
            page = chance.randbytes(PAGE)
            plain, stream = plain + page, stream + word(PAGE) + page
        elif kind == 3:
            cut = chance.randrange(1, PAGE)
            page = chance.randbytes(16) * (PAGE // 16)
            first = codec.xpress_encode(page[:cut])
            plain, stream = plain + page, stream + part(cut, first) + part(PAGE - cut, page[cut:])
        else:
            page = chance.randbytes(chance.randrange(1, 900))
            page = (page * PAGE)[:PAGE]
            packed = codec.xpress_encode(page)
            plain, stream = plain + page, stream + word(len(packed)) + packed
    return stream + END_TOKEN, plain


STREAMS = [_stream(seed, select("python")) for seed in range(4)]


@given(st.integers(0, 3), st.integers(0, BLOCK), st.integers(0, 20_000), st.integers(8, 70_000))
@settings(max_examples=120)
def test_any_part_through_any_windows(number: int, start: int, size: int, window: int) -> None:
    """Indexing a block window by window and decoding a part gives the bytes of that part."""
    stream, plain = STREAMS[number]
    end = min(start + size, BLOCK)
    codec = select(CODECS[-1])
    segments, position, produced, state = b"", 0, 0, MORE
    while state == MORE and produced < end:
        piece = stream[position : position + window]
        found, at, made, state, reason = codec.scan(piece, position, position, produced, len(stream), end)
        assert not reason
        if at == position:  # nothing fits into this window
            window *= 2
        segments, position, produced = segments + found, at, made
    out, bad = codec.decode(stream, 0, segments, start, end - start)
    assert not bad
    assert out == plain[start:end]


@pytest.mark.parametrize("number", range(4))
def test_encoder_round_trip(codec: Codec, number: int) -> None:
    plain = STREAMS[number][1]
    assert decoded(codec, codec.encode_block(plain)) == plain


@pytest.mark.skipif(not extension_is_built(), reason="the extension is not built")
@pytest.mark.parametrize("number", range(4))
def test_both_codecs_encode_the_same(number: int) -> None:
    plain = STREAMS[number][1]
    assert select("rust").encode_block(plain) == select("python").encode_block(plain)


tokens = st.one_of(
    st.builds(fill, st.binary(min_size=8, max_size=8)),
    st.builds(fills, st.integers(0, 300)),
    st.builds(part, st.integers(0, 5000), st.binary(max_size=80)),
    st.integers(0, 1 << 32).map(lambda value: word(value & 0xFFFFFFFF)),
    st.binary(max_size=50).map(lambda data: word(len(data)) + data),
    st.binary(max_size=20),
    st.just(word(PAGE) + bytes(PAGE)),
)


@pytest.mark.skipif(not extension_is_built(), reason="the extension is not built")
@given(st.lists(tokens, max_size=12).map(b"".join), st.integers(0, 3000), st.integers(0, BLOCK), st.integers(0, 9000))
@settings(max_examples=800)
def test_both_codecs_agree_on_anything(stream: bytes, window: int, start: int, size: int) -> None:
    """Same index, same output, same faults, for whatever bytes and for a window that ends anywhere."""
    answers = []
    for name in ("python", "rust"):
        codec = select(name)
        answer = codec.scan(stream[:window], 0, 0, 0, len(stream), BLOCK)
        segments = answer[0]
        assert len(segments) % SEGMENT.size == 0
        answers.append((answer, codec.decode(stream, 0, segments, start, min(size, BLOCK - start))))
    assert answers[0] == answers[1]


def test_segments_beyond_the_data_are_faults_not_over_reads(codec: Codec) -> None:
    segment = SEGMENT.pack(0, PAGE, 0, 100, PAGE)
    out, bad = codec.decode(b"short", 0, segment, 0, PAGE)
    assert out == bytes(PAGE)
    assert [(at, size) for at, size, _ in bad] == [(0, PAGE)]


@pytest.mark.parametrize("size", [0, 1, 4095, BLOCK + PAGE])
def test_encoder_wants_whole_pages(codec: Codec, size: int) -> None:
    with pytest.raises(ValueError, match="256 pages"):
        codec.encode_block(bytes(size))
