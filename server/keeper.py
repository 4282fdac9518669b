"""Keeper: the small process that owns embedded PostgreSQL and Valkey, so that they never outlive who asked for them.

It is run as `python -S -m server.keeper`, imports the standard library only and has one thread, which makes it fast
to start and safe to fork from. Orders come as one JSON line on stdin; news goes out as JSON lines on stdout.
The end of stdin is the order to stop: it also comes when the owner was killed with -9.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.cluster import (
    IS_LINUX,
    STOP_SECONDS_MAX,
    Account,
    Order,
    Refused,
    clean_environment,
    cluster_in,
    end_orphan,
    is_alive,
    reachable_home,
    say,
    socket_folder,
)

START_SECONDS_MAX = 60.0  # a crash recovery after a long night of writes takes a while
RESTART_SECONDS_FIRST = 0.1
RESTART_SECONDS_MAX = 5.0
RESTARTS_IN_A_ROW_MAX = 12  # about 40 s of trying, then the keeper gives up and says so
RESTARTS_UNPROVEN_MAX = 2  # a server that never ran has a wrong setting, which trying does not mend
HEALTHY_SECONDS = 2.0  # alive that long: the next death starts with the short delay again
PREDECESSOR_SECONDS_MAX = 15.0  # a keeper whose owner was killed needs STOP_SECONDS_MAX to tidy up
LOG_BYTES_MAX = 10_000_000  # a server's log starts anew above this size
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(sign: signal.Signals) -> Callable[[], None]:
    """A preexec function: the kernel sends `sign` to the child when this keeper is killed with -9 (Linux)."""
    if not IS_LINUX:
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    keeper = os.getpid()

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, int(sign), 0, 0, 0)
        if os.getppid() != keeper:  # it died between fork and prctl
            os._exit(1)

    return before_exec


@dataclass(slots=True)
class Server:
    """One program that is kept running: how to start it, how to know it is ready, how to stop it."""

    name: str
    command: list[str]
    is_ready: Callable[[int], bool]  # takes the pid
    stop_signal: signal.Signals
    log: Path
    account: Account
    process: subprocess.Popen[bytes] | None = None
    is_announced: bool = False
    started_at: float = 0.0  # monotonic seconds, as all times here
    restart_at: float = 0.0
    failures: int = 0
    is_proven: bool = False  # was ready once

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_BYTES_MAX:
                self.log.unlink()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=clean_environment(),
                start_new_session=True,  # Ctrl-C in the terminal must reach the owner only
                preexec_fn=die_with_parent(self.stop_signal),  # one thread, so forking is safe
                **self.account.popen_arguments(),
            )
        self.started_at = time.monotonic()
        self.is_announced = False

    def look(self) -> None:
        """Announce readiness or death, and start again when the time has come."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.restart_at:
                self.start()
            return
        code = self.process.poll()
        if code is not None:
            self._plan_restart(code, now)
        elif not self.is_announced:
            if self.is_ready(self.process.pid):
                self.is_announced = self.is_proven = True
                say("ready", server=self.name, pid=self.process.pid, seconds=round(now - self.started_at, 3))
            elif now - self.started_at > START_SECONDS_MAX:
                self.process.kill()

    def _plan_restart(self, code: int, now: float) -> None:
        pid, self.process = self.process.pid if self.process else 0, None
        if self.is_announced and now - self.started_at > HEALTHY_SECONDS:
            self.failures = 0
        if self.failures >= (RESTARTS_IN_A_ROW_MAX if self.is_proven else RESTARTS_UNPROVEN_MAX):
            last = self.log.read_text(errors="replace")[-300:].strip().splitlines()[-1:]
            raise Refused(f"{self.name} died {self.failures + 1} times in a row, last with {code}: {last}, {self.log}")
        delay = min(RESTART_SECONDS_FIRST * 2**self.failures, RESTART_SECONDS_MAX)
        self.failures += 1
        self.restart_at = now + delay
        say("died", server=self.name, pid=pid, code=code, restart_seconds=delay)

    def ask_to_stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(self.stop_signal)
            self.process.send_signal(signal.SIGCONT)  # a frozen server would never read the signal

    def wait_stopped(self, until: float) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            say("killed", server=self.name, pid=self.process.pid)


