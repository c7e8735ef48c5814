"""Follows the frames that an HTTP/2 server sends, to know where another frame may be put between them.

Rules kept here: never inside a frame, never inside a header block, never before the server's first frame. Pure: no
sockets. Left out: what the frames mean.

Source: RFC 9113, sections 3.4, 4.1, 4.3, 6.8 and 6.10.
"""

HEADER_BYTES = 9
LENGTH_BYTES = 3
TYPES_OF_BLOCKS = frozenset({1, 5, 9})  # HEADERS, PUSH_PROMISE, CONTINUATION
END_HEADERS = 0x4

# GOAWAY, the first of a graceful end: no error, and no stream is refused that the client has begun meanwhile.
GOAWAY = (8).to_bytes(LENGTH_BYTES, "big") + b"\x07\x00" + bytes(4) + (2**31 - 1).to_bytes(4, "big") + bytes(4)


class Frames:
    """Where one connection stands."""

    def __init__(self) -> None:
        self.is_between = False
        self._left_bytes = 0
        self._header = b""
        self._is_block_open = False

    def follow(self, sent: bytes) -> int:
        """Follow what is sent next; returns the last place in it where a frame may be put, or -1."""
        place, at = -1, 0
        while at < len(sent):
            if self._left_bytes:
                passed = min(self._left_bytes, len(sent) - at)
                self._left_bytes -= passed
            else:
                passed = self._read_header(sent[at : at + HEADER_BYTES - len(self._header)])
            at += passed
            self.is_between = not (self._left_bytes or self._header or self._is_block_open)
            if self.is_between:
                place = at
        return place

    def _read_header(self, part: bytes) -> int:
        self._header += part
        if len(self._header) == HEADER_BYTES:
            self._left_bytes = int.from_bytes(self._header[:LENGTH_BYTES], "big")
            kind, flags = self._header[LENGTH_BYTES], self._header[LENGTH_BYTES + 1]
            if kind in TYPES_OF_BLOCKS:
                self._is_block_open = not flags & END_HEADERS
            self._header = b""
        return len(part)
