"""The loop where callbacks open and close descriptors."""

import functools
import os
import socket

from agent.keeper import loop


def test_what_happened_to_a_closed_descriptor_is_not_told_to_the_next_of_its_number() -> None:
    on = loop.Loop()
    pairs = [socket.socketpair() for _ in range(2)]
    told: list[str] = []
    opened: list[int] = []

    def replace_other(number: int, _events: int) -> None:
        told.append("old")
        other = next(mine.fileno() for mine, _ in pairs if mine.fileno() != number)
        on.unwatch(other)
        spare, writer = os.pipe()  # nothing is ever written
        os.dup2(spare, other)
        on.watch(other, loop.READ, lambda _: told.append("new"))
        opened.extend((spare, writer))

    for mine, theirs in pairs:  # both can be read in one round
        on.watch(mine.fileno(), loop.READ, functools.partial(replace_other, mine.fileno()))
        theirs.send(b"x")
    on.call_later(0, on.stop)
    on.run()
    for each in (*pairs[0], *pairs[1]):
        each.close()
    for descriptor in opened:
        os.close(descriptor)
    assert told == ["old"]
