"""The tables of Sightline: SQLModel declares them, Alembic creates them, statements elsewhere are SQL text.

Every key begins with `tenant` and every text key compares bytewise (`COLLATE "C"`, like Python's strings).
Ratios, rates and sums are integers of millionths, scores and rates shown are integers of thousandths.
"""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    Uuid,
    text,
)
from sqlalchemy import Index as SqlIndex
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel


def _tenant() -> Any:
    return Field(sa_column=Column("tenant", BigInteger, primary_key=True, autoincrement=False))


def _id(name: str) -> Any:
    """A text key that is part of the primary key."""
    return Field(sa_column=Column(name, Text(collation="C"), primary_key=True))


def _text(name: str, *, null: bool = False, default: str | None = None) -> Any:
    server_default = None if default is None else text(f"'{default}'")
    return Field(sa_column=Column(name, Text(collation="C"), nullable=null, server_default=server_default))


def _int(name: str, *, null: bool = False, default: int | None = None, big: bool = False, small: bool = False) -> Any:
    kind = BigInteger if big else SmallInteger if small else Integer
    server_default = None if default is None else text(str(default))
    return Field(sa_column=Column(name, kind, nullable=null, server_default=server_default))


def _flag(name: str, *, default: bool = False) -> Any:
    return Field(sa_column=Column(name, Boolean, nullable=False, server_default=text(str(default).lower())))


def _when(name: str, *, null: bool = False, primary_key: bool = False) -> Any:
    return Field(sa_column=Column(name, DateTime(timezone=True), nullable=null, primary_key=primary_key))


def _texts(name: str) -> Any:
    return Field(sa_column=Column(name, ARRAY(Text(collation="C")), nullable=False, server_default=text("'{}'")))


def _json(name: str, *, default: str | None = None, null: bool = False) -> Any:
    server_default = None if default is None else text(f"'{default}'")
    return Field(sa_column=Column(name, JSONB, nullable=null, server_default=server_default))


# ---------------------------------------------------------------- the tenant and its roster


class Tenant(SQLModel, table=True):
    """The unit of isolation and distribution: at most a school district."""

    tenant: int = _tenant()
    name: str = _text("name")
    zone: str = _text("zone", default="UTC")
    epoch: int = _int("epoch", default=1)  # grows on a restore: resume tokens of an earlier epoch get RESYNC
    settings: dict[str, Any] = _json("settings", default="{}")
    created_at: datetime = _when("created_at")
    fold_level: int = _int("fold_level", default=1)  # of the newest fold that has begun here: db.fold_level


class TenantHead(SQLModel, table=True):
    """The tenant's log position: one hot row, locked by each recording transaction until it commits."""

    __tablename__ = "tenant_head"
    tenant: int = _tenant()
    seq: int = _int("seq", default=0, big=True)


class School(SQLModel, table=True):
    """A school of the tenant."""

    tenant: int = _tenant()
    school: str = _id("school")
    name: str = _text("name")
    zone: str | None = _text("zone", null=True)


class Person(SQLModel, table=True):
    """The only place where a name lives (000-24)."""

    tenant: int = _tenant()
    person: str = _id("person")
    display_name: str = _text("display_name")


class Student(SQLModel, table=True):
    """A rostered student: events of keys that are not here are unrostered (C7)."""

    tenant: int = _tenant()
    student: str = _id("student")
    zone: str | None = _text("zone", null=True)
    created_at: datetime = _when("created_at")


class Classroom(SQLModel, table=True):
    """A class of a school."""

    tenant: int = _tenant()
    classroom: str = _id("classroom")
    school: str | None = _text("school", null=True)
    name: str = _text("name")
    zone: str | None = _text("zone", null=True)
    created_at: datetime = _when("created_at")
    __table_args__ = (SqlIndex("classroom_by_school", "tenant", "school"),)


class Enrollment(SQLModel, table=True):
    """A person's time in a class: local dates, [started, ended)."""

    tenant: int = _tenant()
    classroom: str = _id("classroom")
    person: str = _id("person")
    role: str = _id("role")  # STUDENT or TEACHER
    started: date = Field(sa_column=Column("started", Date, primary_key=True))
    ended: date | None = Field(sa_column=Column("ended", Date, nullable=True))
    __table_args__ = (SqlIndex("enrollment_by_person", "tenant", "person", "role"),)


