"""The trusted documents of a service: those of its own pages, and those that the operator names."""

from pathlib import Path

from graph.documents import Documents
from graph.schema import schema
from graph.trusted import TrustedDocument, read_trusted
from server.settings import Settings

OF_PAGES = Path(__file__).parent / "pages" / "documents"


def trusted_by(settings: Settings) -> list[TrustedDocument]:
    """Read all of them. Raises WrongDocument."""
    return read_trusted([OF_PAGES, *settings.trusted_documents])


def checked(settings: Settings) -> list[TrustedDocument]:
    """All of them, each valid against the schema. Raises WrongDocument."""
    documents = trusted_by(settings)
    Documents(schema, trusted=documents)
    return documents


def shown(document: TrustedDocument) -> str:
    """Its file, relative to where we stand where that is shorter."""
    here = Path.cwd()
    place = document.place.resolve()
    return str(place.relative_to(here) if place.is_relative_to(here) else document.place)
