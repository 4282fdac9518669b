"""One asyncpg pool a process, and the transaction of one tenant that every statement runs in."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import TypeAlias

import asyncpg
from asyncpg.protocol import protocol

from db.tally import Tally
from db.trace import inner

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

APP_ROLE = "sightline_app"  # may add to the log, never change it
COMMAND_SECONDS = 2.2  # no answer within this: the server is frozen, the connection is given up
ACQUIRE_SECONDS = 1.0
BEGIN_SECONDS = 1.0  # a BEGIN does nothing, so silence means a frozen server sooner than with other commands
ROLLBACK_SECONDS = 0.25
READ_STATEMENT_MS = 2_000  # 003-41
LINKS_MAX = 16  # of a chain: some tens of milliseconds
STATEMENT_BYTES_MAX = 32 * 1024  # of one that a connection keeps prepared; a longer one is planned each time
STATEMENTS_MAX = 64  # that a connection keeps prepared: callers make as many as they like, and each holds its plan
WRITE_TRANSACTION_MS = 3_000  # frees what a frozen process holds (docs/architecture.md, Locks)

# asyncpg asks of every value of every array whether it is an array itself, and asks an abstract base class: a call into
# Python for each, a tenth of a worker's CPU. Our arrays are lists and tuples; another container is refused as no array.
protocol.IterableABC = (list, tuple)

CANCELLED = (asyncpg.QueryCanceledError,)
"""A statement that took all the time it may, of a server that is well."""
TOO_SLOW = (TimeoutError, *CANCELLED)
"""A statement that took longer than it may; where the server is away a TimeoutError too."""

LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the next command on a connection whose server died between two commands
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TransactionTimeoutError,
    asyncpg.InsufficientResourcesError,
    OSError,
    TimeoutError,
)
"""Postgres is away, frozen or full: nobody's fault but the machine's, and worth another try later."""
COLLIDED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)
"""Two transactions met; the one that was sent away tries again at once."""


class UnknownTenant(Exception):
    """A verified token names a tenant that this database does not have."""


class TimedPool(asyncpg.Pool):  # type: ignore[misc] # asyncpg ships no types
    """A pool that counts how long its connections were waited for, and how long each transaction took."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)
        self.waits, self.transactions = Tally(), Tally()
        self.unserved = 0  # who got no connection within ACQUIRE_SECONDS

    def count(self, asked: float, begun: float, ended: float) -> None:
        """Count one transaction by its moments, `begun` 0 where there was no connection for it."""
        if begun:
            self.waits.add(begun - asked)
            self.transactions.add(ended - begun)
        else:
            self.unserved += 1


async def _reset(connection: asyncpg.Connection) -> None:
    """Hand back a clean connection without a round trip: every setting is SET LOCAL and ended with its transaction.

    Only a transaction whose end was interrupted is still open, and must not leak its tenant to the next user.
    """
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


async def open_pool(
    database_url: str, *, size_max: int = 10, size_idle: int = 2, lifetime_seconds: float = 300.0
) -> Pool:
    """Open the process's pool as the role `sightline_app`; the caller closes it."""
    return await TimedPool(
        database_url,
        init_size=None,
        min_size=min(size_idle, size_max),
        max_size=size_max,
        max_queries=50_000,
        max_inactive_connection_lifetime=lifetime_seconds,
        connect=None,
        setup=None,
        init=None,
        loop=None,
        connection_class=asyncpg.Connection,
        record_class=asyncpg.Record,
        timeout=ACQUIRE_SECONDS,
        command_timeout=COMMAND_SECONDS,
        statement_cache_size=STATEMENTS_MAX,
        max_cacheable_statement_size=STATEMENT_BYTES_MAX,
        reset=_reset,
        server_settings={"role": APP_ROLE, "application_name": "sightline", "timezone": "UTC", "jit": "off"},
    )


@asynccontextmanager
async def lent(pool: Pool) -> AsyncIterator[Connection]:
    """A connection outside any tenant; one that is interrupted is dropped, for a frozen server never hands it back."""
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        try:
            yield connection
        except (TimeoutError, asyncio.CancelledError):
            _drop(connection)
            raise


