"""Who gets a certificate, rule by rule, on values alone; `tests/security/test_enrolment.py` has it over real gRPC."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from controller.core import errors, model
from controller.trust import authorities, certificates, enrolment, join_tokens

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
K = authorities.Kind


@pytest.fixture
def known(tmp_path: Path) -> authorities.Authorities:
    return authorities.create(tmp_path / "ca", "fleet.example", NOW)


@pytest.fixture
def terms(known: authorities.Authorities) -> enrolment.Terms:
    return enrolment.Terms(known.signing(K.AGENTS), "fleet.example", DAY, 1, NOW)


@pytest.fixture
def token(known: authorities.Authorities) -> join_tokens.Token:
    return join_tokens.make(known.trusted(K.SERVERS))


def stored(token: join_tokens.Token) -> model.JoinToken:
    return model.JoinToken(token.id, model.NodeId("n-1"), token.secret_hash, NOW + timedelta(minutes=5))


def taken_in(
    token: join_tokens.Token, terms: enrolment.Terms
) -> tuple[ec.EllipticCurvePrivateKey, model.JoinToken, model.NodeIdentity]:
    key = certificates.make_key()
    return key, *enrolment.enrol(stored(token), token, None, key.public_key(), terms)


def code_of(caught: pytest.ExceptionInfo[errors.InstarError]) -> str:
    return caught.value.code


def test_a_join_token_lets_in_until_its_last_instant_and_not_then(
    token: join_tokens.Token, terms: enrolment.Terms
) -> None:
    until = stored(token).expires_at
    key = certificates.make_key().public_key()
    enrolment.enrol(stored(token), token, None, key, replace(terms, now=until - timedelta(microseconds=1)))
    with pytest.raises(errors.UnauthenticatedError) as caught:
        enrolment.enrol(stored(token), token, None, key, replace(terms, now=until))
    assert code_of(caught) == "token_expired"


def test_a_join_token_with_another_secret_or_that_nobody_has_made_lets_nobody_in(
    token: join_tokens.Token, terms: enrolment.Terms
) -> None:
    key = certificates.make_key().public_key()
    for known in (None, replace(stored(token), secret_hash="0" * 64)):
        with pytest.raises(errors.UnauthenticatedError) as caught:
            enrolment.enrol(known, token, None, key, terms)
        assert code_of(caught) == "token_unknown"


def test_a_used_join_token_gives_its_key_the_same_again_and_other_keys_nothing(
    token: join_tokens.Token, terms: enrolment.Terms
) -> None:
    key, used, known = taken_in(token, terms)
    later = replace(terms, now=NOW + DAY)
    assert enrolment.enrol(used, token, known, key.public_key(), later) == (used, known)
    renewed = enrolment.renew(known, known.key_hash, certificates.make_key().public_key(), terms)
    for identity, asking in ((known, certificates.make_key()), (renewed, key), (None, key)):
        with pytest.raises(errors.UnauthenticatedError) as caught:
            enrolment.enrol(used, token, identity, asking.public_key(), terms)
        assert code_of(caught) == "token_used"


def test_a_new_join_token_ends_a_lock_and_the_certificates_before(
    token: join_tokens.Token, terms: enrolment.Terms
) -> None:
    _, _, known = taken_in(token, terms)
    key = certificates.make_key()
    _, made = enrolment.enrol(stored(token), token, enrolment.lock(known, "copied"), key.public_key(), terms)
    assert (made.locked_because, made.serial, made.previous_key_hash) == ("", 2, "")
    assert enrolment.vouch(made, made.key_hash) == made
    with pytest.raises(enrolment.CloneError):
        enrolment.vouch(made, known.key_hash)


def test_a_locked_node_gets_nothing_and_keeps_the_first_reason(
    token: join_tokens.Token, terms: enrolment.Terms
) -> None:
    key, _, known = taken_in(token, terms)
    locked = enrolment.lock(enrolment.lock(known, "copied"), "seen again")
    assert locked.locked_because == "copied"
    with pytest.raises(errors.RefusedError, match="copied") as caught:
        enrolment.vouch(locked, locked.key_hash)
    assert code_of(caught) == "identity_locked"
    with pytest.raises(errors.RefusedError) as caught:
        enrolment.renew(locked, locked.key_hash, key.public_key(), terms)
    assert code_of(caught) == "identity_locked"


def test_the_certificate_before_the_latest_is_good_for_a_stream_and_for_asking_again_alone(
    token: join_tokens.Token, terms: enrolment.Terms
) -> None:
    _, _, known = taken_in(token, terms)
    second, third = certificates.make_key().public_key(), certificates.make_key().public_key()
    renewed = enrolment.renew(known, known.key_hash, second, terms)
    assert enrolment.vouch(renewed, known.key_hash) == renewed
    assert enrolment.renew(renewed, known.key_hash, second, terms) == renewed
    with pytest.raises(enrolment.CloneError):
        enrolment.renew(renewed, known.key_hash, third, terms)
    again = enrolment.renew(renewed, renewed.key_hash, third, terms)
    with pytest.raises(enrolment.CloneError):
        enrolment.vouch(again, known.key_hash)


def test_a_join_token_names_the_authorities_of_the_listeners_whatever_their_order(
    tmp_path: Path, known: authorities.Authorities
) -> None:
    trusted = authorities.begin_rotation(tmp_path / "ca", K.SERVERS, NOW).trusted(K.SERVERS)
    assert len(trusted) == 2
    both = join_tokens.authorities_hash(trusted)
    assert join_tokens.authorities_hash(trusted[::-1]) == both  # the next step of the rotation turns them round
    assert join_tokens.authorities_hash(known.trusted(K.SERVERS)) != both


def shown(key: ec.EllipticCurvePrivateKey, node_id: str = "n-1") -> enrolment.Recovery:
    said = enrolment.message(node_id, "challenge", "request")
    return enrolment.Recovery("challenge", "request", key.sign(said, ec.ECDSA(hashes.SHA256())))


def test_a_node_comes_back_as_often_as_it_may_by_the_key_of_a_certificate_that_ran_out(
    token: join_tokens.Token, terms: enrolment.Terms
) -> None:
    key, _, known = taken_in(token, terms)
    fresh, late = certificates.make_key(), replace(terms, now=NOW + 2 * DAY)
    for who, by, on, code in (
        (known, shown(key), terms, "certificate_valid"),
        (known, shown(fresh), late, "signature_wrong"),
        (known, shown(key, "n-2"), late, "signature_wrong"),
        (replace(known, recoveries_left=0), shown(key), late, "recoveries_spent"),
        (enrolment.lock(known, "copied"), shown(key), late, "identity_locked"),
    ):
        with pytest.raises(errors.InstarError) as caught:
            enrolment.recover(who, by, fresh.public_key(), on)
        assert code_of(caught) == code
    back = enrolment.recover(known, shown(key), fresh.public_key(), late)
    assert (back.recoveries_left, back.serial) == (0, 2)
    assert enrolment.recover(back, shown(key), fresh.public_key(), late) == back  # its answer was lost


def test_a_challenge_is_good_for_its_node_its_time_and_its_controller() -> None:
    challenges = enrolment.Challenges(b"secret of this life")
    made = challenges.make("n-1", NOW)
    challenges.check("n-1", made, NOW + enrolment.CHALLENGE_LIFETIME)
    until, _, seal = made.partition(".")
    for node_id, challenge, at in (
        ("n-2", made, NOW),
        ("n-1", made, NOW + enrolment.CHALLENGE_LIFETIME + timedelta(seconds=1)),
        ("n-1", f"{int(until) + 1}.{seal}", NOW),
        ("n-1", f"{until}.{'0' * 64}", NOW),
        ("n-1", enrolment.Challenges(b"of another life").make("n-1", NOW), NOW),
        ("n-1", "", NOW),
    ):
        with pytest.raises(errors.UnauthenticatedError) as caught:
            challenges.check(node_id, challenge, at)
        assert code_of(caught) == "challenge_wrong"
