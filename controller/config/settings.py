"""Settings of the controller: flag before environment before file before default.

Rules kept here: read once, frozen afterwards; each value is text wherever it comes from and is checked in one place;
an unknown key of the file is refused; without TLS only a loopback address is accepted. Left out: the command line
that gives the flags (`controller.cli`).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from controller.config import addresses, issuers, quotas, retention, rules, sources, stores, tls, traces, webs
from controller.core import errors

ADDRESS_DEFAULT = "127.0.0.1:7443"
HEARTBEAT_PERIOD_DEFAULT = "10s"
HEARTBEAT_PERIOD_MIN = timedelta(milliseconds=100)  # below it the answers cost more than the work
HEARTBEAT_PERIOD_MAX = timedelta(minutes=5)  # above it a dead node is noticed too late for any deadline
METRICS_STEP_MIN = timedelta(seconds=1)  # the thin past is then as fine as any heartbeat
METRICS_STEP_MAX = timedelta(minutes=10)  # above it two hours say nothing about how the past spreads
METRICS_WINDOW_MAX = timedelta(hours=2)  # of every reading; beyond it the thin past is as good
METRICS_PAST_MAX = timedelta(hours=24)  # in memory: 12 KiB for each series at the default step
DATABASE_NAME = "controller.db"
METRICS_RETENTION_MAX = timedelta(days=30)  # in the store: some 100 MiB a day for a thousand nodes
_ENVIRONMENT_NAMES: Mapping[str, str] = {
    "listen": "INSTAR_LISTEN",
    "state_dir": "INSTAR_STATE_DIR",
    "heartbeat_period": "INSTAR_HEARTBEAT_PERIOD",
    "self_approval": "INSTAR_SELF_APPROVAL",
    "trust_dir": "INSTAR_TRUST_DIR",
    "metrics_window": "INSTAR_METRICS_WINDOW",
    "metrics_past": "INSTAR_METRICS_PAST",
    "metrics_step": "INSTAR_METRICS_STEP",
    "metrics_retention": "INSTAR_METRICS_RETENTION",
}
STORE_URL = "INSTAR_STORE_URL"  # beside the file; not on the command line, which everybody on the host can read
_TABLES: Mapping[str, object] = {
    "prometheus": [],
    "monitor": {},
    "web": {},
    "tls": None,
    "issuer": [],
    "limits": {},
    "store": {},
    "retention": {},
}  # of the file; all other keys of it are texts
_CHOICES: Mapping[str, bool] = {"refuse": False, "allow": True}
_DURATION = re.compile(r"(\d{1,9})(\.\d{1,6})?s")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a controller is told before it starts.

    Args:
        listen: Address and port, without TLS of loopback; port 0 takes a free one.
        state_dir: Where everything durable is.
        heartbeat_period: Time between two heartbeats of an agent.
        traces: Where spans go; None for nowhere.
        self_approval: Who asked for a rollout may approve it too.
        prometheus: Servers that may be asked for figures; of the file only.
        monitor: What the fleet is watched for; of the file only.
        web: How others reach it over HTTP; None for not at all; of the file only.
        tls: How it speaks TLS; None for not at all; of the file only.
        issuers: Whose tokens are taken beside the controller's own; of the file only.
        quotas: How much one caller may ask, and all together hold; the table ``limits`` of the file only.
        metrics_window: For so long every reading of a node is kept in memory.
        metrics_past: For so long one reading each ``metrics_step`` is kept in memory.
        metrics_step: Time between two readings of the thin past.
        metrics_retention: For so long the thin past is kept in the store.
        trust_dir: Folder with the first root and the online keys of signed releases; None where releases are unsigned.
        store: The database of the store; None for a file in ``state_dir``.
        retention: How long what is over is kept; of the file only.
    """

    listen: str
    state_dir: Path
    heartbeat_period: timedelta
    traces: traces.Traces | None
    self_approval: bool = False
    prometheus: tuple[sources.Server, ...] = ()
    monitor: rules.Monitoring = rules.NOTHING
    web: webs.Web | None = None
    tls: tls.Tls | None = None
    issuers: tuple[issuers.Issuer, ...] = ()
    quotas: quotas.Quotas = quotas.USUAL
    metrics_window: timedelta = timedelta(minutes=30)
    metrics_past: timedelta = timedelta(hours=4)
    metrics_step: timedelta = timedelta(minutes=1)
    metrics_retention: timedelta = timedelta(hours=6)
    trust_dir: Path | None = None
    store: stores.PostgreSQL | None = None
    retention: retention.Retention = retention.USUAL

    @property
    def operator_token_file(self) -> Path:
        """The API token that the first start makes."""
        return operator_token_file(self.state_dir)

    @property
    def store_place(self) -> Path | stores.PostgreSQL:
        """Where the store is."""
        return self.store or self.state_dir / DATABASE_NAME

    @property
    def bundles_dir(self) -> Path:
        """Bundles, each named by its digest."""
        return self.state_dir / "releases" / "sha256"

    @property
    def principals_file(self) -> Path:
        """The register of principals."""
        return self.state_dir / "tokens" / "principals"

    @property
    def authorities_dir(self) -> Path:
        """The certificate authorities."""
        return self.state_dir / "ca"

    @property
    def operator_certificate_dir(self) -> Path:
        """The certificate that each start with TLS makes for the commands on this machine."""
        return operator_certificate_dir(self.state_dir)

    @property
    def metadata_dir(self) -> Path:
        """Where the signed metadata of releases are kept, if releases are signed."""
        return self.state_dir / "trust"