@asynccontextmanager
async def tenant_transaction(
    pool: Pool, tenant: int, *, read_only: bool = False, limit_ms: int | None = None, settings: str = ""
) -> AsyncIterator[Connection]:
    """Run statements for one tenant: committed when the block ends, rolled back when it raises.

    One round trip begins the transaction and names the tenant to row-level security. `limit_ms` bounds one statement
    of a read, or the whole of a write; `settings` are more SET LOCAL commands. Raises TimeoutError when no connection
    is free within a second, or when the server does not answer.
    """
    begin = _begin_of(tenant, read_only=read_only, limit_ms=limit_ms) + settings
    chain = Chain(pool, begin, name="postgres read" if read_only else "postgres write")
    async with chain.transaction() as connection:
        yield connection


def tenant_chain(pool: Pool, tenant: int) -> "Chain":
    """Writing transactions of one tenant, one after the other."""
    return Chain(pool, _begin_of(tenant), name="postgres write")


def _begin_of(tenant: int, *, read_only: bool = False, limit_ms: int | None = None) -> str:
    limit = (
        f"statement_timeout = {limit_ms or READ_STATEMENT_MS}"
        if read_only
        else (f"transaction_timeout = {limit_ms or WRITE_TRANSACTION_MS}")
    )
    mode = "READ ONLY" if read_only else "READ WRITE"
    return f"BEGIN {mode}; SET LOCAL sightline.tenant = '{tenant:d}'; SET LOCAL {limit}; "


def _never() -> bool:
    return False


class Chain:
    """Transactions of one kind on one connection: the end of one and the beginning of the next share a round trip.

    The connection goes back to the pool as soon as none follows, and after LINKS_MAX at the latest: others wait for it.
    """

    def __init__(self, pool: Pool, begin: str, *, name: str) -> None:
        self._pool = pool
        self._begin = begin
        self._name = name
        self._loan = AsyncExitStack()
        self._connection: Connection | None = None  # lent, with a transaction that is begun
        self._links = 0  # transactions on it so far

    @asynccontextmanager
    async def transaction(self, is_followed: Callable[[], bool] = _never) -> AsyncIterator[Connection]:
        """One of them, as `tenant_transaction`; where it `is_followed`, asked at its end, the next one is begun too."""
        span = inner(self._name)
        asked, begun, is_next = perf_counter(), 0.0, False
        try:
            connection = self._connection or await _begun(self._pool, self._begin, self._loan)
            begun = perf_counter()
            try:
                yield connection
            except BaseException as error:
                await _undo(connection, error)
                raise
            self._links += 1
            has_next = self._links < LINKS_MAX and is_followed()
            try:
                await connection.execute(f"COMMIT; {self._begin}" if has_next else "COMMIT")
            except (TimeoutError, asyncio.CancelledError):
                _drop(connection)
                raise
            is_next = has_next
        finally:
            self._connection = connection if is_next else None
            if not is_next:
                self._links = 0
                await self._loan.aclose()
            if isinstance(self._pool, TimedPool):
                self._pool.count(asked, begun, perf_counter())
            if span is not None:
                span.end()

    async def aclose(self) -> None:
        """Undo what is begun and not used."""
        if self._connection is not None:
            async with self.transaction():
                pass


async def _begun(pool: Pool, begin: str, loan: AsyncExitStack) -> Connection:
    """A connection with an open transaction, lent until `loan` is closed.

    One whose server has gone shows it at the BEGIN, when nothing is done yet: then another one is taken, so that a
    restart of Postgres reaches no client. After a failed BEGIN all idle connections are renewed before their next use.
    """
    for is_last in (False, True):
        connection: Connection = await loan.enter_async_context(pool.acquire(timeout=ACQUIRE_SECONDS))
        try:
            await connection.execute(begin, timeout=BEGIN_SECONDS)
        except BaseException as error:
            if isinstance(error, TimeoutError | asyncio.CancelledError):
                _drop(connection)
            if isinstance(pool, TimedPool) and isinstance(error, LOST):
                await pool.expire_connections()
            if is_last or not isinstance(error, LOST) or isinstance(error, TimeoutError):
                raise
            await loan.aclose()
        else:
            return connection
    raise AssertionError("unreachable: the last try returns or raises")


async def _undo(connection: Connection, error: BaseException) -> None:
    """Roll back; where the server is silent, drop the connection instead: its end is the transaction's end."""
    if isinstance(error, TimeoutError):
        _drop(connection)
        return
    try:
        async with asyncio.timeout(ROLLBACK_SECONDS):  # asyncpg's own limit begins after its wait for a cancellation
            await connection.execute("ROLLBACK")
    except Exception:  # a broken connection has rolled back already; the first error is told
        _drop(connection)


def _drop(connection: Connection) -> None:
    """End the connection without a word to its server, which may never listen."""
    if not connection.is_closed():
        connection.terminate()
