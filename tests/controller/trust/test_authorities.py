"""Authorities on disk, and what they issue."""

from __future__ import annotations

import fcntl
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import oid

from controller.core import errors
from controller.trust import authorities, certificates, clients, join_tokens, private_files, spiffe

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
K, R = authorities.Kind, authorities.Role


def test_each_kind_has_an_authority_of_its_own_in_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    known = authorities.create(tmp_path / "ca", "fleet.example", NOW)
    assert known.domain == "fleet.example"
    signing = [known.signing(kind).certificate for kind in K]
    assert len({each.fingerprint(hashes.SHA256()) for each in signing}) == 3
    assert len({each.subject.rfc4514_string() for each in signing}) == 3
    for kind in K:
        assert stat.S_IMODE((tmp_path / "ca" / f"{kind.value}.json").stat().st_mode) == 0o600
    (tmp_path / "ca" / "agents.json").unlink()  # one is enough to be lost
    with pytest.raises(errors.RefusedError, match="there are some"):
        authorities.create(tmp_path / "ca", "fleet.example", NOW)
    with pytest.raises(errors.InvalidRequestError, match="domain"):
        authorities.create(tmp_path / "other", "Fleet", NOW)


def test_authorities_are_made_while_no_other_program_can_change_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, tried = certificates.make_authority, []

    def watched(name: str, domain: str, now: datetime) -> certificates.Issuer:
        with (tmp_path / ".ca.lock").open("w") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried.append(name)
        return make(name, domain, now)

    monkeypatch.setattr(certificates, "make_authority", watched)
    authorities.create(tmp_path / "ca", "fleet", NOW)
    authorities.begin_rotation(tmp_path / "ca", K.AGENTS, NOW)
    assert tried == ["agents", "servers", "clients", "agents"]


@pytest.mark.parametrize("kind", K)
def test_a_new_authority_is_trusted_first_then_signs_and_the_old_one_goes_last(
    tmp_path: Path, kind: authorities.Kind
) -> None:
    old = authorities.create(tmp_path, "fleet", NOW).signing(kind).certificate
    trusted = authorities.begin_rotation(tmp_path, kind, NOW)
    assert trusted.signing(kind).certificate == old
    assert len(trusted.trusted(kind)) == 2
    later = NOW + authorities.TRUST_OVERLAPS[kind]
    signs = authorities.sign_with_new(tmp_path, kind, later)
    assert signs.signing(kind).certificate == trusted.trusted(kind)[1]
    assert signs.trusted(kind) == (signs.signing(kind).certificate, old)
    assert {each.since for each in signs.of[kind]} == {later}
    assert [each.key for each in signs.of[kind] if each.role is R.RETIRED] == [None]
    with pytest.raises(errors.RefusedError, match="2 authorities are trusted"):
        authorities.begin_rotation(tmp_path, kind, later)
    dropped = authorities.drop_old(tmp_path, kind, later + authorities.LIFETIMES[kind])
    assert dropped.trusted(kind) == (signs.signing(kind).certificate,)
    assert all(len(dropped.trusted(other)) == 1 for other in K)


def test_a_step_of_a_rotation_waits_until_nobody_is_locked_out_by_it_unless_it_is_forced(tmp_path: Path) -> None:
    authorities.create(tmp_path, "fleet", NOW - timedelta(days=90))
    with pytest.raises(errors.RefusedError, match="no new authority"):
        authorities.sign_with_new(tmp_path, K.SERVERS, NOW)
    with pytest.raises(errors.RefusedError, match="no old authority"):
        authorities.drop_old(tmp_path, K.SERVERS, NOW)
    authorities.begin_rotation(tmp_path, K.SERVERS, NOW)
    early = NOW + authorities.TRUST_OVERLAPS[K.SERVERS] - timedelta(seconds=1)
    with pytest.raises(errors.RefusedError, match="step sign: not all who need to"):
        authorities.sign_with_new(tmp_path, K.SERVERS, early)
    authorities.sign_with_new(tmp_path, K.SERVERS, early, is_forced=True)
    with pytest.raises(errors.RefusedError, match="step drop: not all who need to"):
        authorities.drop_old(tmp_path, K.SERVERS, early)
    assert len(authorities.drop_old(tmp_path, K.SERVERS, early, is_forced=True).trusted(K.SERVERS)) == 1