def operator_token_file(state_dir: Path) -> Path:
    """The API token that the first start of a controller makes in its state directory."""
    return state_dir / "tokens" / "operator.token"


def operator_certificate_dir(state_dir: Path) -> Path:
    """The certificate that each start of a controller with TLS makes in its state directory."""
    return state_dir / "operator"


def load(flags: Mapping[str, str | None], environment: Mapping[str, str], file: Path | None) -> Settings:
    """Read the settings.

    Args:
        flags: By the name of the setting; None where a flag was not given.
        environment: The variables of the process.
        file: A TOML file; None where none was named.

    Raises:
        InvalidRequestError: The file cannot be read, a key is unknown, or a value breaks its rule.
    """
    given = _defaults(environment)
    found = _read(file) if file else {}
    tables = {name: found.pop(name, empty) for name, empty in _TABLES.items()}
    given |= _texts(found)
    given |= _from_environment(environment)
    given |= {key: value for key, value in flags.items() if value is not None}
    secured = tls.read(tables["tls"])
    check = addresses.loopback if secured is None else addresses.numeric
    issued = issuers.read(tables["issuer"])
    _check_tokens(secured, is_any_issued=bool(issued))
    return Settings(
        listen=check(given["listen"], "listen"),
        state_dir=Path(given["state_dir"]).absolute(),
        heartbeat_period=_duration("heartbeat_period", given, HEARTBEAT_PERIOD_MIN, HEARTBEAT_PERIOD_MAX),
        traces=traces.read(environment, given["otlp_endpoint"]),
        self_approval=_choice("self_approval", given["self_approval"]),
        prometheus=sources.read(tables["prometheus"]),
        monitor=rules.read(tables["monitor"]),
        web=webs.read(tables["web"], can_speak_tls=secured is not None),
        tls=secured,
        issuers=issued,
        quotas=quotas.read(tables["limits"]),
        metrics_window=_duration("metrics_window", given, METRICS_STEP_MIN, METRICS_WINDOW_MAX),
        metrics_past=_duration("metrics_past", given, METRICS_STEP_MIN, METRICS_PAST_MAX),
        metrics_step=_duration("metrics_step", given, METRICS_STEP_MIN, METRICS_STEP_MAX),
        metrics_retention=_duration("metrics_retention", given, METRICS_STEP_MIN, METRICS_RETENTION_MAX),
        trust_dir=Path(given["trust_dir"]).absolute() if given["trust_dir"] else None,
        store=stores.read(tables["store"], environment.get(STORE_URL, "")),
        retention=retention.read(tables["retention"]),
    )


def _check_tokens(secured: tls.Tls | None, *, is_any_issued: bool) -> None:
    """See that a token of an issuer has a way in, and a way in for tokens an issuer: neither is of use alone."""
    listen = None if secured is None else secured.token_listen
    if secured is not None and is_any_issued and listen is None:
        rule = "given where there are both [tls] and [[issuer]]: who comes to any other listener shows a certificate"
        raise _invalid("tls.token_listen", "", rule)
    if listen is not None and not is_any_issued:
        raise _invalid(
            "tls.token_listen", listen, "left out where there is no [[issuer]]: nobody could be let in there"
        )


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """``/var/lib/instar/controller`` for root, else the like in the XDG state directory.

    It is the controller's alone, so it is not the folder in which an agent of the same host has its own.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/instar/controller")
    home = environment.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "instar" / "controller"


def _defaults(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        "listen": ADDRESS_DEFAULT,
        "state_dir": str(default_state_dir(environment)),
        "heartbeat_period": HEARTBEAT_PERIOD_DEFAULT,
        "otlp_endpoint": "",
        "self_approval": "refuse",
        "trust_dir": "",
        "metrics_window": "1800s",
        "metrics_past": "14400s",
        "metrics_step": "60s",
        "metrics_retention": "21600s",
    }


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: environment[name] for key, name in _ENVIRONMENT_NAMES.items() if environment.get(name)}


def _read(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise _invalid("config", str(file), f"a TOML file that can be read ({fault})") from fault


def _texts(found: Mapping[str, object]) -> dict[str, str]:
    known = [*_defaults({}), *_TABLES]
    texts: dict[str, str] = {}
    for key, value in found.items():
        if key not in known:
            raise _invalid(key, str(value), f"one of the keys {', '.join(known)}")
        if not isinstance(value, str):
            raise _invalid(key, str(value), "text in quotes")
        texts[key] = value
    return texts


def _duration(key: str, given: Mapping[str, str], least: timedelta, most: timedelta) -> timedelta:
    text = given[key]
    rule = f"seconds such as 2.5s, from {least.total_seconds():g}s to {most.total_seconds():g}s"
    if not _DURATION.fullmatch(text):
        raise _invalid(key, text, rule)
    duration = timedelta(seconds=float(text.removesuffix("s")))
    if not least <= duration <= most:
        raise _invalid(key, text, rule)
    return duration


def _choice(field: str, text: str) -> bool:
    if text not in _CHOICES:
        raise _invalid(field, text, f"one of {', '.join(_CHOICES)}")
    return _CHOICES[text]


def _invalid(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot use {field} {value!r}: it must be {rule}", code="setting_invalid", field=field, value=value, rule=rule
    )
