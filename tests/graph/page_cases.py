"""Generated pages: documents as clients write them, what they send with them, and a school in which much happened."""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from db.pool import Pool
from db.work import UNDATED
from db.written import Fields
from graph.class_mastery import CONCEPT_ORDER
from graph.connections import Keyset
from graph.coursework import WORK_ORDER
from graph.dashboards import AT_RISK_ORDER, RECENT_ORDER
from graph.risk import FLAG_ORDER
from graph.standings import MASTERY_ORDER
from graph.timelines import NEWEST_FIRST, OLDEST_FIRST
from rules.kinds import Kind
from tests.graph.compiled_cases import Dice
from tests.rows.district import NOW, District, open_district

KEYS = ("s0", 'q"\\uote', "ä" * 60, "gone", "una", "unrostered", "s5", "s6")
NAMES = ('Ann "Abel" \\', "Zoë\u2028\U0001f600", "tab\tbell\x07</script>", " ")
CONCEPTS = ("c1", 'c"3', "unheard/of+", "c2")
REASONS = ("MISSING_SUBMISSIONS", "SCORE_TREND_DOWN", "COMPLETION_BELOW_MEDIAN", "INACTIVE")
KEYSETS: Mapping[str, tuple[Keyset, ...]] = {
    "atRisk": (AT_RISK_ORDER,),
    "recentActivity": (RECENT_ORDER,),
    "mastery": (MASTERY_ORDER,),
    "timeline": (OLDEST_FIRST, NEWEST_FIRST),
    "assignments": (WORK_ORDER,),
    "riskFlags": (FLAG_ORDER,),
    "concepts": (CONCEPT_ORDER,),
}
# What no page holds: the reference executor reads such an object.
STRANGE = {
    "Classroom": ("school { name }", "roster { nodes { role } }", "riskFlags(minSeverity: LOW) { nodes { reason } }",
                  "key @include(if: true)", "... @skip(if: false) { name }"),
    "Student": ("trends { __typename }", "key @skip(if: true)", "riskFlags { nodes { reason } }",
                'conceptProgress(conceptId: "c1") { status }'),
    "Dashboard": ("atRisk { edges { cursor } }", "completionRate @include(if: false)"),
    "RiskFlag": ("evidence { numbers { value } }",),
    "Concept": ("subject { name }",),
    "ConceptMastery": ("score @skip(if: true)",),
}  # fmt: skip
NAMED = {*KEYSETS, "progress"}
CLASSES: tuple[Any, ...] = ("7b", "8a", "no such class", None, "", 7)
FIRSTS: tuple[Any, ...] = (1, 2, 3, 20, 200)
ODD_FIRSTS: tuple[Any, ...] = (0, 201, None, "3", 2.0, True, 2**40)