class GuardianLink(SQLModel, table=True):
    """A guardian's recorded consent to follow one student."""

    __tablename__ = "guardian_link"
    tenant: int = _tenant()
    guardian: str = _id("guardian")
    student: str = _id("student")
    consent_at: datetime = _when("consent_at")
    revoked_at: datetime | None = _when("revoked_at", null=True)
    __table_args__ = (SqlIndex("guardian_link_by_student", "tenant", "student"),)


class Subject(SQLModel, table=True):
    """A subject of the catalog."""

    tenant: int = _tenant()
    subject: str = _id("subject")
    name: str = _text("name")


class Concept(SQLModel, table=True):
    """A standard, topic or concept of a subject."""

    tenant: int = _tenant()
    concept: str = _id("concept")
    subject: str = _text("subject")
    name: str = _text("name")
    kind: str = _text("kind", default="CONCEPT")
    is_active: bool = _flag("is_active", default=True)
    __table_args__ = (SqlIndex("concept_by_subject", "tenant", "subject"),)


class ConceptPrerequisite(SQLModel, table=True):
    """An edge of the catalog: `prerequisite` comes before `concept`; cycles are refused."""

    __tablename__ = "concept_prerequisite"
    tenant: int = _tenant()
    concept: str = _id("concept")
    prerequisite: str = _id("prerequisite")


class Assignment(SQLModel, table=True):
    """A piece of work of a class; only an ASSIGNMENT_ASSIGNED event assigns it to a student."""

    tenant: int = _tenant()
    assignment: str = _id("assignment")
    classroom: str = _text("classroom")
    title: str = _text("title")
    kind: str = _text("kind", default="ASSIGNMENT")  # ASSIGNMENT, QUIZ, EXERCISE
    due_at: datetime | None = _when("due_at", null=True)
    difficulty: str | None = _text("difficulty", null=True)
    concepts: list[str] = _texts("concepts")
    created_at: datetime = _when("created_at")
    __table_args__ = (SqlIndex("assignment_by_classroom", "tenant", "classroom", "assignment"),)


class ClassroomPolicy(SQLModel, table=True):
    """One version of a class's policy ("" = the tenant's default); no row means version 1, the defaults."""

    __tablename__ = "classroom_policy"
    tenant: int = _tenant()
    classroom: str = _id("classroom")
    version: int = Field(sa_column=Column("version", Integer, primary_key=True, autoincrement=False))
    model: str = _text("model")
    recent_percent: int = _int("recent_percent")
    success_threshold: int = _int("success_threshold")
    mastery_threshold: int = _int("mastery_threshold")
    min_evidence: int = _int("min_evidence")
    inactivity_days: int = _int("inactivity_days")
    extra_credit: bool = _flag("extra_credit")
    created_at: datetime = _when("created_at")
    created_by: str = _text("created_by")


# ---------------------------------------------------------------- the log and its marks


class EventKey(SQLModel, table=True):
    """The idempotency key of each event, for the life of the log; its unique key must not contain time."""

    __tablename__ = "event_key"
    tenant: int = _tenant()
    source: str = _id("source")
    event_id: str = _id("event_id")
    id: UUID = Field(sa_column=Column("id", Uuid, nullable=False))
    seq: int = _int("seq", big=True)
    fingerprint: bytes = Field(sa_column=Column("fingerprint", LargeBinary, nullable=False))
    received_at: datetime = _when("received_at")


