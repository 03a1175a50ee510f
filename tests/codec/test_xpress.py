"""Plain LZ77 of MS-XCA: published examples, independent decoder and encoder, one codec against the other, hostile input."""

from __future__ import annotations

import ctypes
import glob
import os
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmsavedstate.codec import Codec, extension_is_built, select
from vmsavedstate.errors import CodecError

CODECS = ["python", *(["rust"] if extension_is_built() else [])]


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return select(request.param)


# The two examples of MS-XCA, section 3.1 (plain LZ77): the alphabet, and 300 times "abc".
PUBLISHED = [
    (b"abcdefghijklmnopqrstuvwxyz", "3f000000" + b"abcdefghijklmnopqrstuvwxyz".hex()),
    (b"abc" * 100, "ffffff1f" + b"abc".hex() + "17000fff2601"),
]


@pytest.mark.parametrize(("plain", "packed"), PUBLISHED)
def test_published_examples(codec: Codec, plain: bytes, packed: str) -> None:
    assert codec.xpress_decode(bytes.fromhex(packed), len(plain)) == plain


def _page(seed: int) -> bytes:
    """A page such as memory has: words, repeated runs, zeros, noise."""
    chance = random.Random(seed)
    out = bytearray()
    while len(out) < 4096:
        kind = chance.randrange(5)
        if kind == 0:
            out += bytes(chance.randrange(1, 900))
        elif kind == 1:
            out += chance.randbytes(chance.randrange(1, 300))
        elif kind == 2 and out:
            start = chance.randrange(len(out))
            out += out[start : start + chance.randrange(3, 400)]
        elif kind == 3:
            out += chance.randbytes(chance.randrange(1, 6)) * chance.randrange(1, 90)
        else:
            out += b"".join(chance.choice((b"mov ", b"call ", b"\x48\x89", b"\0\0\0\0")) for _ in range(40))
    return bytes(out[:4096])


PAGES = [_page(seed) for seed in range(60)]


def test_round_trip(codec: Codec) -> None:
    for page in PAGES:
        assert codec.xpress_decode(codec.xpress_encode(page), len(page)) == page


@given(
    st.binary(max_size=600)
    | st.lists(st.sampled_from([b"a", b"ab", b"\0" * 70, b"xyz" * 9]), max_size=60).map(b"".join)
)
def test_round_trip_of_anything(data: bytes) -> None:
    packed = {name: select(name).xpress_encode(data) for name in CODECS}
    assert len(set(packed.values())) == 1, "both make the same bytes"
    for name in CODECS:
        assert select(name).xpress_decode(packed["python"], len(data)) == data


@pytest.mark.parametrize("size", [3, 9, 10, 24, 25, 278, 279, 280, 281, 65_535, 65_536, 65_560, 70_000, 200_000])
def test_lengths_at_every_form_of_a_match(codec: Codec, size: int) -> None:
    """A nibble, a byte, 16 bits, 32 bits: one match of each length and its neighbours."""
    data = b"q" + b"q" * size
    packed = codec.xpress_encode(data)
    assert codec.xpress_decode(packed, len(data)) == data
    assert len(packed) < 24


@pytest.mark.parametrize("distance", [1, 2, 3, 7, 8, 4095, 8191, 8192, 8193])
def test_distances(codec: Codec, distance: int) -> None:
    chance = random.Random(distance)
    data = (b"\1marker\2" + chance.randbytes(distance))[:distance] + b"\1marker\2"
    assert codec.xpress_decode(codec.xpress_encode(data), len(data)) == data


def test_stops_when_the_output_is_full(codec: Codec) -> None:
    """A last flag word without use: in 12 of the 185 pages of the real state 4 bytes stay unread (section 5)."""
    packed = codec.xpress_encode(PAGES[0])
    assert codec.xpress_decode(packed + b"\xff\xff\xff\xff", 4096) == PAGES[0]


@pytest.mark.parametrize(
    "packed",
    [
        "00000080" + "0000",  # a match before any output
        "00000000",
        "",
        "0000",
        "00000040" + "61" + "0f00",  # one literal, then a match at a distance of 2
        "00000040" + "61" + "0700" + "0fff" + "0100",  # a long form below 22
        "00000040" + "61" + "0700" + "0fff" + "0000" + "01000000",
        "00000040" + "61" + "0700" + "0fff" + "0000",  # a long form that breaks off
    ],
)
def test_malformed(codec: Codec, packed: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec.xpress_decode(bytes.fromhex(packed), 64)
    assert 0 <= caught.value.position <= len(packed) // 2
    assert caught.value.produced <= 64
    assert caught.value.message


def _outcome(decode: Callable[[bytes, int], bytes], data: bytes, size: int) -> tuple[str, object, object]:
    try:
        return "fine", decode(data, size), None
    except CodecError as error:
        return error.message, error.position, error.produced


@pytest.mark.skipif(not extension_is_built(), reason="the extension is not built")
@given(
    st.binary(max_size=300) | st.lists(st.sampled_from([0, 255, 7, 15, 64, 128, 1]), max_size=40).map(bytes),
    st.integers(0, 5000),
)
@settings(max_examples=2500)
def test_both_codecs_agree_on_anything(data: bytes, size: int) -> None:
    """Same output, or the same error at the same place; never a crash, a hang or an over-read."""
    assert _outcome(select("rust").xpress_decode, data, size) == _outcome(select("python").xpress_decode, data, size)


@pytest.mark.skipif(not extension_is_built(), reason="the extension is not built")
@given(st.sampled_from(range(len(PAGES))), st.integers(0, 4095), st.integers(0, 255), st.integers(0, 4200))
@settings(max_examples=600)
def test_both_codecs_agree_on_damaged_pages(number: int, at: int, byte: int, size: int) -> None:
    packed = bytearray(select("rust").xpress_encode(PAGES[number]))
    packed[at % len(packed)] = byte
    data = bytes(packed)
    assert _outcome(select("rust").xpress_decode, data, size) == _outcome(select("python").xpress_decode, data, size)


@pytest.mark.peer
def test_an_independent_decoder_reads_what_we_encode(codec: Codec) -> None:
    lzxpress = pytest.importorskip("dissect.util.compression.lzxpress")
    for page in PAGES:
        assert lzxpress.decompress(codec.xpress_encode(page)) == page


def _samba() -> ctypes.CDLL | None:
    """Samba's encoder, from whichever of its private libraries exports it (Debian: samba-libs)."""
    for pattern in ("libcompression*", "libndr-samba-samba4*"):
        for path in glob.glob(f"/usr/lib/*/samba/{pattern}"):
            try:
                library = ctypes.CDLL(path)
            except OSError:
                continue
            if hasattr(library, "lzxpress_compress"):
                library.lzxpress_compress.restype = ctypes.c_ssize_t
                return library
    return None


@pytest.mark.peer
def test_we_read_what_an_independent_encoder_makes(codec: Codec) -> None:
    library = _samba()
    if library is None:
        pytest.skip("Samba's encoder is not installed (Debian: samba-libs)")
    for plain in [*PAGES, b"a" * 70_000, b"ab" * 40_000, os.urandom(5000), b"x"]:
        room = ctypes.create_string_buffer(2 * len(plain) + 64)
        size = library.lzxpress_compress(plain, ctypes.c_uint32(len(plain)), room, ctypes.c_uint32(len(room)))
        assert size > 0
        assert codec.xpress_decode(room.raw[:size], len(plain)) == plain