@dataclass(slots=True)
class Case:
    """One document being written, and the variables that it comes to need: type and value of each."""

    dice: Dice
    fields: Fields
    below: Mapping[tuple[str, str], str]
    pages: Collection[tuple[str, str]]
    variables: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def document(self, root: str, kind: str) -> str:
        """A query of one root field by `$id`."""
        dice = self.dice
        inner = self.selected(kind, depth=0)
        minimum = self._minimum() if dice.random.random() < 0.2 else ""
        field_ = f"{dice.of((root, root, f'a: {root}'))}(id: $id{minimum})"
        declared = "".join(f", ${name}: {of}" for name, (of, _) in self.variables.items())
        if dice.is_flawed():
            odd: str = dice.of((
                f"query ($id: ID!{declared}) {{ {field_} {{ {inner} }} viewer {{ key }} }}",
                f'query ($id: ID! = "7b"{declared}) {{ {field_} {{ {inner} }} }}',
            ))  # fmt: skip
            return odd
        if dice.random.random() < 0.3:
            fragment = f"fragment F on {kind} {{ {inner} }}"
            return f"query ($id: ID!{declared}) {{ {field_} {{ ...F ...F }} }} {fragment}"
        return f"query Page($id: ID!{declared}) {{ {field_} {{ {inner} }} }}"

    def values(self) -> dict[str, Any]:
        """What a client sends; some leave out what may be left out."""
        sent = {name: value for name, (_, value) in self.variables.items()}
        return {n: v for n, v in sent.items() if v is not None or self.dice.random.random() < 0.5}

    def selected(self, kind: str, depth: int) -> str:
        """Some fields of one kind, and of the objects below it."""
        dice = self.dice
        names = [*self.fields.get(kind, ()), "__typename"]
        parts = [self._named(name) for name in dice.random.sample(names, dice.random.randint(1, len(names)))]
        for (owner, name), inner in self.below.items():
            if owner == kind and dice.random.random() < (0.7 if depth < 3 else 0.3):
                parts.append(self._below(kind, name, inner, depth))
        if dice.random.random() < 0.15:
            parts.append(f"... on {kind} {{ {dice.of(names)} }}")
        if kind in ("Classroom", "Student") and dice.random.random() < 0.2:
            parts += ["... on Node { id }", "... on Fresh { lagMs }"]
        if dice.is_flawed() and kind in STRANGE:
            parts.append(dice.of(STRANGE[kind]))
        dice.random.shuffle(parts)
        return " ".join(parts)

    def _below(self, kind: str, name: str, inner: str, depth: int) -> str:
        if (kind, name) not in self.pages:
            return f"{self._named(name)}{self._arguments(name, is_page=False)} {{ {self.selected(inner, depth + 1)} }}"
        items = f"{self._named('nodes')} {{ {self.selected(inner, depth + 1)} }}"
        info = "pageInfo { hasNextPage hasPreviousPage startCursor end: endCursor __typename }"
        shown = self.dice.of((items, f"{items} {info}", f"{info} {items} __typename", info))
        return f"{self._named(name)}{self._arguments(name, is_page=True)} {{ {shown} }}"

    def _named(self, name: str) -> str:
        dice = self.dice
        # What takes arguments gets a name of its own: two of one name must not differ in them.
        is_renamed = name in NAMED or dice.random.random() < 0.15
        return f"a{dice.random.randint(0, 10**6)}{name.strip('_')}: {name}" if is_renamed else name

    def _arguments(self, name: str, *, is_page: bool) -> str:
        dice, given = self.dice, []
        if name in ("mastery", "progress", "timeline", "assignments") and dice.random.random() < 0.6:
            literal = dice.of(('"7b"', '"8a"', "null"))
            given.append(f"classroomId: {self._one_of(literal, 'c', 'ID', dice.of(CLASSES))}")
        if name == "timeline" and dice.random.random() < 0.6:
            given.append(f"order: {dice.of(('NEWEST_FIRST', 'OLDEST_FIRST', 'null'))}")
        if name == "timeline" and dice.random.random() < 0.3:
            given.append(f"types: {dice.of(('[CONTENT_VIEWED, QUIZ_ATTEMPT]', 'SUBMISSION_GRADED', 'null', '[]'))}")
        if name == "assignments" and dice.random.random() < 0.3:
            given.append(f"statuses: {dice.of(('[OVERDUE, ASSIGNED]', 'GRADED', 'null', '[]'))}")
        if is_page and dice.random.random() < 0.7:
            first = dice.of(ODD_FIRSTS if dice.is_flawed() else FIRSTS)
            given.append(f"first: {self._one_of(dice.of(('1', '2', '20', '200')), 'n', 'Int', first)}")
        if is_page and dice.random.random() < 0.4:
            given.append(f"after: {self._one_of('null', 'after', 'String', self._cursor(name))}")
        return f"({', '.join(given)})" if given else ""

    def _minimum(self) -> str:
        return f", minSeq: {self._open('seq', 'Seq', self.dice.of((None, 1, '3', 5, 'x')))}"

    def _one_of(self, literal: str, name: str, kind: str, value: Any) -> str:
        """An argument as it is written, or as a variable."""
        return literal if self.dice.random.random() < 0.5 else self._open(name, kind, value)

    def _open(self, name: str, kind: str, value: Any) -> str:
        name = f"{name}{len(self.variables)}"
        needed = "!" if self.dice.random.random() < 0.3 else ""
        self.variables[name] = (kind + needed, value)
        return f"${name}"

    def _cursor(self, name: str) -> Any:
        dice = self.dice
        if dice.is_flawed():
            return dice.of(("", "x", 7, MASTERY_ORDER.write("\udc00"[:0] + "zz"), OLDEST_FIRST.write(NOW, 1)))
        if name == "atRisk":
            return dice.of((None, AT_RISK_ORDER.write(-3, -1, "s0"), AT_RISK_ORDER.write(-2, -2, "a")))
        if name == "mastery":
            return dice.of((None, MASTERY_ORDER.write("c1"), MASTERY_ORDER.write("")))
        if name == "concepts":
            return dice.of((None, CONCEPT_ORDER.write("c1")))
        if name == "riskFlags":
            return dice.of((None, FLAG_ORDER.write(-2, "s0", "INACTIVE"), FLAG_ORDER.write(-3, "", "")))
        if name == "assignments":
            return dice.of((None, WORK_ORDER.write(NOW, "7b", "w1"), WORK_ORDER.write(UNDATED, "", "")))
        at = NOW - timedelta(hours=dice.random.randint(0, 60))
        return dice.of((None, dice.of(KEYSETS[name]).write(at, dice.random.randint(0, 40))))