class Event(SQLModel, table=True):
    """The log: append-only, in monthly partitions by `received_at`; no foreign keys, events outlive rosters."""

    tenant: int = _tenant()
    seq: int = Field(sa_column=Column("seq", BigInteger, primary_key=True, autoincrement=False))
    received_at: datetime = _when("received_at", primary_key=True)
    id: UUID = Field(sa_column=Column("id", Uuid, nullable=False))
    source: str = _text("source")
    event_id: str = _text("event_id")
    kind: str = _text("kind")
    source_type: str | None = _text("source_type", null=True)
    occurred_at: datetime = _when("occurred_at")
    revision: int = _int("revision")
    student: str = _text("student")
    classroom: str = _text("classroom")
    assignment: str | None = _text("assignment", null=True)
    quiz: str | None = _text("quiz", null=True)
    concepts: list[str] = _texts("concepts")
    ratio: int | None = _int("ratio", null=True)
    submission: str | None = _text("submission", null=True)
    due_at: datetime | None = _when("due_at", null=True)
    time_spent_ms: int | None = _int("time_spent_ms", null=True)
    target_source: str | None = _text("target_source", null=True)
    target_event_id: str | None = _text("target_event_id", null=True)
    is_late: bool = _flag("is_late")
    payload: dict[str, Any] = Field(sa_column=Column("payload", JSON, nullable=False))
    recorded_by: str = _text("recorded_by")
    __table_args__ = (
        SqlIndex("event_by_student", "tenant", "student", "occurred_at", "seq"),
        SqlIndex("event_by_classroom", "tenant", "classroom", "seq"),
        SqlIndex("event_by_classroom_time", "tenant", "classroom", "occurred_at", "seq"),
        SqlIndex(
            "event_by_source_submission",
            "tenant",
            "source",
            "submission",
            "student",
            postgresql_where=text("submission IS NOT NULL"),
        ),
        {"postgresql_partition_by": "RANGE (received_at)"},
    )


class Outbox(SQLModel, table=True):
    """What waits to be folded: one row per event or touch, deleted in the transaction that commits its effects."""

    tenant: int = _tenant()
    shard: int = Field(sa_column=Column("shard", SmallInteger, primary_key=True, autoincrement=False))
    lane: int = Field(sa_column=Column("lane", SmallInteger, primary_key=True, autoincrement=False))  # 0 live
    occurred_at: datetime = _when("occurred_at", primary_key=True)
    seq: int = Field(sa_column=Column("seq", BigInteger, primary_key=True, autoincrement=False))
    kind: str = _text("kind")  # EVENT, TOUCH_STUDENT, TOUCH_CLASSROOM, REFOLD_CLASSROOM
    student: str = _text("student", default="")
    classroom: str = _text("classroom", default="")
    received_at: datetime = _when("received_at")
    traceparent: str | None = _text("traceparent", null=True)
    packed: bytes | None = Field(default=None, sa_column=Column("packed", LargeBinary))  # the event: db/parcels.py
    __table_args__ = (
        SqlIndex("outbox_by_seq", "tenant", "seq"),
        # A fold asks whether a touch of its classes waits; events are nearly all of what waits.
        SqlIndex("outbox_touches", "tenant", "classroom", postgresql_where=text("kind <> 'EVENT'")),
    )


class Correction(SQLModel, table=True):
    """What a correction speaks of (X-01 to X-05): an event, a submission ("" as event id), or a student's item ("" as
    event id and source). An event named here by a void has no effect."""

    tenant: int = _tenant()
    target_source: str = _id("target_source")
    target_event_id: str = _id("target_event_id")
    source: str = _id("source")
    event_id: str = _id("event_id")
    kind: str = _text("kind")
    seq: int = _int("seq", big=True)
    reason: str = _text("reason")
    at: datetime = _when("at")
    target_submission: str | None = _text("target_submission", null=True)
    student: str = _text("student", default="")
    classroom: str = _text("classroom", default="")
    assignment: str | None = _text("assignment", null=True)
    __table_args__ = (
        SqlIndex(
            "correction_by_student",
            "tenant",
            "student",
            "assignment",
            postgresql_where=text("assignment IS NOT NULL"),
        ),
        SqlIndex(
            "correction_by_submission",
            "tenant",
            "target_source",
            "target_submission",
            postgresql_where=text("target_submission IS NOT NULL"),
        ),
    )


