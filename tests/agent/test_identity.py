"""What a node shows and trusts, and the key work for it: certificates of real authorities, and real TLS on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agent import durability, identity
from agent.config.errors import ConfigError
from agent.identity import __main__ as program
from agent.identity import asking, child
from controller.trust import authorities, certificates, enrolment, join_tokens, spiffe

DOMAIN, NODE = "fleet.example", "web-1"
DAY = timedelta(days=1)
DEADLINE_SECONDS = 60.0
K = authorities.Kind


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  # the child looks at this host's own clock


class Home:
    """The folder of a node, and the authorities of its controller."""

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder / "state"
        self.known = authorities.create(folder / "ca", DOMAIN, now())
        self.folder = identity.folder(self.state_dir)
        self.files = folder

    @property
    def asked(self) -> dict[str, str]:
        return {"folder": str(self.folder)}

    @property
    def waiting(self) -> Path:
        return self.folder / identity.NEXT_KEY_NAME

    def requested(self) -> ec.EllipticCurvePublicKey:
        """The key that the child asks a certificate for."""
        return certificates.read_request(str(child.request(self.asked)["certificate_request"]))

    def issued(self, serial: int = 7, lifetime: timedelta = DAY, at: datetime | None = None) -> str:
        holder = certificates.Holder(spiffe.identity(DOMAIN, spiffe.Kind.AGENT, NODE), lifetime, serial)
        return certificates.issue_holder(self.known.signing(K.AGENTS), holder, self.requested(), at or now())

    def named(self, *uris: str) -> str:
        """A certificate that names somebody, or nobody, for the key that was asked for."""
        issuer = self.known.signing(K.AGENTS)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer.certificate.subject)
            .public_key(self.requested())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now())
            .not_valid_after(now() + DAY)
        )
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(each) for each in uris])
        made = builder.add_extension(names, critical=False).sign(issuer.key, hashes.SHA256())
        return certificates.pem(made)

    def install(self, certificate: str) -> Mapping[str, object]:
        about = {"certificate": certificate, "node_id": NODE, "enrol_address": "127.0.0.1:1"}
        return child.install({**self.asked, **about, "authorities": self.known.bundle(K.SERVERS)})

    def look(self, address: str = "127.0.0.1:1") -> Mapping[str, object]:
        return child.look({**self.asked, "address": address})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_key_waits_for_its_certificate_and_the_next_request_is_for_another(home: Home) -> None:
    first = certificates.key_hash(home.requested())
    assert certificates.key_hash(home.requested()) == first
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.waiting.stat().st_mode) == 0o600
    home.install(home.issued())
    assert not home.waiting.exists()
    assert certificates.key_hash(home.requested()) != first


def test_what_is_installed_says_what_the_certificate_says_and_is_its_owners_alone(home: Home) -> None:
    certificate, before = home.issued(at=now() - timedelta(hours=2)), now()
    answer = home.install(certificate)
    ends_at = certificates.read(certificate).not_valid_after_utc
    name = f"spiffe://{DOMAIN}/agent/{NODE}"
    assert answer == {"name": name, "serial": 7, "not_after": ends_at.isoformat()}
    found = identity.load(home.state_dir)
    assert (found.node_id, found.name, found.serial, found.not_after) == (NODE, name, 7, ends_at)
    assert before <= found.issued_at <= now()
    assert found.authorities == home.known.bundle(K.SERVERS)
    file = home.folder / identity.FILE_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for mode in (0o640, 0o604):
        file.chmod(mode)
        with pytest.raises(ConfigError, match="nobody but its owner"):
            identity.load(home.state_dir)
    file.chmod(0o600)
    for text in ("{", "[]", "{}", json.dumps(json.loads(file.read_text()) | {"colour": "red"})):
        file.write_text(text)
        with pytest.raises(ConfigError, match="cannot read the identity"):
            identity.load(home.state_dir)


def test_a_certificate_for_another_key_or_another_name_is_not_taken_and_the_key_goes_on_waiting(home: Home) -> None:
    good = f"spiffe://{DOMAIN}/agent/{NODE}"
    first = certificates.key_hash(home.requested())
    for uris in (
        [],
        [good, f"spiffe://{DOMAIN}/agent/other"],
        [f"spiffe://{DOMAIN}/agent/my-{NODE}"],
        [f"spiffe://{DOMAIN}/client/{NODE}"],
        [f"spiffe://{DOMAIN}/agent/other"],
    ):
        with pytest.raises(ValueError, match="the certificate is for"):
            home.install(home.named(*uris))
    stranger = Home(home.files / "stranger")
    with pytest.raises(ValueError, match="not for the key"):
        home.install(stranger.named(good))
    assert not identity.exists(home.state_dir)
    assert certificates.key_hash(home.requested()) == first
    home.install(home.named(good))
    assert identity.load(home.state_dir).serial == 0


def test_a_certificate_that_cannot_be_kept_costs_no_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = home.issued()

    def full(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(durability, "replace_file", full)
    with pytest.raises(OSError, match="full"):
        home.install(certificate)
    monkeypatch.undo()
    assert home.install(certificate)["serial"] == 7


def test_a_challenge_is_signed_by_the_key_of_the_certificate_and_with_it_the_next_request(home: Home) -> None:
    certificate = home.issued()
    home.install(certificate)
    answer = child.sign({**home.asked, "challenge": "12.ab"})
    request, signature = str(answer["certificate_request"]), base64.b64decode(str(answer["signature"]))
    key = certificates.read(certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature, enrolment.message(NODE, "12.ab", request), ec.ECDSA(hashes.SHA256()))
    assert certificates.key_hash(certificates.read_request(request)) == certificates.key_hash(home.requested())


def test_a_waiting_key_of_another_kind_is_none(home: Home) -> None:
    home.requested()
    made = rsa.generate_private_key(65537, 2048)
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    home.waiting.write_bytes(made.private_bytes(serialization.Encoding.PEM, form, encryption))
    with pytest.raises(TypeError, match="not of P-256"):
        child.request(home.asked)


# What is wrong between a node and a controller.


@pytest.mark.parametrize(
    ("age", "fault"),
    [(timedelta(hours=1), ""), (DAY, "ran out at"), (-DAY, "is good from"), (-timedelta(minutes=4), "")],
)
def test_the_nodes_own_certificate_is_told_by_its_time(home: Home, age: timedelta, fault: str) -> None:
    home.install(home.issued(at=now() - age))
    told = str(home.look()["own"])
    assert (fault in told) if fault else not told
    assert not fault or told.startswith(f"the certificate of spiffe://{DOMAIN}/agent/{NODE} ")


class Listener:
    """A controller's listener: it shows a certificate, may ask for one, and says one byte to who is welcome."""

    def __init__(
        self, home: Home, shown: authorities.Authorities | None = None, host: str = "127.0.0.1", step: int = 1
    ) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["h2"])
        self.says = b"x"
        key, known = certificates.make_key(), shown or home.known
        made = certificates.issue_server(known.signing(K.SERVERS), [host], key.public_key(), now())
        chain = "".join(certificates.pem(each) for each in known.trusted(K.SERVERS)[::step])
        file = home.files / "listener.pem"
        file.write_text(certificates.key_pem(key) + certificates.pem(made) + chain)
        self.context.load_cert_chain(file)
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.host = host

    def ask_for(self, trusted: str) -> None:
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_verify_locations(cadata=trusted)

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Answer one connection while the block runs; yields where."""
        with socket.create_server((self.host, 0), family=self.family) as listener:
            listener.settimeout(DEADLINE_SECONDS)
            thread = threading.Thread(target=self._answer, args=(listener,))
            thread.start()
            host = f"[{self.host}]" if ":" in self.host else self.host
            yield f"{host}:{listener.getsockname()[1]}"
            thread.join()

    def _answer(self, listener: socket.socket) -> None:
        taken, _ = listener.accept()
        with contextlib.suppress(OSError), taken, self.context.wrap_socket(taken, server_side=True) as secured:
            if self.says:
                secured.sendall(self.says)
            secured.unwrap()


def test_a_controller_that_shows_and_takes_what_it_should_is_well(home: Home) -> None:
    home.install(home.issued())
    for host in ("127.0.0.1", "::1"):
        listener = Listener(home, host=host)
        listener.ask_for(home.known.bundle(K.AGENTS))
        with listener.serving() as address:
            assert home.look(address)["controller"] == ""


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("another authority's", "the certificate that {} shows cannot be believed: "),
        ("not ours", "{} does not take the certificate of this node: "),
        ("without a word", "{} ends the connection: it does not believe the certificate of this node"),
        ("tls 1.2", "{} does not take the certificate of this node: "),
        ("nobody", "{} cannot be reached by TLS 1.3: "),
    ],
)
def test_what_is_wrong_with_a_controller_is_told(home: Home, what: str, told: str) -> None:
    home.install(home.issued())
    other = authorities.create(home.files / "other", DOMAIN, now())
    listener = Listener(home, other if what == "another authority's" else None)
    if what == "not ours":
        listener.ask_for(other.bundle(K.AGENTS))
    if what == "without a word":
        listener.says = b""
    if what == "tls 1.2":
        listener.context.maximum_version = ssl.TLSVersion.TLSv1_2
    with contextlib.nullcontext("127.0.0.1:1") if what == "nobody" else listener.serving() as address:
        assert str(home.look(address)["controller"]).startswith(told.format(address))


def test_a_node_takes_the_authorities_that_its_token_names_and_no_others(home: Home) -> None:
    known = authorities.begin_rotation(home.files / "ca", K.SERVERS, now())
    token = join_tokens.make(known.trusted(K.SERVERS))

    def begun(authorities_hash: str, listener: Listener) -> Mapping[str, object]:
        with listener.serving() as address:
            return child.begin({**home.asked, "address": address, "hash": authorities_hash})

    for step in (1, -1):  # the order says nothing
        answer = begun(token.authorities_hash, Listener(home, known, step=step))
        shown = x509.load_pem_x509_certificates(str(answer["authorities"]).encode())
        assert shown == list(known.trusted(K.SERVERS)[::step])
        certificates.read_request(str(answer["certificate_request"]))
    listener = Listener(home, known)
    for other in (known.trusted(K.SERVERS)[:1], known.trusted(K.SERVERS)[1:], known.trusted(K.AGENTS)):
        with pytest.raises(ValueError, match="is not the one that made the token"):
            begun(join_tokens.authorities_hash(other), listener)
    listener.context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        begun(token.authorities_hash, listener)


# The child.


def said(words: Sequence[str], text: str) -> tuple[int, str]:
    """Exit code, and what the child says."""
    command = [sys.executable, "-m", "agent.identity", *words]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    return done.returncode, done.stdout or done.stderr


def test_the_child_answers_or_says_why_it_cannot(home: Home) -> None:
    code, told = said(["request"], json.dumps(home.asked))
    assert (code, list(json.loads(told))) == (0, ["certificate_request"])
    long = json.dumps(home.asked)[:-1] + " " * program.INPUT_BYTES_MAX + "}"
    for text in ("", "{}", "[]", long):
        code, told = said(["request"], text)
        assert (code, list(json.loads(told))) == (1, ["error"]), text[:9]
    for words in (["sleep"], [], ["request", "sign"]):
        assert said(words, "{}") == (os.EX_USAGE, program.USAGE + "\n")


@pytest.fixture
def blocked(home: Home) -> Path:
    """What the child never comes to the end of: a key that somebody goes on writing."""
    home.folder.mkdir(parents=True)
    os.mkfifo(home.waiting)
    return home.waiting


def test_the_child_is_bounded_in_time_and_memory_and_leaves_no_core(home: Home, blocked: Path) -> None:
    command = [sys.executable, "-m", "agent.identity", "request"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(home.asked).encode())
        process.stdin.close()
        with blocked.open("wb"):  # it reads now
            lines = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
        process.wait(DEADLINE_SECONDS)
    limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert limits["Max cpu time"] == [str(program.CPU_SECONDS)] * 2
    assert limits["Max address space"] == [str(program.ADDRESS_BYTES)] * 2
    assert limits["Max core file size"] == ["0", "0"]


async def test_a_child_that_is_not_waited_for_is_killed(home: Home, blocked: Path) -> None:
    asked = asyncio.ensure_future(asking.ask("request", home.asked))
    writer = await asyncio.to_thread(os.open, blocked, os.O_WRONLY)  # it reads now
    try:
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"nobody reads")
    finally:
        os.close(writer)


@pytest.mark.usefixtures("blocked")
async def test_a_child_that_takes_too_long_is_an_error_and_so_is_what_is_no_answer(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(asking.KeyWorkError, match="cannot request: 'folder'"):
        await asking.ask("request", {})
    with pytest.raises(asking.KeyWorkError, match="cannot sleep: the child said 'usage: "):
        await asking.ask("sleep", {})
    monkeypatch.setattr(asking, "SECONDS_MAX", 0.01)
    with pytest.raises(asking.KeyWorkError, match="took longer than"):
        await asking.ask("request", home.asked)
