"""The service itself: whether it works, which version it is, and how long it has been up."""

import tomllib
from enum import Enum
from functools import cache
from pathlib import Path
from time import monotonic

import strawberry

from db.health import is_reachable
from graph.access import ANY_SCOPE, PEOPLE, allow
from graph.request import Info

_started = monotonic()  # this room is loaded when a process starts to serve, and a process has one start
_project = Path(__file__).parents[1] / "pyproject.toml"


@cache
def version() -> str:
    """The version of this checkout: the product is run from it and never installed."""
    return str(tomllib.loads(_project.read_text())["project"]["version"])


@strawberry.enum(description="Whether the service can do its work.")
class ServiceStatus(Enum):
    """What `/health` says, for GraphQL."""

    OK = strawberry.enum_value("ok", description="The service answers and its database answers it.")
    DEGRADED = strawberry.enum_value("degraded", description="The service answers, but its database does not.")


@strawberry.type(description="The running service.")
class Service:
    """What an operator asks first."""

    status: ServiceStatus = strawberry.field(description="Whether the service can do its work.")
    version: str = strawberry.field(description="The version of the service, such as 1.4.0.")
    uptime_seconds: int = strawberry.field(description="Whole seconds since this process started to serve.")


@strawberry.type
class ServiceQuery:
    """The root field about the service."""

    @strawberry.field(description="The running service: its status, version and uptime.")
    @allow(*PEOPLE, scope=ANY_SCOPE)
    async def service(self, info: Info) -> Service | None:
        """Every viewer may ask, as everyone may ask `/health`."""
        is_up = await is_reachable(info.context.pool, info.context.viewer.tenant)
        return Service(
            status=ServiceStatus.OK if is_up else ServiceStatus.DEGRADED,
            version=version(),
            uptime_seconds=int(monotonic() - _started),
        )
