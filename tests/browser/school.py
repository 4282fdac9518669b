"""A school on real processes: an api that can be restarted, a worker, and a class that its integrator fills."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from db.pool import Pool
from rules.access import Role, Scope
from server.identity import mint
from server.settings import TABLE
from tests.support.tenants import fresh_tenant

ROOT = Path(__file__).parents[2]
SECRET = "a browser's secret of more than thirty-two bytes"
READY_SECONDS_MAX = 60.0
LOOK_AGAIN_SECONDS = 0.05
RECORD = "mutation ($input: RecordEventInput!) { recordEvent(input: $input) { status errors { code message } } }"
SAVE = "mutation ($input: Save%sInput!) { save%s(input: $input) { errors { code field message } } }"


@dataclass(slots=True)
class School:
    """One tenant and its processes; the class "7b" is taught by "teacher"."""

    tenant: int
    port: int
    environment: dict[str, str]
    logins: Path
    api: asyncio.subprocess.Process | None = None
    worker: asyncio.subprocess.Process | None = None
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    def token(
        self, key: str, *roles: Role, scopes: tuple[Scope, ...] = (), life: timedelta = timedelta(hours=1)
    ) -> str:
        """A token of the tenant, from now on."""
        now = datetime.now(UTC)
        return mint(SECRET, tenant=self.tenant, sub=key, roles=roles, now=now, life=life, scopes=scopes)

    async def start_api(self) -> None:
        """Start it and wait until it is ready; the port stays the same."""
        words = ("api", "--logins", str(self.logins), "--login-seconds", "6", "--end-with", str(os.getpid()))
        self.api = await self._run(*words)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as client:
            async with asyncio.timeout(READY_SECONDS_MAX):
                while not await _is_ready(client):
                    assert self.api.returncode is None, "the api ended while it started"
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def start_worker(self) -> None:
        """Start it; it needs no waiting for."""
        self.worker = await self._run("worker", "--end-with", str(os.getpid()))

    async def stop_api(self) -> None:
        """As an operator restarts it: SIGTERM."""
        await _end(self.api)

    async def close(self) -> None:
        """End both processes."""
        await asyncio.gather(_end(self.api), _end(self.worker))

    async def post(self, query: str, variables: dict[str, Any]) -> Any:
        """Send one document as the school's own integrator and admin; the data of an answer without errors."""
        token = self.token("sis", Role.INTEGRATOR, Role.ADMIN, scopes=(Scope.INGEST, Scope.ROSTER, Scope.READ))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20) as client:
            answer = await client.post(
                "/graphql",
                json={"query": query, "variables": variables},
                headers={"authorization": f"Bearer {token}"},
            )
        body = answer.json()
        assert "errors" not in body, body
        return body["data"]

    async def save(self, what: str, **input: Any) -> None:
        """One entry of the roster."""
        data = await self.post(SAVE % (what, what), {"input": input})
        assert data[f"save{what}"]["errors"] == [], data

    async def enroll(self, key: str, name: str, classroom: str = "7b") -> None:
        """A student of the class."""
        await self.save("Student", key=key, displayName=name)
        await self.save("Enrollment", classroomId=classroom, personId=key, role="STUDENT", startsOn="2026-01-07")

    async def record(self, student: str, type: str, **more: Any) -> None:
        """One event, now, in class 7b."""
        number = next(self.numbers)
        sent = {
            "eventId": f"seen-{number}",
            "source": "lms",
            "type": type,
            "occurredAt": datetime.now(UTC).isoformat(),
            "studentId": student,
            "classroomId": "7b",
            **more,
        }
        data = await self.post(RECORD, {"input": sent})
        assert data["recordEvent"] == {"status": "ACCEPTED", "errors": []}

    async def grade(self, student: str, assignment: str, score: float) -> None:
        """A grade of one piece of work."""
        await self.record(student, "SUBMISSION_GRADED", assignmentId=assignment, conceptIds=["fractions"], score=score)

    async def _run(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", *words),
            cwd=ROOT,
            env=self.environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )


@asynccontextmanager
async def opened_school(pool: Pool, database_url: str, redis_url: str, folder: Path) -> AsyncIterator[School]:
    """A school at work: class 7b with Ada and Bo, and work that was due yesterday for both."""
    tenant, port, logins = await fresh_tenant(pool), _free_port(), folder / "demo.json"
    ours = {row.name for row in TABLE}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    environment = kept | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "DATA_DIR": str(folder),
        "JWT_SECRET": SECRET,
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }
    school = School(tenant, port, environment, logins)
    logins.write_text(json.dumps({"tokens": {"teacher": school.token("teacher", Role.TEACHER)}}))
    try:
        await school.start_api()
        await school.start_worker()
        concepts = [{"key": "fractions", "name": "Fractions", "subjectId": "maths"}]
        await school.save("Catalog", subjects=[{"key": "maths", "name": "Maths"}], concepts=concepts)
        await school.save("Classroom", key="7b", name="Class 7b")
        await school.save("Enrollment", classroomId="7b", personId="teacher", role="TEACHER", startsOn="2026-01-07")
        await school.enroll("ada", "Ada Lovelace")
        await school.enroll("bo", "Bo Diddley")
        yield school
    finally:
        await school.close()


async def _is_ready(client: httpx.AsyncClient) -> bool:
    with suppress(httpx.TransportError):
        return (await client.get("/ready")).status_code == 200
    return False


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is None or process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    await process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
