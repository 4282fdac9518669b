"""Nobody is named: all that the suite's logs, traces and metrics said, held against every person that a test made up.

Telemetry is heard where it leaves the product, whoever asked for it (`tests/support/overhearing.py`). Whom it must not
name is learned from what the tests did: the people of the shared database, whoever showed a token, the demo's school.
Both are kept as words, so the comparison at the end is one of two sets, and the shortest key ("s1") counts as well as
the longest.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

WORD = re.compile(r"[\w@.+-]+")
# Counts, moments and versions; ids of traces, errors and hashes: what is only this names nobody.
NUMBER = re.compile(r"[\d.+T-]+Z?|[0-9a-f]{16,}")
TOKEN = re.compile(r"eyJ[\w-]{8,}.*")  # how a JWT begins, also one that no test made
EXCERPT_CHARACTERS = 160
KEY_CHARACTERS_MIN = 2  # a single letter is a letter
NAME_CHARACTERS_MIN = 3
# Keys that some tests gave to people and that the product says of nobody: they are words of its own.
# Some tests name people so, and so does the code.
WORDS_OF_OURS = frozenset(
    {
        *("student", "teacher", "guardian", "admin", "integrator", "lms", "postgres"),
        *("former", "gone", "head", "later", "new", "parent", "unrostered"),
    }
)
WORDS_OF_NAMES = frozenset({"Name", "Class", "School", "District", "North"})

LOGS = "*.log*"


@dataclass(slots=True)
class Ear:
    """What was said, word by word with the first place of each, and who must not be in it."""

    said: dict[str, str] = field(default_factory=dict)
    people: set[str] = field(default_factory=set)

    def hear(self, source: str, text: str) -> None:
        """Take some telemetry."""
        said = self.said
        for line in text.splitlines():
            for word in WORD.findall(line):
                if word not in said and not NUMBER.fullmatch(word):
                    test = os.environ.get("PYTEST_CURRENT_TEST", "no test")
                    said[word] = f"{source}, in {test}: {line[:EXCERPT_CHARACTERS]}"

    def spare(self, *keys: str) -> None:
        """These keys, tokens and addresses are people's."""
        self.people.update(
            key
            for key in keys
            if len(key) >= KEY_CHARACTERS_MIN and not NUMBER.fullmatch(key) and key not in WORDS_OF_OURS
        )

    def spare_named(self, *names: str) -> None:
        """These are names of people: each word of one counts."""
        words = {word for name in names for word in WORD.findall(name)}
        self.people |= {
            word for word in words if word[0].isupper() and len(word) >= NAME_CHARACTERS_MIN
        } - WORDS_OF_NAMES

    def findings(self) -> list[str]:
        """Every word that is somebody's, with the place where it was said first."""
        return [
            f"{word!r}: {where}"
            for word, where in sorted(self.said.items())
            # A sentence may end with a key.
            if word in self.people or word.strip(".-+") in self.people or TOKEN.fullmatch(word)
        ]


EAR = Ear()
"""The session's."""


def hear_logs_in(folder: Path, ear: Ear = EAR) -> None:
    """The log files that processes left in a folder: ours, those of their children, and the servers' own."""
    if "PYTEST_CURRENT_TEST" not in os.environ:
        return  # a bench or a crash run, which holds its logs against nobody
    for path in sorted(folder.rglob(LOGS)):
        if path.is_file():
            ear.hear(f"the file {path.name}", path.read_text(errors="replace"))


def shown_findings(found: Iterable[str]) -> str:
    """What to read when it fails."""
    return "telemetry names somebody (tests/support/privacy.py):\n" + "\n".join(found)
