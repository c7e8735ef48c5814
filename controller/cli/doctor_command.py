"""`instar doctor`: what stands between this machine and a controller: which certificate, which time, which name.

Rules kept: it changes nothing and looks at everything, also where the first look has failed; each line says what was
looked at. Left out: the state of nodes, which `instar-agent doctor` tells on each.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import typer

from controller.cli import options

CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found."""

    name: str
    is_well: bool
    message: str


def doctor(
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Say which certificate, which time and which name stand between this machine and a controller."""
    from controller.cli import document, failures

    found = list(_looks(controller, token_file))
    is_well = all(each.is_well for each in found)
    if output is options.Format.JSON:
        document.write({"is_well": is_well, "checks": [asdict(each) for each in found]})
    else:
        for each in found:
            typer.echo(f"{'ok  ' if each.is_well else 'FAIL'} {each.name}: {each.message}")
    if not is_well:
        raise typer.Exit(failures.Exit.FAILED)


def _looks(address: str, token_file: Path | None) -> Iterator[Check]:
    from controller import clock
    from controller.cli import credentials, failures

    try:
        files, authority = credentials.files(os.environ, token_file), credentials.authority_file(os.environ)
        if files is not None:
            yield _own(files.read().certificate, clock.SystemClock().now())
            yield _theirs(address, files.roots, (files.certificate, files.key))
        elif authority is not None:
            yield _theirs(address, authority, None)
    except failures.CommandError as error:
        yield Check("certificate", is_well=False, message=str(error))
        return
    yield _answer(address, token_file)


def _own(certificate: bytes, now: datetime) -> Check:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        return Check("certificate", is_well=False, message=f"it is none that `instar ca client` has made: {error}")
    name = ", ".join(names.get_values_for_type(x509.UniformResourceIdentifier)) or "nobody"
    if now >= found.not_valid_after_utc:
        message = f"that of {name} ran out at {found.not_valid_after_utc}; this machine says it is {now}"
        return Check("certificate", is_well=False, message=f"{message}; `instar ca client` makes another one")
    if now < found.not_valid_before_utc:
        message = f"that of {name} is good from {found.not_valid_before_utc} on; this machine says it is {now}"
        return Check("certificate", is_well=False, message=message)
    return Check("certificate", is_well=True, message=f"that of {name} is good until {found.not_valid_after_utc}")


def _theirs(address: str, roots: Path, own: tuple[Path, Path] | None) -> Check:
    """Look whether the controller and this machine believe each other; a token is shown with each call only."""
    name, (host, _, port) = "controller", address.rpartition(":")
    try:
        context = ssl.create_default_context(cafile=str(roots))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        if own is not None:
            context.load_cert_chain(*own)
        with (
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=host.strip("[]")) as secured,
        ):
            is_taken = bool(secured.recv(1))  # what it thinks of our certificate comes after the handshake
    except ssl.SSLCertVerificationError as error:
        told = f"the certificate that {address} shows cannot be believed: {error.verify_message}"
        return Check(name, is_well=False, message=told)
    except ssl.SSLError as error:
        told = f"{address} and this machine do not come to terms by TLS 1.3: {error.reason or error}"
        return Check(name, is_well=False, message=told)
    except (OSError, ValueError) as error:
        return Check(name, is_well=False, message=f"{address} cannot be reached: {error}")
    if not is_taken and own is None:
        told = f"{address} shows a certificate that can be believed, but asks for ours: tokens are taken elsewhere"
        return Check(name, is_well=False, message=told)
    if not is_taken:
        told = f"{address} shows a certificate that can be believed, but ends the connection: it does not believe ours"
        return Check(name, is_well=False, message=told)
    taken = "and takes ours" if own is not None else "and asks for none"
    return Check(name, is_well=True, message=f"{address} shows a certificate that can be believed, {taken}")


def _answer(address: str, token_file: Path | None) -> Check:
    from controller.cli import connection, failures
    from instar.v1 import fleet_service_pb2

    try:
        connection.answer(address, token_file, "fleet.GetStatistics", fleet_service_pb2.GetStatisticsRequest())
    except failures.CommandError as error:
        return Check("call", is_well=False, message=str(error))
    return Check("call", is_well=True, message=f"{address} answers")
