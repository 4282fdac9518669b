"""The ear that the whole suite is held against: a leak of any kind is heard, and what is no person's is not."""

import logging
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from db.live import Live
from db.pool import Pool
from graph.refusal import BadCredential
from server.identity import Identity, SharedSecret
from server.logs import Sink
from server.metrics import Metrics, Parts
from server.telemetry import Sampling
from tests.rows.district import NOW, open_district
from tests.support.overhearing import listening, spare_everybody_in
from tests.support.privacy import EAR, Ear, hear_logs_in

KEY = "planted-9"  # nobody else's: the session's own ear hears it too, and does not know whose it is
MAIL = "planted@school.example"

pytestmark = pytest.mark.feature("000-24", "C13")


@pytest.fixture
def ear() -> Ear:
    """One that knows one person."""
    made = Ear()
    made.spare(KEY, MAIL, "s1")
    made.spare_named("Ada Planted")
    return made


def words(ear: Ear) -> list[str]:
    return [found.partition(":")[0].strip("'") for found in ear.findings()]


def test_the_session_is_listened_to() -> None:
    logging.getLogger("sightline.house").info("the_session_is_listened_to")

    assert "the_session_is_listened_to" in EAR.said


@pytest.mark.parametrize(
    "said", [f"late {KEY}", f"late {KEY}.", f"('7b', '{KEY}')", f"7b:{KEY}:hw1", f'{{"id":"{KEY}"}}']
)
def test_a_log_record_that_names_a_key_is_heard(ear: Ear, said: str) -> None:
    with listening(ear):
        logging.getLogger("jobs.drain").warning("it is %s", said)

    (found,) = ear.findings()
    assert '"logger":"jobs.drain"' in found
    assert "test_a_log_record_that_names_a_key_is_heard" in found


def test_a_line_that_goes_past_the_loggers_is_heard(ear: Ear) -> None:
    with listening(ear):
        Sink(BytesIO()).write(msgspec.json.encode({"student_id": KEY}))

    assert words(ear) == [KEY]


def test_a_span_that_names_a_key_is_heard(ear: Ear) -> None:
    with listening(ear):
        sampling = Sampling(SimpleSpanProcessor(InMemorySpanExporter()), service="s", version="v", ratio=1.0)
        span = sampling.begin(None)
        assert span is not None
        span.rename(f"fold {KEY}")
        span.end()

    assert words(ear) == [KEY]


async def test_a_label_that_names_a_key_is_heard(ear: Ear, pool: Pool, live: Live, tmp_path: Path) -> None:
    parts = Parts(kind=KEY, version="v", pool=pool, live=live, clock=lambda: NOW, disk=tmp_path)

    with listening(ear):
        await Metrics(parts).text()

    assert words(ear) == [KEY]


def test_a_log_file_that_a_process_left_is_heard(ear: Ear, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "worker.log").write_text(f"all is well\nDETAIL: Key (student)=({KEY}) already exists\n")
    (tmp_path / "api.log.1").write_text(f"mail to {MAIL}\n")

    hear_logs_in(tmp_path, ear)

    assert words(ear) == [KEY, MAIL]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("waiting for s1", ["s1"]),  # as short as a key gets
        ("Ada scored 12", ["Ada"]),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln", ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"]),
        ("s10 and ss1 and s1x, 12 students, ada_count 0a1b2c3d4e5f60718 2026-03-11T09:30:00Z 0.5 -1", []),
    ],
)
def test_whole_words_count(ear: Ear, said: str, found: list[str]) -> None:
    ear.hear("a page", said)

    assert words(ear) == found


async def test_whoever_is_in_the_database_and_whoever_shows_a_token_is_spared(pool: Pool, database_url: str) -> None:
    district = await open_district(pool)
    await district.enroll(f"{KEY}-enrolled")
    await district.teach(f"{KEY}-teacher")
    await district.guard(f"{KEY}-guardian", f"{KEY}-child")
    await district.person(f"{KEY}-person", "Planted Quux")
    await district.event("e1", f"{KEY}-stranger")
    shown = "shown-header.shown-claims.shown-hash"
    ear = Ear()

    await spare_everybody_in(database_url, ear)
    with listening(ear), pytest.raises(BadCredential):
        await Identity(SharedSecret("a house secret of more than thirty-two bytes"), clock=lambda: NOW).viewer_of(shown)

    kinds = ("enrolled", "teacher", "guardian", "child", "person", "stranger")
    assert {f"{KEY}-{kind}" for kind in kinds} | {shown, "shown-claims", "Planted", "Quux"} <= ear.people