class Conflict(SQLModel, table=True):
    """A key that came again with another content; the first stored stays (000-02)."""

    tenant: int = _tenant()
    source: str = _id("source")
    event_id: str = _id("event_id")
    sent_hash: bytes = Field(sa_column=Column("sent_hash", LargeBinary, primary_key=True))
    stored_hash: bytes = Field(sa_column=Column("stored_hash", LargeBinary, nullable=False))
    seq: int = _int("seq", big=True)  # of the stored event
    times: int = _int("times", default=1)
    first_at: datetime = _when("first_at")
    last_at: datetime = _when("last_at")
    content: dict[str, Any] | None = _json("content", null=True)  # what was sent, so that it can replace
    resolution: str | None = _text("resolution", null=True)  # KEEP_FIRST or REPLACE; none while it is open
    resolved_by: str | None = _text("resolved_by", null=True)
    resolved_at: datetime | None = _when("resolved_at", null=True)


class DeadLetter(SQLModel, table=True):
    """An event that no fold can take; it leaves the fold and its neighbours go on (000-09)."""

    __tablename__ = "dead_letter"
    tenant: int = _tenant()
    source: str = _id("source")
    event_id: str = _id("event_id")
    seq: int = _int("seq", big=True)
    student: str = _text("student")
    classroom: str = _text("classroom")
    error: str = _text("error")
    at: datetime = _when("at")


class Unrostered(SQLModel, table=True):
    """An event whose student or class the roster does not know; gone once it is bound (X-10)."""

    tenant: int = _tenant()
    seq: int = Field(sa_column=Column("seq", BigInteger, primary_key=True, autoincrement=False))
    source: str = _text("source")
    event_id: str = _text("event_id")
    student: str = _text("student")
    classroom: str = _text("classroom")
    received_at: datetime = _when("received_at")
    __table_args__ = (
        SqlIndex("unrostered_by_student", "tenant", "student"),
        SqlIndex("unrostered_by_classroom", "tenant", "classroom"),
    )


# ---------------------------------------------------------------- the projections


class StudentState(SQLModel, table=True):
    """The lock and the change number of one student."""

    __tablename__ = "student_state"
    tenant: int = _tenant()
    student: str = _id("student")
    change_no: int = _int("change_no", default=0, big=True)
    # Snapshots hold for all days that ended by then; None: an earlier day has changed since.
    closed_until: datetime | None = _when("closed_until", null=True)
    close_at: datetime = Field(
        sa_column=Column(
            "close_at",
            DateTime(timezone=True),
            nullable=False,
            server_default=text("now() + interval '1 minute'"),
        )
    )
    __table_args__ = (SqlIndex("student_state_by_close", "tenant", "close_at"),)


class DailyIndex(SQLModel, table=True):
    """The mastery index of one student at the end of one day of the tenant, in thousandths; kept 90 days."""

    __tablename__ = "daily_index"
    tenant: int = _tenant()
    student: str = _id("student")
    day: date = Field(sa_column=Column("day", Date, primary_key=True))
    score: int = _int("score")
    coverage: int = _int("coverage")
    completion: int | None = _int("completion", null=True)
    quiz: int | None = _int("quiz", null=True)
    quality: int | None = _int("quality", null=True)
    consistency: int | None = _int("consistency", null=True)


class ViewState(SQLModel, table=True):
    """One student's work in one class ("" = over all classes): counters and the last key folded."""

    __tablename__ = "view_state"
    tenant: int = _tenant()
    classroom: str = _id("classroom")
    student: str = _id("student")
    last_occurred_at: datetime | None = _when("last_occurred_at", null=True)
    last_revision: int | None = _int("last_revision", null=True)
    last_source: str | None = _text("last_source", null=True)
    last_event_id: str | None = _text("last_event_id", null=True)
    assigned: int = _int("assigned", default=0)
    graded: int = _int("graded", default=0)
    submitted: int = _int("submitted", default=0)
    score_sum: int = _int("score_sum", default=0, big=True)
    score_count: int = _int("score_count", default=0)
    last_active_at: datetime | None = _when("last_active_at", null=True)
    open_items: str = Field(sa_column=Column("open_items", JSON, nullable=False, server_default=text("'[]'")))
    recent: str = Field(sa_column=Column("recent", JSON, nullable=False, server_default=text("'[]'")))
    class_change: int = _int("class_change", default=0, big=True)  # no standing of the view has a newer one
    __table_args__ = (SqlIndex("view_state_by_student", "tenant", "student"),)


