"""Rights that are read for all who listen: one that cannot be read holds nobody else up."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import pytest_asyncio

from db.live import Live
from db.pool import Pool
from graph import patience
from graph.audience import Audience
from graph.fanout import UNKNOWN, Fanout
from graph.rights import Circle, Right, Ties, renew
from rules.access import Role
from tests.support.listening import NOW, RISK, Desk, begun, open_desk, seated


@pytest_asyncio.fixture
async def desk(pool: Pool, live: Live) -> Desk:
    """A class with nothing recorded."""
    return await open_desk(pool, live)


class Register:
    """What a tenant knows of its people, where it can be read."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.reads = 0

    async def load(self, keys: Sequence[str]) -> Mapping[str, Any]:
        """Read, or fail."""
        self.reads += 1
        if self.error is not None:
            raise self.error
        return dict.fromkeys(keys, "ties")


def circle(fanout: Fanout, tenant: int, register: Register) -> Circle[Any]:
    """Those who listen to class 7b of a tenant."""
    return Circle(Right(Ties(fanout, ("classroom", tenant), "7b", register.load), lambda viewer, ties: True))


@pytest.mark.feature("000-18", "003-43")
async def test_a_tenant_whose_rights_cannot_be_read_leaves_no_other_unjudged() -> None:
    fanout = Fanout()
    registers = [Register(), Register(RuntimeError("one")), Register(RuntimeError("another")), Register()]
    circles = [circle(fanout, tenant, register) for tenant, register in enumerate(registers)]

    with pytest.raises(RuntimeError, match="one"):
        await renew(circles)

    assert [one.known for one in circles] == ["ties", UNKNOWN, UNKNOWN, "ties"]


async def test_a_server_that_says_nothing_is_asked_once_a_round() -> None:
    fanout = Fanout()
    registers = [Register(TimeoutError()), Register()]

    with pytest.raises(TimeoutError):
        await renew([circle(fanout, tenant, register) for tenant, register in enumerate(registers)])

    assert [register.reads for register in registers] == [1, 0]


async def refuse(*_arguments: object) -> Any:
    """As a Postgres that is away does."""
    raise OSError("postgres is away")


@pytest.mark.feature("000-18", "003-43")
async def test_who_sits_and_cannot_be_judged_outlives_postgres_no_longer_than_who_listens_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = desk.share(RISK, key="7b")
    await begun(listener)
    await seated(desk, 1)

    monkeypatch.setattr("db.visibility.followers_of_classrooms", refuse)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)  # of what comes after; who sits has waited for 30 s
    desk.seconds.now += 30.0

    assert await listener.refusal() == "INTERNAL"


@pytest.mark.feature("000-18", "003-43")
async def test_who_cannot_be_judged_is_judged_alone_and_the_round_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.district.classroom("8a")
    admin, teacher = desk.viewer("admin", Role.ADMIN), desk.viewer("teacher", Role.TEACHER)
    listeners = [desk.share(RISK, key="8a", by=admin), desk.share(RISK, key="7b", by=teacher)]
    await begun(*listeners)
    await seated(desk, 2)
    judge = Audience.judge

    def fail(audience: Audience, ties: Any) -> None:
        if audience.feed.name.key == "8a":
            raise ValueError("ties that nobody understands")
        judge(audience, ties)

    with caplog.at_level("ERROR"):
        monkeypatch.setattr(Audience, "judge", fail)
        await desk.district.run("update enrollment set ended = $2 where tenant = $1 and role = 'TEACHER'", NOW.date())
        desk.seconds.now += 2.1

        assert await listeners[1].refusal() == "FORBIDDEN"
    assert "rights_unread type=ValueError" in caplog.text
    await listeners[0].close()
