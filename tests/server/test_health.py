"""The health payload, from facts alone."""

from pathlib import Path

import pytest

from server.health import free_fraction, health_of

pytestmark = pytest.mark.feature("003-70")


def test_a_well_process_says_so_with_its_version_and_whole_seconds(tmp_path: Path) -> None:
    assert health_of(version="0.1.0", database=True, redis=True, disk=tmp_path, uptime_seconds=61.9) == {
        "status": "ok",
        "version": "0.1.0",
        "checks": {"database": "ok", "redis": "ok", "disk_space": "ok"},
        "uptime_seconds": 61,
    }


@pytest.mark.parametrize(("database", "redis", "failing"), [(False, True, "database"), (True, False, "redis")])
def test_a_failing_check_is_named_and_degrades_the_whole(
    tmp_path: Path, database: bool, redis: bool, failing: str
) -> None:
    told = health_of(version="0.1.0", database=database, redis=redis, disk=tmp_path, uptime_seconds=0)

    assert told["status"] == "degraded"
    assert [name for name, word in told["checks"].items() if word != "ok"] == [failing]


def test_a_nearly_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.health.free_fraction", lambda _folder: 0.04)

    told = health_of(version="0.1.0", database=True, redis=True, disk=tmp_path, uptime_seconds=0)

    assert (told["status"], told["checks"]["disk_space"]) == ("degraded", "failing")


def test_a_folder_that_is_not_there_yet_is_judged_by_its_parents(tmp_path: Path) -> None:
    # The disk is in use: what is free moves between two looks at it.
    assert free_fraction(tmp_path / "not" / "yet") == pytest.approx(free_fraction(tmp_path), abs=0.005)
