"""The live page at /: what a teacher keeps open all day, made of built files and public operations alone."""

from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.pages.files import Content, Shelf, page_response

HERE = Path(__file__).parent
BUILT = HERE / "built"
FILES = ("live.js", "live.css", "favicon.svg")
HTML = "text/html"


class LivePage:
    """The page and its files. `sign_in_path` is where the page fetches fresh tokens; "" lets the viewer paste one."""

    def __init__(self, *, sign_in_path: str = "") -> None:
        shelf = Shelf([Content.read(BUILT / name) for name in FILES], folder="live")
        self._page = shelf.page(Content.read(BUILT / "index.html"), **{"sign-in": sign_in_path})
        self.routes: Sequence[Route] = [shelf.route]

    def show(self, request: Request) -> Response:
        """The page itself."""
        return page_response(request, self._page)


def wants_html(request: Request) -> bool:
    """Whether the asker is a browser that navigates; everyone else is told about the service in JSON."""
    return any(part.split(";")[0].strip() == HTML for part in request.headers.get("accept", "").split(","))
