"""Trusted documents: texts that applications registered when they were built, called by the hash of their text."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from graph.complexity import CHARACTERS_MAX
from graph.refusal import ErrorCode, Refused
from graph.wire import Ask

PREFIX = "sha256:"
TRUSTED_MAX = 2_000  # each is planned at start, in some milliseconds, and stays planned
MANIFEST_BYTES_MAX = 8 * 1024 * 1024
REMEMBERED_MAX = 500  # ad-hoc texts that clients asked to be called by their hash
REMEMBERED_CHARACTERS_MAX = 1_000_000


class WrongDocument(ValueError):
    """A file of trusted documents that cannot be served: which, and why."""

    def __init__(self, place: Path, why: str) -> None:
        super().__init__(f"trusted document {place}: {why}")


@dataclass(frozen=True, slots=True)
class TrustedDocument:
    """One registered text; its id is a fact of the text alone."""

    id: str
    text: str
    place: Path


def id_of(text: str) -> str:
    """The identifier of a document's text, as GraphQL over HTTP writes it: `sha256:` and 64 hexadecimal digits."""
    return PREFIX + sha256(text.encode(errors="surrogatepass")).hexdigest()


def read_trusted(places: Iterable[Path]) -> list[TrustedDocument]:
    """Read folders (every *.graphql below) and manifests (JSON, text by hash). Raises WrongDocument."""
    found: dict[str, TrustedDocument] = {}
    for place in places:
        for document in _of_folder(place) if place.is_dir() else _of_manifest(place):
            found.setdefault(document.id, document)
    if len(found) > TRUSTED_MAX:
        raise WrongDocument(document.place, f"more than {TRUSTED_MAX} documents are registered")
    return list(found.values())


def _of_folder(folder: Path) -> list[TrustedDocument]:
    return [_read(_text_of(path), path) for path in sorted(folder.rglob("*.graphql"))]


def _of_manifest(path: Path) -> list[TrustedDocument]:
    """What build tools such as relay-compiler write: `{"<hash>": "<text>"}`, with or without the prefix."""
    content = _text_of(path, MANIFEST_BYTES_MAX)
    try:
        texts = json.loads(content)
    except (ValueError, RecursionError):
        raise WrongDocument(path, "expected a folder, or JSON that maps each hash to its text") from None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise WrongDocument(path, "expected one JSON object that maps each hash to its text")
    documents = [_read(text, path) for text in texts.values()]
    for written, document in zip(texts, documents, strict=True):
        if PREFIX + written.removeprefix(PREFIX) != document.id:
            raise WrongDocument(path, f"the text under {written[:80]!r} has the id {document.id}")
    return documents


def _read(text: str, place: Path) -> TrustedDocument:
    if len(text) > CHARACTERS_MAX:
        raise WrongDocument(place, f"a document holds {CHARACTERS_MAX} characters at most")
    return TrustedDocument(id_of(text), text, place)


def _text_of(path: Path, bytes_max: int = 4 * CHARACTERS_MAX) -> str:
    try:
        if path.stat().st_size > bytes_max:
            raise WrongDocument(path, f"expected at most {bytes_max} bytes")
        return path.read_bytes().decode()  # the bytes as they are: another line ending is another hash
    except UnicodeDecodeError:
        raise WrongDocument(path, "expected UTF-8") from None
    except OSError as error:
        raise WrongDocument(path, error.strerror or "it cannot be read") from None


class Library:
    """Which text a request means: its own, a registered one, or one that an earlier request brought.

    With `is_closed`, only registered texts are answered, whether they are named or sent.
    """

    def __init__(self, trusted: Sequence[TrustedDocument] = (), *, is_closed: bool = False) -> None:
        self.trusted = {document.id: document.text for document in trusted}
        self._texts = frozenset(self.trusted.values())
        self._is_closed = is_closed
        self._remembered: OrderedDict[str, str] = OrderedDict()
        self._characters = 0

    def text_of(self, ask: Ask) -> str:
        """The text of the document that is asked for. Raises Refused."""
        if ask.document_id is None:
            text = ask.query or ""
        elif ask.query is None:
            text = self._named(ask.document_id, ask)
        else:
            text = self._brought(ask.document_id, ask.query)
        if self._is_closed and text not in self._texts:
            raise Refused(
                ErrorCode.BAD_INPUT,
                "Only registered documents are answered here; name one by its 'documentId'.",
                extensions={"reason": "DOCUMENT_NOT_TRUSTED"},
            )
        return text

    def known_text_of(self, ask: Ask) -> str | None:
        """The same where that is plain to see and leaves no trace; None says nothing."""
        if ask.document_id is None:
            text = ask.query
        else:
            text = self.trusted.get(ask.document_id) if ask.query is None else None
        return text if not self._is_closed or text in self._texts else None

    def _named(self, document_id: str, ask: Ask) -> str:
        text = self.trusted.get(document_id)
        if text is not None:
            return text
        text = self._remembered.get(document_id)
        if text is None:
            # Clients of automatic persisted queries know the word, and send the text with its hash next.
            raise Refused(
                ErrorCode.BAD_INPUT,
                "PersistedQueryNotFound" if ask.is_apq else "No document with this 'documentId' is known here.",
                extensions={"reason": "PERSISTED_QUERY_NOT_FOUND" if ask.is_apq else "PERSISTED_DOCUMENT_NOT_FOUND"},
            )
        self._remembered.move_to_end(document_id)
        return text

    def _brought(self, document_id: str, text: str) -> str:
        if len(text) > CHARACTERS_MAX:
            return text  # refused as too long where every text is, and not worth a hash before
        if document_id != id_of(text):
            raise Refused(
                ErrorCode.BAD_INPUT,
                "The id is not the SHA-256 of the document that came with it.",
                extensions={"reason": "PERSISTED_DOCUMENT_MISMATCH"},
            )
        return text

    def remember(self, ask: Ask) -> None:
        """Let a text that came with its id be called by it alone; only a valid one is worth the memory."""
        text, document_id = ask.query, ask.document_id
        if text is None or document_id is None or document_id in self.trusted or document_id in self._remembered:
            return
        self._remembered[document_id] = text
        self._characters += len(text)
        while len(self._remembered) > REMEMBERED_MAX or self._characters > REMEMBERED_CHARACTERS_MAX:
            _, dropped = self._remembered.popitem(last=False)
            self._characters -= len(dropped)