@contextlib.contextmanager
def lock_of(data_dir: Path, owner: int) -> Iterator[None]:
    """Hold the data folder's lock. Raises Refused, naming the pid, while another live owner holds it."""
    with (data_dir / "embedded.lock").open("a+") as lock:
        give_up_at = time.monotonic() + PREDECESSOR_SECONDS_MAX
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                holder = int(lock.read().strip() or 0)
                # A holder that is gone left a keeper behind, which is tidying up: wait for it.
                if (holder and is_alive(holder)) or time.monotonic() > give_up_at:
                    raise Refused(
                        f"{data_dir} is in use by process {holder or 'unknown'}: stop it, or set another DATA_DIR"
                    ) from None
                time.sleep(0.02)
        lock.truncate(0)
        lock.write(str(owner))
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def postgres_server(order: Order, cluster: Path, home: Path, sockets: Path, account: Account) -> Server:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "timezone": "UTC",
        "log_timezone": "UTC",
        **order.postgres_settings,
    }
    command = [str(home / "bin" / "postgres"), "-D", str(cluster)]
    command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def is_ready(pid: int) -> bool:
        # The eighth line is what pg_ctl waits for; the first keeps us from reading a predecessor's file.
        with contextlib.suppress(FileNotFoundError):
            lines = (cluster / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
        return False

    # SIGINT is the fast shutdown: it ends sessions, writes a checkpoint, and leaves nothing to recover.
    return Server("postgres", command, is_ready, signal.SIGINT, order.data_dir / "postgres.log", account)


def valkey_server(order: Order, program: Path, sockets: Path, account: Account) -> Server:
    address = sockets / "valkey.sock"
    settings = {"port": "0", "unixsocket": str(address), "unixsocketperm": "700", "appendonly": "no", "save": ""}
    settings |= {"dir": str(sockets), "daemonize": "no"}
    command = [str(program)] + [part for name, value in settings.items() for part in (f"--{name}", value)]

    def is_ready(pid: int) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(0.25)
            wire.connect(str(address))
            wire.sendall(b"PING\r\n")
            return wire.recv(16).startswith(b"+PONG")
        return False

    return Server("valkey", command, is_ready, signal.SIGTERM, order.data_dir / "valkey.log", account)


def reap_strangers(servers: list[Server]) -> None:
    """Collect what Postgres left behind: backends of a killed postmaster become our children (see adopt_orphans)."""
    ours = {server.process.pid for server in servers if server.process is not None}
    while IS_LINUX:
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if dead is None or dead.si_pid in ours:  # ours are collected by Popen.poll, which wants the exit code
            return
        os.waitpid(dead.si_pid, os.WNOHANG)


def adopt_orphans() -> None:
    """Many containers run a first process that never collects the dead; we collect our own instead."""
    if IS_LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep(servers: list[Server], owner: int, wake: int) -> None:
    """Run until told to stop: stdin ends, the owner is gone, or SIGTERM arrives. Raises Refused when it gives up."""
    stdin = sys.stdin.fileno()
    while os.getppid() == owner:
        for server in servers:
            server.look()
        reap_strangers(servers)
        is_busy = any(not server.is_announced or server.process is None for server in servers)
        # SIGCHLD writes to `wake`, so a death is seen at once; the second is for the owner's check above.
        readable, _, _ = select.select([stdin, wake], [], [], 0.01 if is_busy else 1.0)
        if stdin in readable and not os.read(stdin, 4096):
            return
        if wake in readable and signal.SIGTERM in os.read(wake, 4096):
            return


def stop(servers: list[Server]) -> None:
    for server in servers:
        server.ask_to_stop()
    until = time.monotonic() + STOP_SECONDS_MAX
    for server in servers:
        server.wait_stopped(until)
    reap_strangers([])


def serve(order: Order) -> None:
    account = Account.choose()
    adopt_orphans()
    order.data_dir.mkdir(parents=True, exist_ok=True)
    wake, wake_in = os.pipe()
    os.set_blocking(wake_in, False)
    signal.set_wakeup_fd(wake_in)
    for sign in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(sign, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with lock_of(order.data_dir, order.owner):
        sockets = socket_folder(order.key, account)
        data, home, valkey = reachable_home(order, account)
        cluster = cluster_in(data, home, order, account)
        end_orphan(cluster, sockets)
        say("sockets", path=str(sockets))
        servers = [
            postgres_server(order, cluster, home, sockets, account),
            valkey_server(order, valkey, sockets, account),
        ]
        try:
            keep(servers, order.owner, wake)
        finally:
            stop(servers)
            shutil.rmtree(sockets, ignore_errors=True)


def first_line(descriptor: int) -> bytes:
    """One line, byte by byte: a buffered read would swallow the end of stdin that we later wait for."""
    line = bytearray()
    while (byte := os.read(descriptor, 1)) not in (b"\n", b""):
        line += byte
    return bytes(line)


def main() -> int:
    asked: dict[str, Any] = json.loads(first_line(sys.stdin.fileno()))
    paths = {name: Path(asked[name]) for name in ("data_dir", "postgres_home", "valkey_server")}
    try:
        serve(Order(**asked | paths))
    except (Refused, OSError) as why:
        say("refused", message=str(why))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