class Work(SQLModel, table=True):
    """One item as one student did it in one class."""

    tenant: int = _tenant()
    student: str = _id("student")
    classroom: str = _id("classroom")
    item: str = _id("item")
    is_assigned: bool = _flag("is_assigned")
    is_excused: bool = _flag("is_excused")
    due_at: datetime | None = _when("due_at", null=True)
    assigned_source: str | None = _text("assigned_source", null=True)
    assigned_event_id: str | None = _text("assigned_event_id", null=True)
    submitted_at: datetime | None = _when("submitted_at", null=True)
    counted: int | None = _int("counted", null=True)
    counted_occurred_at: datetime | None = _when("counted_occurred_at", null=True)
    counted_revision: int | None = _int("counted_revision", null=True)
    counted_source: str | None = _text("counted_source", null=True)
    counted_event_id: str | None = _text("counted_event_id", null=True)


class Standing(SQLModel, table=True):
    """One view's mastery of, and progress on, one concept; stamped with the numbers of its class and student."""

    tenant: int = _tenant()
    student: str = _id("student")
    classroom: str = _id("classroom")
    concept: str = _id("concept")
    count: int = _int("count")
    earlier_sum: int = _int("earlier_sum", big=True)
    newest: int | None = _int("newest", null=True)
    successes: int = _int("successes")
    quiz_attempts: int = _int("quiz_attempts")
    score: int | None = _int("score", null=True)
    last_evidence_at: datetime | None = _when("last_evidence_at", null=True)
    mastered_at: datetime | None = _when("mastered_at", null=True)
    rank: int = _int("rank", small=True)
    claimed_at: datetime | None = _when("claimed_at", null=True)
    best: int | None = _int("best", null=True)
    latest: int | None = _int("latest", null=True)
    time_spent_ms: int = _int("time_spent_ms", big=True)
    last_accessed_at: datetime | None = _when("last_accessed_at", null=True)
    policy_version: int = _int("policy_version")
    class_change: int = _int("class_change", big=True)
    student_change: int = _int("student_change", big=True)
    __table_args__ = (
        # No number that each change moves: a new version of a row would need an entry in every index of the table.
        SqlIndex("standing_by_classroom", "tenant", "classroom", "student", "concept"),
    )


class ClassroomState(SQLModel, table=True):
    """The lock, the change numbers and the rollup of one class; rates in thousandths."""

    __tablename__ = "classroom_state"
    tenant: int = _tenant()
    classroom: str = _id("classroom")
    change_no: int = _int("change_no", default=0, big=True)
    risk_no: int = _int("risk_no", default=0, big=True)
    # All changes after `stamped_from` are stamped on the views they moved, as long as `stamped_to` is `change_no`.
    stamped_from: int = _int("stamped_from", default=0, big=True)
    stamped_to: int = _int("stamped_to", default=0, big=True)
    completion_rate: int | None = _int("completion_rate", null=True)
    average_score: int | None = _int("average_score", null=True)
    submission_rate: int | None = _int("submission_rate", null=True)
    active_students: int = _int("active_students", default=0)
    policy_version: int = _int("policy_version", default=1)
    assessed_at: datetime | None = _when("assessed_at", null=True)
    reassess_at: datetime | None = _when("reassess_at", null=True)
    __table_args__ = (SqlIndex("classroom_state_by_reassess", "tenant", "reassess_at"),)


class RiskFlag(SQLModel, table=True):
    """One (class, student, reason): raised while `severity` is set, else the memory that keeps it quiet."""

    __tablename__ = "risk_flag"
    tenant: int = _tenant()
    classroom: str = _id("classroom")
    student: str = _id("student")
    reason: str = _id("reason")
    severity: int | None = _int("severity", null=True, small=True)
    overall: int | None = _int("overall", null=True, small=True)
    raised_at: datetime | None = _when("raised_at", null=True)
    cleared_at: datetime | None = _when("cleared_at", null=True)
    cleared_severity: int | None = _int("cleared_severity", null=True, small=True)
    notified_at: datetime | None = _when("notified_at", null=True)
    notified_severity: int | None = _int("notified_severity", null=True, small=True)
    is_armed: bool = _flag("is_armed", default=True)
    evidence: str = Field(
        sa_column=Column("evidence", JSON, nullable=False, server_default=text("'{}'"))
    )  # compared as text
    clears_when: str = _text("clears_when", default="")
    __table_args__ = (SqlIndex("risk_flag_by_student", "tenant", "student"),)


