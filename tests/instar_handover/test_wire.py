import json

import pytest

from instar_handover import machine, wire

STATUS = wire.Status(machine.State.ACTIVE, served=3, in_flight=2, accepted=1, worker_deaths=4)


def test_a_request_is_a_word_and_an_id_and_unknown_keys_are_ignored() -> None:
    assert wire.decode_request(b'{"word": "pause", "id": 7, "since": "2"}') == wire.Request("pause", 7)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"word": 1, "id": 1}',
        b'{"word": "pause", "id": "1"}',
        b'{"word": "pause", "id": 1, "body": []}',
    ],
)
def test_what_is_no_request_is_refused(datagram: bytes) -> None:
    with pytest.raises(wire.WireError, match=r"^cannot read the message"):
        wire.decode_request(datagram)


@pytest.mark.parametrize(
    "datagram",
    [
        b"{}",
        b'{"state": "lost", "id": 1}',
        b'{"state": "active", "id": "1"}',
        b'{"state": "active", "served": "3"}',
        b'{"state": "active", "word": 1}',
    ],
)
def test_what_no_instance_says_is_refused(datagram: bytes) -> None:
    with pytest.raises(wire.WireError, match=r"^cannot read the message"):
        wire.decode_message(datagram)


def test_an_answer_carries_the_whole_status_and_says_whether_it_was_obeyed() -> None:
    obeyed = json.loads(wire.encode_answer(7, STATUS))
    refused = json.loads(wire.encode_answer(8, STATUS, error="cannot"))
    counts = {"served": 3, "in_flight": 2, "accepted": 1, "worker_deaths": 4}
    status = {"state": "active", **counts, "protocol": wire.PROTOCOL}
    assert obeyed == {"id": 7, "ok": True, "error": "", **status}
    assert refused == {"id": 8, "ok": False, "error": "cannot", **status}


def test_what_is_said_is_read_as_it_was_meant() -> None:
    request = wire.Request("status", 7, {"depth": 1})
    assert wire.decode_request(wire.encode_request(request)) == request
    assert wire.decode_message(wire.encode_answer(7, STATUS, error="cannot")) == wire.Message(STATUS, 7, "", "cannot")
    assert wire.decode_message(wire.encode_notice("prepared", STATUS)) == wire.Message(STATUS, None, "prepared", "")


def test_an_answer_brings_the_body_that_the_word_asked_for() -> None:
    assert json.loads(wire.encode_answer(7, STATUS, body={"depth": 1}))["body"] == {"depth": 1}
