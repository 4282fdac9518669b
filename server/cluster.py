"""Where the embedded servers live: whose account, which folders, and a database cluster made once and whole.

Standard library only: this is the keeper's half that touches the disk (see `server.keeper`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STOP_SECONDS_MAX = 8.0  # then SIGKILL; Postgres recovers from its log at the next start
SOCKET_PATH_BYTES_MAX = 103  # AF_UNIX: 107 on Linux, 103 on macOS
UNPRIVILEGED_USER = "nobody"  # PostgreSQL refuses to run as root
IS_LINUX = sys.platform.startswith("linux")


class Refused(Exception):
    """The servers cannot be started here; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who the servers run as; `is_other` when that is not who started us."""

    uid: int
    gid: int
    is_other: bool

    @classmethod
    def choose(cls) -> Account:
        if os.getuid() != 0:
            return cls(os.getuid(), os.getgid(), is_other=False)
        import pwd  # not on every platform

        try:
            entry = pwd.getpwnam(UNPRIVILEGED_USER)
        except KeyError as missing:
            raise Refused(f"running as root needs the user {UNPRIVILEGED_USER!r}: PostgreSQL refuses root") from missing
        return cls(entry.pw_uid, entry.pw_gid, is_other=True)

    def reaches(self, path: Path) -> bool:
        """Whether this account may enter every folder on the way to `path`."""
        return not self.is_other or all(self._may_enter(folder) for folder in path.resolve().parents)

    def _may_enter(self, folder: Path) -> bool:
        found = folder.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & 0o100)
        return bool(found.st_mode & (0o010 if found.st_gid == self.gid else 0o001))

    def popen_arguments(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_other else {}


def say(event: str, **fields: object) -> None:
    """Tell the owner. A vanished owner is noticed on stdin, so a broken pipe here is no news."""
    line = json.dumps({"event": event, **fields}) + "\n"
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), line.encode())


def is_alive(pid: int) -> bool:
    """Whether the process still runs; a zombie, which holds nothing any more, does not."""
    if IS_LINUX:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def clean_environment() -> dict[str, str]:
    """PG* variables of the caller's shell would otherwise steer our server."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def private_folder(path: Path, account: Account) -> Path:
    """A folder that only `account` enters, made if absent; a stranger's folder of that name is refused."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
        if account.is_other:
            os.chown(path, account.uid, account.gid)
    found = path.lstat()
    if path.is_symlink() or not path.is_dir() or found.st_uid != account.uid or found.st_mode & 0o077:
        raise Refused(f"{path} exists but is not a private folder of user {account.uid}: remove it")
    return path


def socket_folder(key: str, account: Account) -> Path:
    """Where the sockets live: short (AF_UNIX limits the path) and the same for the same data folder."""
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - the folder in it is private
        folder = parent / f"sightline-{key}"
        fits = len(os.fsencode(folder / ".s.PGSQL.5432.lock")) <= SOCKET_PATH_BYTES_MAX
        if fits and account.reaches(folder):
            return private_folder(folder, account)
    raise Refused("no temporary folder with a path short enough for a socket: set TMPDIR")


@dataclass(frozen=True, slots=True)
class Order:
    """What the owner asks for, sent as the first line of stdin."""

    data_dir: Path
    key: str  # a hash of the data folder, for names outside of it
    owner: int
    postgres_home: Path  # holds bin/, share/ and lib/
    valkey_server: Path
    postgres_settings: dict[str, str]
    is_durable: bool
    database: str


def reachable_home(order: Order, account: Account) -> tuple[Path, Path, Path]:
    """Folder of the cluster and the two programs, where the account can reach them.

    A checkout under /root (mode 700) hides both from an unprivileged user, and we never change modes of folders
    that are not ours: the cluster and a linked copy of the programs then live in /var/tmp.
    """
    data, postgres, valkey = order.data_dir, order.postgres_home, order.valkey_server
    elsewhere = Path("/var/tmp") / f"sightline-{order.key}"  # noqa: S108 - private_folder checks who owns it
    if not account.reaches(data / "postgres"):
        data = private_folder(elsewhere, account)
        say("moved", what="cluster", path=str(data))
    if not (account.reaches(postgres / "bin" / "postgres") and account.reaches(valkey)):
        programs = private_folder(elsewhere, account) / "programs"
        if not programs.exists():
            copy_programs(order, programs)
        say("moved", what="programs", path=str(programs))
        postgres = programs / postgres.parent.name / postgres.name
        valkey = programs / valkey.name
    return data, postgres, valkey


def copy_programs(order: Order, programs: Path) -> None:
    """Copy both programs; the folders keep their relation, because the binaries find their libraries by it."""
    fresh = programs.with_name("programs.new")
    shutil.rmtree(fresh, ignore_errors=True)
    wheel = order.postgres_home.parent
    shutil.copytree(order.postgres_home, fresh / wheel.name / order.postgres_home.name)
    libraries = wheel.with_name(f"{wheel.name}.libs")
    if libraries.exists():  # Linux wheels only
        shutil.copytree(libraries, fresh / libraries.name)
    shutil.copy(order.valkey_server, fresh / order.valkey_server.name)
    fresh.chmod(0o755)
    fresh.rename(programs)


def run_as(account: Account, command: list[str], **options: Any) -> None:
    done = subprocess.run(
        command, cwd="/", env=clean_environment(), capture_output=True, **account.popen_arguments(), **options
    )
    if done.returncode != 0:
        raise Refused(f"{Path(command[0]).name} failed with {done.returncode}: {done.stderr.decode()[-2000:]}")


def cluster_in(data: Path, postgres_home: Path, order: Order, account: Account) -> Path:
    """The database cluster, made once: whole under its name, or not there (a crash in initdb leaves only *.new)."""
    cluster = data / "postgres"
    if cluster.exists():
        return cluster
    say("creating", path=str(cluster))
    fresh = data / "postgres.new"
    shutil.rmtree(fresh, ignore_errors=True)
    private_folder(fresh, account)
    programs = postgres_home / "bin"
    command = [str(programs / "initdb"), "-D", str(fresh), "-U", order.database, "--auth=trust", "--encoding=UTF8"]
    # Bytewise order and Unicode case rules, the same on every machine.
    command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]
    run_as(account, [*command, *([] if order.is_durable else ["--no-sync"])])
    single = [str(programs / "postgres"), "--single", "-D", str(fresh), "postgres"]
    if not order.is_durable:
        single[2:2] = ["-c", "fsync=off"]
    run_as(account, single, input=f"CREATE DATABASE {order.database}\n".encode())
    fresh.rename(cluster)
    return cluster


def end_orphan(cluster: Path, sockets: Path) -> None:
    """Stop a Postgres that outlived its keeper, and remove lock files that point at nobody's or at another's pid.

    We hold the folder's lock, so whatever still runs on this cluster is an orphan. Removing a stale pid file is
    safe: Postgres itself also checks the shared memory of the cluster.
    """
    pid_file = cluster / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
        pid = int(pid_file.read_text().splitlines()[0])
        if is_alive(pid) and is_postgres(pid):
            say("orphan", server="postgres", pid=pid)
            for sign, seconds in ((signal.SIGCONT, 0.0), (signal.SIGINT, STOP_SECONDS_MAX), (signal.SIGQUIT, 2.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
                wait_gone(pid, seconds)
        pid_file.unlink(missing_ok=True)
    (sockets / ".s.PGSQL.5432.lock").unlink(missing_ok=True)


def is_postgres(pid: int) -> bool:
    """Whether this pid runs Postgres at all: after a reboot the number may belong to anybody."""
    if IS_LINUX:  # where a slim image may lack ps
        with contextlib.suppress(OSError):
            return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False
    command = subprocess.run(["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
    return b"postgres" in command.stdout


def wait_gone(pid: int, seconds_max: float) -> None:
    until = time.monotonic() + seconds_max
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