class RiskChange(SQLModel, table=True):
    """The transitions of a class's flags, append-only, numbered without gaps, kept 7 days."""

    __tablename__ = "risk_change"
    tenant: int = _tenant()
    classroom: str = _id("classroom")
    no: int = Field(sa_column=Column("no", BigInteger, primary_key=True, autoincrement=False))
    student: str = _text("student")
    reason: str = _text("reason")
    change: str = _text("change")
    severity: int | None = _int("severity", null=True, small=True)
    earlier: int | None = _int("earlier", null=True, small=True)
    overall: int | None = _int("overall", null=True, small=True)
    notify: bool = _flag("notify")
    evidence: str = Field(sa_column=Column("evidence", JSON, nullable=False, server_default=text("'{}'")))
    clears_when: str = _text("clears_when", default="")
    at: datetime = _when("at")
    traceparent: str | None = _text("traceparent", null=True)


# ---------------------------------------------------------------- work in the background


class Job(SQLModel, table=True):
    """Work that takes long: queued, done by one worker at a time, resumed from its checkpoint by another."""

    tenant: int = _tenant()
    job: str = _id("job")
    kind: str = _text("kind")
    scope: str = _text("scope")
    student: str = _text("student", default="")
    classroom: str = _text("classroom", default="")
    is_dry_run: bool = _flag("is_dry_run")
    state: str = _text("state")
    done: int = _int("done", default=0)
    total: int | None = _int("total", null=True)
    checkpoint: dict[str, Any] = _json("checkpoint", default="{}")
    result: dict[str, Any] | None = _json("result", null=True)
    error: str | None = _text("error", null=True)
    is_cancelled: bool = _flag("is_cancelled")
    change: dict[str, Any] | None = _json("change", null=True)  # of a policy: what was asked for
    requested_by: str = _text("requested_by")
    idempotency: str | None = _text("idempotency", null=True)
    runner: str | None = _text("runner", null=True)  # the worker that has it
    beat_at: datetime | None = _when("beat_at", null=True)  # when that worker last showed itself
    change_no: int = _int("change_no", default=1, big=True)
    created_at: datetime = _when("created_at")
    started_at: datetime | None = _when("started_at", null=True)
    finished_at: datetime | None = _when("finished_at", null=True)
    __table_args__ = (
        SqlIndex("job_by_idempotency", "tenant", "requested_by", "idempotency", unique=True),
        SqlIndex("job_by_time", "tenant", "created_at", "job"),
        SqlIndex("job_unfinished", "tenant", "created_at", postgresql_where=text("state in ('QUEUED', 'RUNNING')")),
    )


class DriftReport(SQLModel, table=True):
    """What a check of one class found: what is stored beside what the log says."""

    __tablename__ = "drift_report"
    tenant: int = _tenant()
    report: str = _id("report")
    job: str = _text("job")
    classroom: str = _text("classroom")
    compared: int = _int("compared")
    different: int = _int("different")
    skipped: int = _int("skipped", default=0)
    differences: list[dict[str, Any]] = _json("differences", default="[]")
    first_cause: str | None = _text("first_cause", null=True)
    at: datetime = _when("at")
    __table_args__ = (SqlIndex("drift_report_by_time", "tenant", "at", "report"),)


class Claim(SQLModel, table=True):
    """An attempt at a batch that has waited long, there while it is folded; one left behind by a crash counts it."""

    tenant: int = _tenant()
    shard: int = Field(sa_column=Column("shard", SmallInteger, primary_key=True, autoincrement=False))
    token: str = _id("token")
    first_seq: int = _int("first_seq", big=True)
    last_seq: int = _int("last_seq", big=True)
    rows: int = _int("rows")
    attempts: int = _int("attempts")
    at: datetime = _when("at")
    __table_args__ = ({"prefixes": ["UNLOGGED"]},)


TENANT_TABLES: tuple[str, ...] = tuple(sorted(SQLModel.metadata.tables))
"""Every table; all of them carry `tenant` and a row-level security policy."""
