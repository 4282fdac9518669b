"""The files that pages are made of: read once at start, served from memory, named by their content."""

import gzip
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FILE_BYTES_MAX = 4 * 1024 * 1024  # GraphiQL itself is 3.5 MB
FILES_MAX = 64
PACKED_SUFFIX = ".gz"  # files of others are kept packed, and a browser unpacks them
FOREVER = "public, max-age=31536000, immutable"  # right where another content has another address
ASK_AGAIN = "no-cache"
# Nothing is loaded from elsewhere, no code or style stands inside a page, and no page may frame ours.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GUARDS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}

_placeholder = re.compile(r"\{\{([\w.-]+)\}\}")
_refusal = re.compile(r"\s*q=0(\.0*)?\s*")


class TooLarge(Exception):
    """A file beyond FILE_BYTES_MAX."""


@dataclass(frozen=True, slots=True)
class Content:
    """One file, in both forms that it is sent in."""

    name: str  # as it was written; its ending names its media type
    plain: bytes
    packed: bytes  # gzip

    @classmethod
    def of(cls, name: str, plain: bytes) -> "Content":
        """Content made at start. Raises TooLarge."""
        if len(plain) > FILE_BYTES_MAX:
            raise TooLarge(name)
        return cls(name, plain, gzip.compress(plain, mtime=0))

    @classmethod
    def read(cls, path: Path) -> "Content":
        """A file of the distribution, `.gz` or plain. Raises TooLarge."""
        if path.suffix != PACKED_SUFFIX:
            return cls.of(path.name, path.read_bytes())
        with gzip.open(path) as file:
            plain = file.read(FILE_BYTES_MAX + 1)
        if len(plain) > FILE_BYTES_MAX:
            raise TooLarge(path.name)
        return cls(path.stem, plain, path.read_bytes())

    @property
    def mark(self) -> str:
        """Twelve characters that another content does not have."""
        return hashlib.sha256(self.plain).hexdigest()[:12]

    def response(self, request: Request, cache: str, headers: Mapping[str, str]) -> Response:
        """The content as this request wants it: packed or plain, or 304 when it is there already."""
        told = {"etag": f'W/"{self.mark}"', "cache-control": cache, "vary": "accept-encoding", **GUARDS, **headers}
        if told["etag"] in [known.strip() for known in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=told)
        if not accepts_gzip(request.headers.get("accept-encoding", "")):
            return Response(self.plain, headers=told, media_type=self.media_type)
        return Response(self.packed, headers={**told, "content-encoding": "gzip"}, media_type=self.media_type)

    @property
    def media_type(self) -> str:
        """What the file is, by its ending."""
        return MEDIA_TYPES[Path(self.name).suffix]


def accepts_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header takes gzip."""
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in ("gzip", "*"):
            return _refusal.fullmatch(weight) is None
    return False


class Shelf:
    """A fixed list of contents, each at `<folder>/<name>.<mark>.<ending>`: a path in a request opens no file."""

    def __init__(self, contents: Iterable[Content], *, folder: str) -> None:
        self._names: dict[str, str] = {}
        self._contents: dict[str, Content] = {}
        for content in contents:
            stem, _, ending = content.name.rpartition(".")
            marked = f"{stem}.{content.mark}.{ending}"
            assert content.name not in self._names, f"two files are named {content.name}"
            self._names[content.name] = f"{folder}/{marked}"
            self._contents[marked] = content
        assert len(self._contents) <= FILES_MAX, "a page is made of few files"
        self.route = Route(f"/{folder}/{{name}}", self._answer)

    def page(self, content: Content, **words: str) -> Content:
        """A page in which `{{name}}` became the address of that file, or one of `words`. Raises KeyError."""
        known = self._names | words
        filled = _placeholder.sub(lambda found: known[found[1]], content.plain.decode())
        return Content.of(content.name, filled.encode())

    async def _answer(self, request: Request) -> Response:
        content = self._contents.get(request.path_params["name"])
        if content is None:
            return Response(status_code=404, headers=GUARDS)
        return content.response(request, FOREVER, {})


def page_response(request: Request, page: Content) -> Response:
    """A page itself: asked for again each time, and kept to its own files."""
    return page.response(request, ASK_AGAIN, {"content-security-policy": POLICY, "x-frame-options": "DENY"})