def test_an_old_authority_that_has_expired_does_not_stand_in_the_way_of_the_next_rotation(tmp_path: Path) -> None:
    authorities.create(tmp_path, "fleet", NOW)
    later = NOW + certificates.AUTHORITY_LIFETIME - timedelta(days=1)
    authorities.begin_rotation(tmp_path, K.AGENTS, later)
    authorities.sign_with_new(tmp_path, K.AGENTS, later)
    after = later + timedelta(days=2)
    assert len(authorities.begin_rotation(tmp_path, K.AGENTS, after).trusted(K.AGENTS)) == 2


def test_an_authority_that_expired_while_it_signs_is_replaced_as_any_other(tmp_path: Path) -> None:
    authorities.create(tmp_path, "fleet", NOW)
    after = NOW + certificates.AUTHORITY_LIFETIME + timedelta(days=1)
    assert len(authorities.begin_rotation(tmp_path, K.AGENTS, after).trusted(K.AGENTS)) == 2


def test_the_one_that_signs_is_found_and_comes_first_wherever_it_stands_in_its_file(tmp_path: Path) -> None:
    authorities.create(tmp_path, "fleet", NOW)
    before = authorities.begin_rotation(tmp_path, K.AGENTS, NOW)
    file = tmp_path / "agents.json"
    told = json.loads(file.read_text())
    private_files.write(file, json.dumps(told | {"authorities": told["authorities"][::-1]}))
    found = authorities.load(tmp_path)
    assert found.signing(K.AGENTS).certificate == before.signing(K.AGENTS).certificate
    assert found.trusted(K.AGENTS) == before.trusted(K.AGENTS)


def test_an_old_authority_is_dropped_as_soon_as_it_has_expired(tmp_path: Path) -> None:
    ends_at = NOW + certificates.AUTHORITY_LIFETIME
    later = ends_at - authorities.LIFETIMES[K.AGENTS] / 2
    authorities.create(tmp_path, "fleet", NOW)
    authorities.begin_rotation(tmp_path, K.AGENTS, later)
    authorities.sign_with_new(tmp_path, K.AGENTS, later)
    with pytest.raises(errors.RefusedError, match="step drop: not all who need to"):
        authorities.drop_old(tmp_path, K.AGENTS, ends_at - timedelta(seconds=1))
    assert len(authorities.drop_old(tmp_path, K.AGENTS, ends_at).trusted(K.AGENTS)) == 1


def test_files_that_are_not_there_or_not_ours_are_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFoundError, match=r"agents\.json is not there; `instar ca init`"):
        authorities.load(tmp_path)
    authorities.create(tmp_path, "fleet", NOW)
    private_files.write(tmp_path / "agents.json", '{"form": 1, "domain": "fleet", "authorities": []}')
    with pytest.raises(errors.InvalidRequestError, match=r"agents\.json: it names no authority that signs"):
        authorities.load(tmp_path)
    for text in ("{", "[]", "{}"):
        private_files.write(tmp_path / "agents.json", text)
        with pytest.raises(errors.InvalidRequestError, match="cannot read the authorities"):
            authorities.load(tmp_path)


def test_files_of_which_one_is_not_like_the_others_are_refused(tmp_path: Path) -> None:
    for folder, domain in (("ca", "fleet"), ("other", "elsewhere")):
        authorities.create(tmp_path / folder, domain, NOW)
    file, other = tmp_path / "ca" / "agents.json", tmp_path / "other" / "agents.json"
    good = json.loads(file.read_text())
    (row,) = good["authorities"]
    rsa_key = rsa.generate_private_key(65537, 2048)
    pkcs8 = rsa_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for text, fault in (
        (other.read_text(), "several domains: elsewhere, fleet"),
        (json.dumps(good | {"form": 2}), "of another form"),
        (json.dumps(good | {"authorities": [row | {"key": None}]}), "no authority that signs"),
        (json.dumps(good | {"authorities": [row | {"key": pkcs8.decode()}]}), r"not of P-256"),
    ):
        private_files.write(file, text)
        with pytest.raises(errors.InvalidRequestError, match=fault):
            authorities.load(tmp_path / "ca")


