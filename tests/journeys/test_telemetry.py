"""Telemetry of the whole way: one trace from mutation to push, nothing where nothing is sampled, and nobody named."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

import jobs.drain
from db.live import Live
from db.pool import Pool
from rules.access import Role, Scope
from server.embedded import EmbeddedServers
from server.observing import observing
from server.settings import Settings
from server.telemetry import ATTRIBUTES
from tests.graph.toy import heard, subscribe
from tests.support.intake import graded
from tests.support.listening import MASTERY, RISK
from tests.support.station import SETTINGS, Station, station

RECORD = "mutation Tell($input: RecordEventInput!) { recordEvent(input: $input) { status errors { code } } }"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
UNSAMPLED = f"00-{TRACE}-{CALLER}-00"
MARK = "zqmark"  # stands in every name, key, mail and token of the last test
PUSH_SECONDS_MAX = 5.0


@pytest_asyncio.fixture
async def place(pool: Pool, live: Live, redis_url: str) -> AsyncIterator[Station]:
    """The api and a drain; only what brings a sampled traceparent is traced."""
    async with station(pool, live, redis_url) as opened:
        yield opened


def machine(place: Station) -> str:
    return place.token("lms", Role.INTEGRATOR, scopes=(Scope.INGEST,))


async def pushed(socket: Any, count: int) -> list[Any]:
    async with asyncio.timeout(PUSH_SECONDS_MAX):
        return [await heard(socket) for _ in range(count)]


async def walk(place: Station, **headers: str) -> None:
    """A subscriber to flags and mastery, one grade, its fold, its pushes."""
    await place.district.enroll("s1")
    async with place.socket(place.token("teacher", Role.TEACHER)) as socket:
        await subscribe(socket, "flags", RISK, variables={"key": "7b"})
        await subscribe(socket, "mastery", MASTERY, variables={"key": "7b"})
        await pushed(socket, 2)  # both are READY

        answer = await place.post(machine(place), RECORD, {"input": graded(score=0.2)}, **headers)
        assert answer.json()["data"]["recordEvent"]["status"] == "ACCEPTED"
        await place.fold()

        assert {message["id"] for message in await pushed(socket, 2)} == {"flags", "mastery"}


@pytest.mark.feature("003-50")
async def test_one_trace_runs_from_the_mutation_over_commit_and_fold_to_the_pushes(place: Station) -> None:
    await walk(place, traceparent=SAMPLED)

    spans = {span.name: span for span in place.spans if not span.name.startswith("postgres")}
    assert {f"{span.context.trace_id:032x}" for span in place.spans if span.context} == {TRACE}
    parents = {
        name: next((other.name for other in place.spans if span.parent and _id(other) == span.parent.span_id), "caller")
        for name, span in spans.items()
    }
    assert parents == {
        "mutation Tell": "caller",
        "record batch": "mutation Tell",
        "fold batch": "record batch",
        "push riskFlagChanged": "fold batch",
        "push masteryChanged": "fold batch",
    }
    assert f"{spans['mutation Tell'].parent.span_id:016x}" == CALLER  # type: ignore[union-attr]
    assert dict(spans["fold batch"].attributes or {}) == {"rows": 1, "classrooms": 1, "students": 1}
    inner = [span for span in place.spans if span.name.startswith("postgres")]
    assert {span.parent.span_id for span in inner if span.parent} >= {_id(spans["record batch"])}


def _id(span: Any) -> int:
    return int(span.context.span_id)


@pytest.mark.feature("003-50", "004-24")
@pytest.mark.parametrize("headers", [{}, {"traceparent": UNSAMPLED}, {"traceparent": "00-zz"}], ids=str)
async def test_what_is_not_sampled_makes_no_span_anywhere(place: Station, headers: dict[str, str]) -> None:
    await walk(place, **headers)

    assert (place.sampling.spans, place.spans) == (0, [])


@pytest.mark.feature("003-50")
async def test_the_dice_decide_for_requests_that_bring_no_trace(pool: Pool, live: Live, redis_url: str) -> None:
    async with station(pool, live, redis_url, ratio=1.0) as place:
        await walk(place)

        assert "mutation Tell" in {span.name for span in place.spans}
        assert len({span.context.trace_id for span in place.spans if span.context}) == 1


@pytest.mark.feature("004-24")
def test_where_tracing_is_off_a_sampled_request_makes_no_span() -> None:
    settings = Settings.read({**SETTINGS, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})

    watched = observing(settings, "api")

    assert (watched.sampling, watched.tracer.begin(SAMPLED), watched.tracer.join("x", [SAMPLED])) == (None, None, None)


@pytest.mark.feature("000-20", "003-49")
async def test_the_walk_is_counted_by_api_and_worker(place: Station) -> None:
    await walk(place)

    api, worker = await place.api.metrics.metrics.text(), await place.worker_metrics().text()
    told = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in (api + worker).decode().splitlines() if not line.startswith("#")}  # fmt: skip
    request = '{operation="mutation recordEvent",outcome="ok",status="200"}'
    assert told[f"http_requests_total{request}"] == 1
    assert told['http_request_duration_seconds_count{operation="mutation recordEvent"}'] == 1
    assert told['events_ingested_total{status="ACCEPTED"}'] == 1
    assert told["worker_latency_seconds_count"] == 1
    assert told["worker_rows_folded_total"] == 1
    assert told["websocket_messages_total"] == 4
    assert {"event_queue_depth", "event_queue_oldest_seconds", "partitions_ahead", "db_connections_active",
            "websocket_connections_active", "database_seconds_sum", "worker_saturation_ratio", "database_up",
            "wake_failures_total", "live_failures_total", "disk_used_ratio"} <= told.keys()  # fmt: skip


async def _everything_goes_wrong(place: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way of telling an error that we know of, each with pupils' data in its hands."""
    token = machine(place)
    leak = asyncpg.UniqueViolationError(f"Key (tenant, student)=(1, {MARK}-s1) already exists, mail {MARK}@x.example")

    async def failing(*_: Any, **__: Any) -> Any:
        raise leak

    with monkeypatch.context() as broken:
        broken.setattr("db.intake.facts_of", failing)
        broken.setattr("graph.recording.Wanted.is_nothing", False, raising=False)
        broken.setattr(place.api.recorder, "record", failing)
        # With metadata, so that facts are asked for: a routine event wants none.
        unusual = graded("e9", studentId=f"{MARK}-s1", metadata={})
        answer = await place.post(token, RECORD, {"input": unusual})
        assert answer.json()["errors"][0]["extensions"]["code"] == "INTERNAL"
    with monkeypatch.context() as broken:
        broken.setattr(jobs.drain, "fold", failing)
        await place.post(token, RECORD, {"input": graded("e10", studentId=f"{MARK}-s1", classroomId=f"{MARK}-7b")})
        await place.fold()
    for library in ("uvicorn.error", "asyncio", "arq.worker", "asyncpg.pool", "redis", "websockets.server"):
        log = logging.getLogger(library)
        log.error("it broke for %s", f"{MARK}-s1", exc_info=leak)
        log.error(f"it broke\nfuture: <Task exception={leak!r}>")
    asyncio.get_running_loop().call_exception_handler({"message": "lost", "exception": leak})


