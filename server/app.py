"""The api process: the routes beside GraphQL, and how the parts are put together and taken apart."""

import asyncio
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from db.health import is_away, standing_of
from db.migrate import newest_revision
from db.pool import UnknownTenant
from db.recorder import Recorder
from db.wake import Wake
from graph.budgets import Budgets
from graph.direct import Direct
from graph.documents import Documents
from graph.events import EventStreams
from graph.gate import Gate
from graph.http import GraphQLHTTP
from graph.refusal import ErrorCode, Refused
from graph.request import Engine
from graph.schema import schema, sdl
from graph.sockets import GraphQLSockets
from server.documents import trusted_by
from server.embedded import Addresses
from server.engine import Means, means
from server.health import health_of
from server.identity import Identity, KeySet, SharedSecret
from server.lane import lane_of
from server.metrics import Operations, Parts
from server.observing import VERSION, Observing, observing
from server.pages.graphiql import GraphiQL
from server.pages.live import LivePage, wants_html
from server.pages.sign_in import Logins, SignIn
from server.serving import UVICORN, QuietServer, listen
from server.settings import Settings

NAME = "sightline"


def excuse(error: BaseException) -> Refused | None:
    """Tell a client that the store is away (retry later) apart from a mistake of ours (INTERNAL)."""
    if is_away(error):
        return Refused(ErrorCode.UNAVAILABLE, "the store does not answer; try again in a moment")
    if isinstance(error, UnknownTenant):
        return Refused(ErrorCode.FORBIDDEN, "expected a tenant of this service in the token")
    return None


def identity_of(settings: Settings, opened: Means) -> Identity:
    """Who reads bearer tokens: one secret (HS256), or an issuer's public keys (RS256)."""
    keys: SharedSecret | KeySet
    if settings.jwt_algorithm == "HS256":
        keys = SharedSecret(settings.signing_secret())
    else:
        place = settings.jwks_url or settings.jwks_file
        assert place is not None, "settings check that RS256 has one key set"
        keys = KeySet(str(place), clock=opened.clock)
    return Identity(keys, clock=opened.clock, issuer=settings.jwt_issuer, audience=settings.jwt_audience)


class Api:
    """The application over opened means: routes, and the parts that must be closed in order."""

    def __init__(
        self, settings: Settings, opened: Means, watched: Observing | None = None, *, logins: Logins | None = None
    ) -> None:
        watched = watched or observing(settings, "api")
        operations = Operations()
        tell = watched.tell_to(operations)
        self._opened = opened
        self._started_at = opened.clock()
        self.wake = Wake(opened.waker)
        self.recorder = Recorder(
            opened.pool, clock=opened.clock, wake=self.wake, live=opened.live, tracer=watched.tracer
        )
        engine = Engine(
            clock=opened.clock,
            pool=opened.pool,
            recorder=self.recorder,
            wake=self.wake,
            live=opened.live,
            tracer=watched.tracer,
        )
        documents = Documents(
            schema,
            excuse=excuse,
            with_suggestions=settings.graphiql,  # where the schema is shown, a mistyped name is told the right one
            trusted=trusted_by(settings),
            only_trusted=settings.documents == "trusted",
        )
        identity = identity_of(settings, opened)
        authenticate = identity.viewer_of
        gate = Gate(places=settings.max_concurrent_requests, budgets=_budgets(settings))
        http = GraphQLHTTP(
            documents=documents,
            engine=engine,
            authenticate=authenticate,
            gate=gate,
            allowed_origins=settings.cors_origins,
            tell=tell,
            status_edition=settings.http_status_edition,
        )
        self.sockets = GraphQLSockets(
            documents=documents,
            engine=engine,
            authenticate=authenticate,
            gate=gate,
            allowed_origins=settings.cors_origins,
            tell=tell,
        )
        self._sdl = sdl()
        self._data_dir = settings.data_dir
        self.metrics = watched.page(
            Parts(
                kind="api",
                version=VERSION,
                pool=opened.pool,
                live=opened.live,
                clock=opened.clock,
                disk=settings.data_dir,
                operations=operations,
                recorder=self.recorder,
                wake=self.wake,
                sockets=self.sockets,
                sampling=watched.sampling,
            )
        )
        sign_in = _sign_in(settings, opened, logins)
        self._page = LivePage(sign_in_path=settings.sign_in_path or ("" if sign_in is None else SignIn.PATH))
        is_public = settings.metrics_token is not None and settings.metrics_port is None
        routed = Starlette(
            routes=[
                *([self.metrics.route] if is_public else []),
                Route("/", self.about),
                *self._page.routes,
                *([] if sign_in is None else [sign_in.route]),
                Route("/graphql", EventStreams(http, self.sockets), methods=None),
                WebSocketRoute("/graphql", self.sockets),
                Route("/health", self.health),
                Route("/ready", self.ready),
                Route("/schema.graphql", self.schema),
                *(GraphiQL(logins=None if logins is None else logins.file).routes if settings.graphiql else []),
            ],
            middleware=_cors(settings.cors_origins),
        )
        # CORS stands in front of every path, so only where there is none GraphQL goes past the routing, and past ASGI.
        self.app: ASGIApp = routed if settings.cors_origins else past_routing(routed)
        self._direct = Direct(http, identity.known)
        self.protocol = UVICORN["http"] if settings.cors_origins else lane_of(self._direct)

    async def about(self, request: Request) -> Response:
        """The live page for browsers; for everyone else, what this is (003-23)."""
        if wants_html(request):
            return self._page.show(request)
        data = {"name": NAME, "version": VERSION, "graphql": "/graphql", "schema": "/schema.graphql"}
        return JSONResponse({"success": True, "message": "Student progress and mastery", "data": data})

    async def health(self, _request: Request) -> Response:
        """Whether the process and what it stands on are well; 200 as long as the process answers (003-70)."""
        standing, is_redis_up = await asyncio.gather(standing_of(self._opened.pool), self._opened.live.pings())
        uptime = (self._opened.clock() - self._started_at).total_seconds()
        return JSONResponse(
            health_of(
                version=VERSION,
                database=standing.is_up,
                redis=is_redis_up,
                disk=self._data_dir,
                uptime_seconds=uptime,
            )
        )

    async def ready(self, _request: Request) -> Response:
        """Whether to send requests here: 503 while Postgres is away or migrations are missing; Redis may be away.

        A newer schema is as good as our own where it says that our release works with it (X-38).
        """
        standing = await standing_of(self._opened.pool)
        is_fit = standing.schema.serves(newest_revision())
        headers = {} if is_fit else {"retry-after": "1"}
        return JSONResponse({"ready": is_fit}, status_code=200 if is_fit else 503, headers=headers)

    async def schema(self, _request: Request) -> Response:
        """The schema in the schema language."""
        return PlainTextResponse(self._sdl)

    async def aclose(self) -> None:
        """Answer what is in flight, then tell the workers what was recorded."""
        await self.recorder.aclose()
        await self._direct.aclose()
        await self.wake.aclose()


