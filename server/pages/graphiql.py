"""GraphiQL at /graphiql: the schema, tried out in a browser, with a tab for each thing people come for."""

import json
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.pages.files import GUARDS, Content, Shelf, page_response
from server.pages.visitors import is_from_this_machine

HERE = Path(__file__).parent
OURS = HERE / "graphiql"
VENDOR = HERE / "vendor"
TABS = OURS / "tabs"
VENDORED = (
    "react.production.min.js.gz",
    "react-dom.production.min.js.gz",
    "graphiql.min.js.gz",
    "graphiql.min.css.gz",
    "explorer.umd.js.gz",
    "explorer.css.gz",
)
LOGINS_PATH = "/graphiql/logins"
LOGINS_BYTES_MAX = 64 * 1024


class GraphiQL:
    """The page, its files, and in the demo a token for each role.

    `logins` is the demo's file of tokens, written when the demo is ready; without one the page asks for a token.
    """

    def __init__(self, *, logins: Path | None = None) -> None:
        own = [Content.read(OURS / name) for name in ("boot.js", "page.css", "favicon.svg")]
        tabs = Content.of("tabs.json", json.dumps(tabs_of(TABS)).encode())
        shelf = Shelf([*own, tabs, *(Content.read(VENDOR / name) for name in VENDORED)], folder="pages")
        self._page = shelf.page(Content.read(OURS / "index.html"), logins=LOGINS_PATH.lstrip("/") if logins else "")
        self._logins = logins
        self.routes = [Route("/graphiql", self._show), shelf.route]
        if logins is not None:
            self.routes.append(Route(LOGINS_PATH, self._tell_logins))

    async def _show(self, request: Request) -> Response:
        return page_response(request, self._page)

    async def _tell_logins(self, request: Request) -> Response:
        """Tokens by role, to this machine alone: `demo.json` may be read by its owner alone, too."""
        assert self._logins is not None, "the route exists with a file of logins"
        headers = {**GUARDS, "cache-control": "no-store"}
        if not is_from_this_machine(request) or (said := _read_small(self._logins)) is None:
            return JSONResponse({}, status_code=404, headers=headers)
        return JSONResponse(json.loads(said)["tokens"], headers=headers)


def tabs_of(folder: Path) -> list[dict[str, str]]:
    """The documents that the tabs open with, in the order of their names."""
    return [{"query": path.read_text()} for path in sorted(folder.glob("*.graphql"))]


def _read_small(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(LOGINS_BYTES_MAX)
    except FileNotFoundError:
        return None
