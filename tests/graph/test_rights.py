"""Rights that are read for all who listen: one that cannot be read holds nobody else up."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from graph.fanout import UNKNOWN, Fanout
from graph.rights import Circle, Right, Ties, renew


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