async def open_school(pool: Pool) -> District:
    """Two classes in which everything has happened that a page could show."""
    dice, district = Dice(random.Random(5)), await open_district(pool)
    await district.school("north", zone="Pacific/Auckland")
    await district.classroom("7b", school="north")
    await district.classroom("8a", zone="America/Los_Angeles")
    await district.teach("tom")
    await district.teach("old", ended=date(2026, 3, 11))  # NOW is the 11th in Auckland: no longer
    await district.teach("una", "8a")
    await district.guard("gus", "s0")
    await district.guard("ria", "s0", revoked_at=NOW)
    await _catalog(district)
    for place, student in enumerate(KEYS):
        if student != "unrostered":
            await district.enroll(student, ended=date(2026, 3, 1) if student == "gone" else None)
            if place % 2:
                await district.enroll(student, "8a", started=date(2026, 3, 11))
        else:
            await district.put("enrollment", classroom="7b", person=student, role="STUDENT", started=date(2026, 1, 7))
        if place < len(NAMES):
            await district.person(student, NAMES[place])
        for reason in REASONS:
            if dice.random.random() < 0.6:
                severity = dice.of((None, 1, 2, 3))
                await district.flag(
                    student, reason, severity, classroom=dice.of(("7b", "8a")), overall=3 if severity else None
                )
        for concept in CONCEPTS:
            for classroom in ("7b", "8a", ""):
                await _standing(district, student, concept, classroom, dice)
        await _work(district, student, dice)
    await district.rates("7b", completion_rate=333, average_score=1000, submission_rate=0, active_students=7)
    await _log(district, dice)
    return district


async def _catalog(district: District) -> None:
    await district.put("subject", subject="math", name="Mathematics")
    for concept, kind in (("c1", "STANDARD"), ("c2", "TOPIC"), ('c"3', "CONCEPT"), ("c9", "CONCEPT"), ("c8", "TOPIC")):
        is_active = concept != "c2"
        await district.put(
            "concept", concept=concept, subject="math", name=f'N "{concept}"', kind=kind, is_active=is_active
        )
    await district.assignment("w1", "7b", concepts=["c1", "c9", "strange"])
    await district.assignment("w2", "7b", concepts=["c9", "c2"], due_at=NOW, difficulty="advanced", kind="QUIZ")
    await district.assignment("w3", "8a", concepts=[], title='The "third"', difficulty="beginner", kind="EXERCISE")
    for version, model in ((2, "SUCCESS_RATIO"), (3, "DECAYING_AVERAGE")):
        await district.put(
            "classroom_policy", classroom="7b", version=version, model=model, recent_percent=65, min_evidence=2,
            success_threshold=600_000, mastery_threshold=812_345, inactivity_days=14, extra_credit=version == 3,
            created_at=NOW, created_by="tom",
        )  # fmt: skip


async def _standing(district: District, student: str, concept: str, classroom: str, dice: Dice) -> None:
    """A standing of any kind; also one that a correction has emptied."""
    count = dice.of((0, 1, 2, 3, 7))
    at = datetime(2026, 3, 9, 23, 59, 59, dice.of((0, 5, 500_000, 999_999)), tzinfo=UTC)
    await district.put(
        "standing",
        student=student, classroom=classroom, concept=concept, count=count, earlier_sum=0, newest=None, successes=0,
        quiz_attempts=dice.of((0, count)), score=dice.of((0, 1, 5, 10, 100, 821, 850, 999, 1000)) if count else None,
        last_evidence_at=at if count else None, mastered_at=dice.of((None, at)),
        rank=dice.of((0, 1, 2, 3)) if count else 0,
        claimed_at=None, best=None, latest=None, time_spent_ms=dice.of((0, 7, 2**40)),
        last_accessed_at=dice.of((None, at)), policy_version=dice.of((1, 2, 3)) if classroom == "7b" else 1,
        class_change=1, student_change=1,
    )  # fmt: skip


