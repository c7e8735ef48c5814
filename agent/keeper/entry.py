"""What a child does between fork and exec: enters its cgroup, proves its release, takes its secrets, becomes its user.

Rules kept here: all of it is done in the child, so that reading a large release holds nothing up and what it imports
costs the keeper nothing; nothing runs unless every part of it succeeded; the configuration is read anew each time.
Left out: descriptors and limits (`spawn`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.keeper import cgroups, errors, places, sources, spawn

SECRET_MAX_BYTES = 1 << 20  # as systemd bounds a credential
CREDENTIAL_MODE = 0o400
CREDENTIALS_MODE = 0o500


@dataclass(frozen=True, slots=True)
class Entry:
    """The way of one child into its program.

    Args:
        owner_id: Of the instance or the task that it is for.
        cgroup: Folder of its own cgroup; empty where it has none.
        is_checked: The release and its environment have been checked a moment ago.
    """

    where: places.Places
    owner_id: str
    source: sources.Source
    cgroup: str
    is_checked: bool = False

    def enter(self) -> Mapping[str, str]:
        """Do it all; returns variables for the program.

        Raises:
            errors.RequestError: digest_mismatch, secret_missing or user_unknown.
            OSError: The host does not let it.
        """
        if self.cgroup:
            cgroups.enter(self.cgroup)
        if not self.is_checked:
            check_release(self.source.release_dir, self.source.digest)
            _check_environment(self.source, self.where)
        configured = configuration(self.where.config)
        user = _table(configured, "users").get(self.source.component)
        account = None if user is None else Account.named(str(user))
        self._give_secrets(_table(_table(configured, "secrets"), self.source.component), account)
        return {} if account is None else account.become()

    def _give_secrets(self, mapped: Mapping[str, object], account: "Account | None") -> None:
        if not self.source.secrets:
            return
        folder = self.where.credentials(self.owner_id)
        places.remove_tree(folder)
        folder.mkdir(mode=0o700)
        for name in self.source.secrets:
            path = folder / name
            _copy(mapped.get(name), path, f"{self.source.component}.{name}")
            if account is not None:
                os.chown(path, account.uid, account.gid)
        folder.chmod(CREDENTIALS_MODE)
        if account is not None:
            os.chown(folder, account.uid, account.gid)


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the host."""

    name: str
    uid: int
    gid: int
    home: str

    @classmethod
    def named(cls, name: str) -> "Account":
        """Look a user up.

        Raises:
            errors.RequestError: user_unknown.
        """
        import pwd  # noqa: PLC0415  # only the forked child pays for it

        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise errors.RequestError("user_unknown", f"cannot run as user {name!r}: this host has none") from None
        return cls(name, found.pw_uid, found.pw_gid, found.pw_dir)

    def become(self) -> Mapping[str, str]:
        """Run as this user from now on; returns what the environment says of it."""
        if os.geteuid() != self.uid:
            os.initgroups(self.name, self.gid)
            os.setgid(self.gid)
            os.setuid(self.uid)
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


def configuration(path: Path | None) -> Mapping[str, object]:
    """Read the node's configuration; only in a child, for the reader costs half a MiB.

    Raises:
        errors.RequestError: start_failed.
    """
    if path is None:
        return {}
    import tomllib  # noqa: PLC0415  # only the forked child pays for it

    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise errors.RequestError("start_failed", f"cannot read the configuration {path}: {error}") from error


def become_agent(config: Path | None) -> Mapping[str, str]:
    """Run as the user that the configuration names for the agent, where it names one; for its `spawn.Program.check`."""
    name = configuration(config).get("agent_user")
    return {} if not name else Account.named(str(name)).become()


def ask_users(config: Path | None) -> tuple[int | None, bool]:
    """Ask, in a child, for the agent's user, and whether anybody here runs as another than the keeper's user.

    Raises:
        errors.RequestError: The configuration cannot be read, or names a user that this host does not have.
    """
    if config is None:
        return None, False
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        spawn.close_others({writer})
        _tell_users(config, writer)
    os.close(writer)
    with os.fdopen(reader) as told:
        uid, has_users, *why = told.read().splitlines()
    os.waitpid(pid, 0)
    if why:
        raise errors.RequestError("user_unknown", why[0])
    return (int(uid) if uid else None), bool(has_users)


def _tell_users(config: Path, writer: int) -> None:
    """Run in a child; never returns."""
    try:
        configured = configuration(config)
        name = configured.get("agent_user")
        uid = str(Account.named(str(name)).uid) if name else ""
        has_users = "yes" if name or _table(configured, "users") else ""
        os.write(writer, f"{uid}\n{has_users}\n".encode())
    except BaseException as error:  # noqa: BLE001  # the child must end here whatever happens
        os.write(writer, f"\n\n{error}".encode())
    finally:
        os._exit(0)


def check_release(release_dir: str, expected: str) -> None:
    """Compute the digest of a release again.

    Raises:
        errors.RequestError: digest_mismatch.
    """
    from agent.keeper import digest  # noqa: PLC0415  # OpenSSL would cost the keeper 4 MiB; only the forked child pays

    _compare(release_dir, digest.tree_digest(Path(release_dir).resolve()), expected)


def _check_environment(source: sources.Source, where: places.Places) -> None:
    venv = sources.environment(source, where)
    if venv is None:
        return
    from agent.keeper import digest  # noqa: PLC0415  # as above

    try:
        expected = venv.with_name(f"{venv.name}.digest").read_text().strip()
    except OSError as error:
        raise errors.RequestError("digest_mismatch", f"cannot trust {venv}: {error}") from error
    _compare(str(venv), digest.environment_digest(venv), expected)


def _compare(path: str, found: str, expected: str) -> None:
    if found != expected:
        rule = f"its digest is {found}, not {expected}"
        raise errors.RequestError("digest_mismatch", f"cannot start from {path}: {rule}")


def _table(configured: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = configured.get(name)
    return found if isinstance(found, dict) else {}


def _copy(mapped: object, target: Path, name: str) -> None:
    if not isinstance(mapped, str):
        rule = "the node's configuration maps it to no file"
        raise errors.RequestError("secret_missing", f"cannot give secret {name}: {rule}")
    try:
        with Path(mapped).open("rb") as file:
            content = file.read(SECRET_MAX_BYTES + 1)
    except OSError as error:
        raise errors.RequestError("secret_missing", f"cannot give secret {name}: {error}") from error
    if len(content) > SECRET_MAX_BYTES:
        rule = f"it has more than {SECRET_MAX_BYTES} bytes"
        raise errors.RequestError("secret_missing", f"cannot give secret {name}: {rule}")
    target.write_bytes(content)
    target.chmod(CREDENTIAL_MODE)