def test_a_certificate_says_what_its_issuer_says_and_nothing_of_the_request(tmp_path: Path) -> None:
    known, key = authorities.create(tmp_path, "fleet", NOW), certificates.make_key()
    wished = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://fleet/agent/other")])
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(wished, critical=False)
    public = certificates.read_request(_text(request.sign(key, hashes.SHA256())))
    holder = certificates.Holder(spiffe.identity("fleet", spiffe.Kind.AGENT, "web-1"), timedelta(hours=24), 3)
    made = certificates.read(certificates.issue_holder(known.signing(K.AGENTS), holder, public, NOW))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [each.value for each in names] == ["spiffe://fleet/agent/web-1"]
    purposes = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert made.not_valid_after_utc == NOW + timedelta(hours=24)
    assert made.not_valid_before_utc == NOW - certificates.CLOCK_SKEW
    assert made.subject.get_attributes_for_oid(oid.NameOID.SERIAL_NUMBER)[0].value == "3"
    made.verify_directly_issued_by(known.signing(K.AGENTS).certificate)


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    known = authorities.create(tmp_path, "fleet", NOW)
    late = NOW + certificates.AUTHORITY_LIFETIME - timedelta(hours=1)
    made = clients.issue(known, "ci", 30, late)
    assert made.expires_at == known.signing(K.CLIENTS).certificate.not_valid_after_utc


@pytest.mark.parametrize("kind", ["rubbish", "long", "rsa-like curve", "signed with another key"])
def test_a_request_that_is_none_is_refused(kind: str) -> None:
    key = certificates.make_key() if kind != "rsa-like curve" else ec.generate_private_key(ec.SECP384R1())
    text = _text(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256()))
    if kind == "rubbish":
        text = "no request"
    if kind == "long":
        text += " " * certificates.REQUEST_BYTES_MAX
    if kind == "signed with another key":
        text = text[:-60] + ("A" if text[-60] != "A" else "B") + text[-59:]
    with pytest.raises(errors.InvalidRequestError, match="the request must be"):
        certificates.read_request(text)


def test_a_folder_of_a_client_has_certificate_key_and_what_it_trusts(tmp_path: Path) -> None:
    known = authorities.create(tmp_path / "ca", "fleet", NOW)
    clients.issue(known, "ci", 30, NOW).write(tmp_path / "ci")
    assert {each.name for each in (tmp_path / "ci").iterdir()} == {"ca.pem", "client.pem", "client.key"}
    assert stat.S_IMODE((tmp_path / "ci" / "client.key").stat().st_mode) == 0o600
    trusted = x509.load_pem_x509_certificates((tmp_path / "ci" / "ca.pem").read_bytes())
    assert trusted == [known.signing(K.SERVERS).certificate]
    with pytest.raises(errors.InvalidRequestError, match="name"):
        clients.issue(known, "../ci", 30, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://fleet/agent/",
        "spiffe://fleet/agent/a/b",
        "spiffe://fleet/server/a",
        "spiffe://Fleet/agent/a",
        "spiffe:///agent/a",
        "https://fleet/agent/a",
        "spiffe://fleet/agent/a b",
        "",
    ],
)
def test_a_name_that_is_not_of_the_form_is_nobodys(text: str) -> None:
    assert spiffe.parse(text) is None


def test_a_name_is_read_back_as_it_was_made() -> None:
    for kind in spiffe.Kind:
        made = spiffe.identity("fleet.example", kind, "web-1.a_b")
        assert spiffe.parse(made.uri) == made
    with pytest.raises(errors.InvalidRequestError, match="domain"):
        spiffe.identity("Fleet", spiffe.Kind.AGENT, "a")


def test_a_join_token_has_256_bits_and_is_stored_as_a_hash(tmp_path: Path) -> None:
    known = authorities.create(tmp_path, "fleet", NOW)
    token = join_tokens.make(known.trusted(K.SERVERS))
    assert join_tokens.parse(token.text) == token
    assert token.text.startswith("instar1.")
    assert token.secret not in token.secret_hash
    assert join_tokens.is_secret(token, token.secret_hash)
    assert not join_tokens.is_secret(join_tokens.make(known.trusted(K.SERVERS)), token.secret_hash)
    for text in ("", token.text[:-1], token.text + "0", token.text.replace("instar1", "instar2")):
        with pytest.raises(errors.UnauthenticatedError, match="lets nobody in"):
            join_tokens.parse(text)


def _text(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()