async def _work(district: District, student: str, dice: Dice) -> None:
    """Work that stands in every way, known to the roster or not."""
    for number, item in enumerate(("w1", "w2", "w3", 'odd"', "nowhere")):
        if dice.random.random() < 0.2:
            continue
        at = dice.of((None, NOW, NOW - timedelta(days=1), NOW + timedelta(days=2, microseconds=7)))
        await district.put(
            "work", student=student, classroom=dice.of(("7b", "8a")), item=item,
            is_assigned=dice.of((True, True, False)),
            is_excused=number == 3 and dice.of((True, False)), due_at=at, submitted_at=dice.of((None, NOW)),
            counted=dice.of((None, None, 0, 500_000, 333_333)),
        )  # fmt: skip


async def _log(district: District, dice: Dice) -> None:
    """Events of every kind, at some of which corrections, dead letters and unknown students are."""
    kinds = list(Kind)
    for number in range(60):
        kind, student = kinds[number % len(kinds)], dice.of((*KEYS, "stranger"))
        ratio = dice.of((None, 0, 1, 333_333, 1_000_000, 1_250_000))
        await district.event(
            f'e{number}"', student, classroom=dice.of(("7b", "7b", "8a", "")), kind=kind.value,
            source=dice.of(("lms", "tom")), ratio=ratio, submission=dice.of((None, f"sub{number % 7}")),
            occurred_at=NOW - timedelta(hours=number * 4, microseconds=dice.of((0, 1, 500_000))),
            assignment=dice.of((None, "w1")), quiz=dice.of((None, "", "q1")), concepts=dice.of(([], ["c1", 'c"3'])),
            source_type=dice.of((None, 'My "type"')), time_spent_ms=dice.of((None, 0, 2**31 - 1)),
            due_at=dice.of((None, NOW)), is_late=dice.of((True, False)), is_waiting=number in (40, 45),
        )  # fmt: skip
    for student in ("s0", "s5"):  # what a student is not shown, for certain
        for fate in ("voided", "regraded", "dead", "counted"):
            at = NOW - timedelta(minutes=len(fate))
            await district.event(
                f"{fate}-{student}", student, kind="QUIZ_ATTEMPT", ratio=500_000, submission=fate, occurred_at=at
            )
        await district.void(f"voided-{student}", by=f"void-{student}")
    await district.put(
        "correction", target_source="lms", target_event_id="", source="lms", event_id="regrade", reason="", at=NOW,
        kind="SUBMISSION_REGRADED", seq=990, target_submission="regraded",
    )  # fmt: skip
    await district.put(
        "dead_letter", source="lms", event_id="dead-s0", seq=70, student="s0", classroom="7b", error="", at=NOW
    )
    for number in range(0, 60, 7):
        await district.void(f'e{number}"', by=f"v{number}", source=dice.of(("lms", "tom")))
    for number in range(7):
        await district.put(
            "correction", target_source="lms", target_event_id="", source="lms", event_id=f"r{number}",
            kind="SUBMISSION_REGRADED", seq=900 + number, reason="", at=NOW, target_submission=f"sub{number}",
            student=dice.of(("", "s0", "s5")),
        )  # fmt: skip
    for number in (3, 9, 12):
        await district.put(
            "correction", target_source="lms", target_event_id=f'e{number}"', source="lms", event_id=f"g{number}",
            kind="SUBMISSION_REGRADED", seq=950 + number, reason="", at=NOW,
        )  # fmt: skip
    for number in (4, 11, 18):
        await district.put(
            "dead_letter",
            source="lms",
            event_id=f'e{number}"',
            seq=number,
            student="s0",
            classroom="7b",
            error="",
            at=NOW,
        )
    for number in (6, 13):
        await district.put(
            "unrostered", seq=number, source="lms", event_id=f'e{number}"', student="x", classroom="", received_at=NOW
        )
