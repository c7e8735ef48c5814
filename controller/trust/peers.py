"""Who has shown a certificate: the one SPIFFE name in it, where the right authority has given it for this purpose.

Rules kept: the handshake has seen to the chain, and everything else is looked at here, since a handshake takes
certificates without a purpose and any authority for any name; exactly one name counts, and what else a certificate says
of its holder never does; an expired certificate is nobody's, on streams that outlive it as well. Left out: what the
holder may do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import exceptions, x509
from cryptography.x509 import oid

from controller.core import errors
from controller.trust import authorities, certificates, spiffe

KNOWN_MAX = 20_000  # certificates that were looked at already: twice the largest fleet of one process, 5 KiB each
SPIFFE_KEY, CERTIFICATE_KEY, VERSION_KEY = "peer_spiffe_id", "x509_pem_cert", "ssl_tls_version"
TLS_VERSION = b"TLSv1.3"
_ISSUERS = {spiffe.Kind.AGENT: authorities.Kind.AGENTS, spiffe.Kind.CLIENT: authorities.Kind.CLIENTS}
_Auth = Mapping[str, Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Peer:
    """The holder of a certificate.

    Args:
        key_hash: Of its public key.
    """

    identity: spiffe.Identity
    key_hash: str
    certificate: x509.Certificate


class Peers:
    """Tells who has shown a certificate, and remembers which it has looked at.

    Args:
        known: The authorities as they stand now.
    """

    def __init__(self, known: Callable[[], authorities.Authorities], now: Callable[[], datetime]) -> None:
        self._authorities = known
        self._now = now
        self._looked_at: OrderedDict[bytes, Peer] = OrderedDict()
        self._looked_by: authorities.Authorities | None = None
        self._trusted: object = None
        self._revision = 0

    def find(self, shown: _Auth) -> Peer:
        """The holder of the certificate that a connection has shown.

        Args:
            shown: As gRPC tells of the connection.

        Raises:
            UnauthenticatedError: There is none, or it cannot be believed.
        """
        known = self._refreshed()
        self.check_version(shown)
        text = _text(shown)
        peer = self._looked_at.get(text) or self._look(text, shown, known)
        if not peer.certificate.not_valid_before_utc <= self._now() < peer.certificate.not_valid_after_utc:
            raise _refused("it is not valid at this time", "a certificate that is valid now")
        return peer

    def shows(self, shown: _Auth) -> bool:
        """Tell whether a connection has shown a certificate at all."""
        return bool(_text(shown))

    def check_version(self, shown: _Auth) -> None:
        """See that a connection speaks what it has to, whatever is shown on it.

        Raises:
            UnauthenticatedError: It does not.
        """
        if list(shown.get(VERSION_KEY, ())) != [TLS_VERSION]:
            raise _refused("the connection is not of TLS 1.3", "TLS 1.3")

    def revision(self) -> int:
        """A number that is another one whenever other certificates may be believed."""
        self._refreshed()
        return self._revision

    def _refreshed(self) -> authorities.Authorities:
        known = self._authorities()
        if known is not self._looked_by:
            self._looked_by = known
            trusted = [known.trusted(kind) for kind in _ISSUERS.values()]
            if trusted != self._trusted:  # and not only what the listeners show
                self._trusted = trusted
                self._looked_at.clear()
                self._revision += 1
        return known

    def _look(self, text: bytes, shown: _Auth, known: authorities.Authorities) -> Peer:
        if not text:
            raise _refused("the connection shows none", "a certificate of this controller's authorities")
        peer = _believed(x509.load_pem_x509_certificate(text), tuple(shown.get(SPIFFE_KEY, ())), known)
        self._looked_at[text] = peer
        if len(self._looked_at) > KNOWN_MAX:
            self._looked_at.popitem(last=False)
        return peer


def _believed(certificate: x509.Certificate, names: Sequence[bytes], known: authorities.Authorities) -> Peer:
    identity = spiffe.parse(names[0].decode("ascii", "replace")) if len(names) == 1 else None
    if identity is None or identity.domain != known.domain:
        rule = f"exactly one name, spiffe://{known.domain}/agent/NODE or spiffe://{known.domain}/client/NAME"
        raise _refused("it has not exactly one name that is ours", rule)
    if _purposes(certificate) != [oid.ExtendedKeyUsageOID.CLIENT_AUTH]:
        raise _refused("it is not for callers", "the extended key usage clientAuth, and no other")
    issuers = known.trusted(_ISSUERS[identity.kind])
    if not any(_is_issued(certificate, each) for each in issuers):
        raise _refused(f"its authority gives no names of {identity.kind.value}s", "the authority for such names")
    return Peer(identity, certificates.key_hash_of(certificate), certificate)


def _text(shown: _Auth) -> bytes:
    return b"".join(shown.get(CERTIFICATE_KEY, ()))


def _purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, ValueError):
        return []


def _is_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, exceptions.InvalidSignature):
        return False
    return True


def _refused(fault: str, rule: str) -> errors.UnauthenticatedError:
    return errors.UnauthenticatedError(
        f"cannot let the caller in by its certificate: {fault}; what it must be: {rule}",
        code="certificate_refused",
        field="certificate",
        rule=rule,
    )
