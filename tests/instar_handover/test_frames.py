from hypothesis import given
from hypothesis import strategies as st

from instar_handover import frames

DATA, HEADERS, SETTINGS, CONTINUATION = 0, 1, 4, 9


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + (1).to_bytes(4, "big") + payload


# What a server may send, as pieces between which another frame may be put.
block = st.builds(
    lambda parts, last: (
        frame(HEADERS, 0, b"h")
        + b"".join(frame(CONTINUATION, 0, part) for part in parts)
        + frame(CONTINUATION, frames.END_HEADERS, last)
    ),
    st.lists(st.binary(max_size=20), max_size=3),
    st.binary(max_size=20),
)
whole = st.builds(frame, st.sampled_from([DATA, SETTINGS, 6, 7, 8]), st.integers(0, 255), st.binary(max_size=40))
headers = st.builds(lambda payload: frame(HEADERS, frames.END_HEADERS, payload), st.binary(max_size=40))
pieces = st.lists(st.one_of(block, whole, headers), min_size=1, max_size=8)


@given(pieces=pieces, cuts=st.lists(st.integers(0, 400), max_size=12))
def test_a_place_is_always_between_pieces_and_the_last_one_of_what_was_sent(
    pieces: list[bytes], cuts: list[int]
) -> None:
    sent = b"".join(pieces)
    between = {sum(map(len, pieces[:count])) for count in range(1, len(pieces) + 1)}
    followed, began = frames.Frames(), 0
    for end in sorted({min(cut, len(sent)) for cut in cuts} | {len(sent)}):
        place = followed.follow(sent[began:end])
        expected = max((each for each in between if began < each <= end), default=None)
        assert (None if place < 0 else began + place) == expected
        assert followed.is_between == (end in between)
        began = end


def test_nothing_is_put_before_the_servers_first_frame() -> None:
    assert not frames.Frames().is_between


def test_goaway_is_a_frame_without_error_that_refuses_no_stream() -> None:
    assert bytes.fromhex("000008 07 00 00000000 7fffffff 00000000") == frames.GOAWAY