def past_routing(routed: Starlette) -> ASGIApp:
    """Hand requests and sockets of /graphql straight to their endpoints.

    Routing cost a recorded event a twentieth of its CPU, and keeps seven frames alive for each socket.
    """
    endpoints: dict[str, ASGIApp] = {
        "http" if isinstance(route, Route) else "websocket": route.app
        for route in routed.routes
        if isinstance(route, Route | WebSocketRoute) and route.path == "/graphql"
    }

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = endpoints.get(scope["type"], routed) if scope.get("path") == "/graphql" else routed
        await endpoint(scope, receive, send)

    return front


def _sign_in(settings: Settings, opened: Means, logins: Logins | None) -> SignIn | None:
    """The demo's own; elsewhere the operator names where tokens come from."""
    if logins is None:
        return None
    return SignIn(logins=logins, secret=settings.signing_secret(), clock=opened.clock)


def _budgets(settings: Settings) -> Budgets | None:
    if not settings.rate_limit_enabled:
        return None
    return Budgets(integrator_events_a_second=settings.integrator_events_per_second)


def _cors(origins: Sequence[str]) -> list[Middleware]:
    """CORS for an explicit list of origins; without one, no browser of another origin is answered (003-34)."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "last-event-id", "traceparent", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
            max_age=600,
        )
    ]


async def serve_api(
    settings: Settings, addresses: Addresses, *, stop: asyncio.Event, logins: Logins | None = None
) -> None:
    """Serve HTTP and WebSocket until `stop` is set; sockets close with 1012, requests in flight are answered.

    `logins` says whom the pages of the demo sign in.
    """
    watched = observing(settings, "api")
    async with means(settings, addresses) as opened:
        opened.live.listen()
        api = Api(settings, opened, watched, logins=logins)
        config = uvicorn.Config(
            api.app,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=settings.shutdown_seconds,
            **UVICORN | {"http": api.protocol},
        )
        server = QuietServer(config)
        listener = listen(settings.host, settings.port)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        try:
            async with watched.published(api.metrics):
                await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                await api.sockets.shut()
                server.should_exit = True
                await serving
        finally:
            stopping.cancel()
            await api.aclose()
            watched.close()