@pytest.mark.feature("000-24")
async def test_the_log_of_the_embedded_database_quotes_no_row(
    place: Station, servers: EmbeddedServers, database_url: str
) -> None:
    """Row-level security keeps details from our own processes; whoever comes as the owner has no such net."""
    student = f"{MARK}-twice"
    await place.district.student(student)
    owner = await asyncpg.connect(database_url)

    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await owner.execute(
            "insert into student (tenant, student, created_at) values ($1, $2, now())", place.district.tenant, student
        )
    await owner.close()

    assert student in refused.value.detail
    told = (servers.data_dir / "postgres.log").read_text()
    assert 'duplicate key value violates unique constraint "student_pkey"' in told
    assert student not in told


@pytest.mark.feature("000-24", "C13", "003-51", "004-23")
async def test_no_log_line_no_span_and_no_metric_names_anybody(place: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    student, token = f"{MARK}-s1", machine(place)
    await place.district.enroll(student)
    await place.district.person(student, f"Anna {MARK}")
    teacher = place.token("teacher", Role.TEACHER)
    event = graded(f"{MARK}-e1", studentId=student, metadata={"comment": f"{MARK}@mail.example"})
    dashboard = "query Class($key: ID!) { classroom(id: $key) { name dashboard { averageScore } } }"
    async with place.socket(teacher) as socket:
        await subscribe(socket, f"{MARK}-op", MASTERY, variables={"student": student})
        await pushed(socket, 1)
        for sent in (event, {**event, "score": 0.3}, {**event, "eventId": "x", "score": -5, "reason": f"{MARK}"}):
            await place.post(token, RECORD, {"input": sent}, traceparent=SAMPLED)
        await place.fold()
        await pushed(socket, 1)
        await subscribe(socket, "other", MASTERY, variables={"student": f"{MARK}-nobody"})
        await pushed(socket, 1)
    await place.post(teacher, dashboard, {"key": "7b"}, traceparent=SAMPLED)
    await place.post(teacher, dashboard, {"key": f"{MARK}-class"})
    await place.post(teacher, f'{{ student(id: "{student}") {{ displayName }} }}')
    await place.post(teacher, f"{{ {MARK} }}")
    await place.post(f"{token}.{MARK}", dashboard, {"key": student})
    await place.post(teacher, "query ($studentId: ID!) { student(id: $studentId) { key } }", {"studentId": student})
    await _everything_goes_wrong(place, monkeypatch)

    told = await place.everything()

    hits = [line for line in told.splitlines() if MARK in line.lower()]
    assert hits == []
    assert [one for one in place.tokens if one in told or one.split(".")[1] in told] == []
    # It was not silent: the walk left spans, lines with a hash, and the errors by their class.
    assert {"mutation Tell", "fold batch", "push masteryChanged"} <= {span.name for span in place.spans}
    assert {key for span in place.spans for key in span.attributes or {}} <= ATTRIBUTES
    lines = place.lines()
    requests = [line for line in lines if "endpoint" in line]
    assert len({line["student_id"] for line in requests if line["student_id"]}) == 1  # the same hash in every line
    assert sum(line.get("error") == "UniqueViolationError" for line in lines) >= 6
    (failed,) = [line for line in requests if line["status_code"] == 200 and line["level"] == "ERROR"]
    assert (failed["endpoint"], failed["codes"], len(failed["error_id"])) == ("mutation Tell", ["INTERNAL"], 16)
    assert {"timestamp", "level", "correlation_id", "endpoint", "student_id", "duration_ms", "status_code"} <= set(
        failed
    )
