"""What a load process is told to do, what it reports, and the documents it sends."""

import msgspec

RECORD_EVENTS = """
mutation Record($input: RecordEventsInput!) {
  recordEvents(input: $input) {
    results { status errors { code field message } }
    errors { code field message }
  }
}
"""
RECORD_EVENT = """
mutation Record($input: RecordEventInput!) {
  recordEvent(input: $input) { status event { id seq } errors { code field message } }
}
"""
SUBSCRIPTIONS = {
    "masteryChanged": """
subscription Watch($classroom: ID!) {
  masteryChanged(classroomId: $classroom) {
    kind resumeToken studentId mastery { concept { key name } score state evidenceCount }
  }
}
""",
    "eventRecorded": """
subscription Watch($classroom: ID!) {
  eventRecorded(classroomId: $classroom) { kind resumeToken activity { studentId event { eventId } } }
}
""",
    "riskFlagChanged": """
subscription Watch($classroom: ID!) {
  riskFlagChanged(classroomId: $classroom) { kind resumeToken transition { studentId change reason severity at } }
}
""",
}

# What a class page and a student page ask for.
READS = {
    "dashboard": """
query Dashboard($id: ID!) {
  classroom(id: $id) {
    key name asOf { seq } lagMs
    dashboard {
      completionRate averageScore submissionRate activeStudents
      atRisk { nodes { studentId severity flags { reason severity raisedAt clearsWhen } } pageInfo { hasNextPage } }
      recentActivity {
        nodes { studentId event { eventId type occurredAt } }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
}
""",
    "mastery": """
query Mastery($id: ID!, $classroom: ID!) {
  student(id: $id) {
    key asOf { seq } lagMs
    mastery(classroomId: $classroom) {
      nodes { concept { key name } score state evidenceCount lastEvidenceAt }
      pageInfo { hasNextPage endCursor }
    }
    progress { averageScore concepts { notStarted inProgress completed mastered } }
  }
}
""",
    "timeline": """
query Timeline($id: ID!, $classroom: ID!) {
  student(id: $id) {
    key
    timeline(classroomId: $classroom, order: NEWEST_FIRST) {
      nodes { id eventId type occurredAt effect }
      pageInfo { hasNextPage endCursor }
    }
  }
}
""",
}

# Four reads for each event.
MIX = (
    *("recordEvent", "dashboard", "mastery", "timeline", "dashboard"),
    *("recordEvent", "mastery", "timeline", "dashboard", "mastery"),
    *("recordEvent", "timeline", "dashboard", "mastery", "timeline"),
)


class Job(msgspec.Struct, kw_only=True):
    """What to do.

    `kind` is send (each lane as fast as it is answered), pace (at fixed moments), mix (pace with what `mix` says) or
    watch.
    """

    kind: str
    out: str  # where what was seen is written
    port: int
    shape: tuple[int, int]  # classes, students in each
    tokens: dict[str, str]  # "" for senders; by class for watchers
    name: str = ""  # begins every event id
    first: int = 0  # number of the first event
    lanes: int = 1
    batch: int = 1  # events a request; 1 is recordEvent
    requests: int = 0  # of each lane; of all together when paced
    per_second: float = 0.0  # requests, when paced
    mix: list[str] = []  # what is asked in turns, of a mix
    is_evidence_only: bool = False  # only events that move mastery
    field: str = "masteryChanged"  # what is watched
    watched: int = 0  # classes that are watched, the first of them; 0 is all


class Seen(msgspec.Struct, kw_only=True):
    """What became of a job."""

    started: float
    ended: float
    accepted: int = 0
    seconds: list[float] = []  # from request to answer, in the order of answers
    late_seconds: list[float] = []  # a paced request's start after its moment
    waits: list[tuple[float, float]] = []  # when a paced request was due after the start, and its wait since then
    by_kind: dict[str, list[float]] = {}  # of a mix: waits since the moment it was due, by what was asked
    answered: list[tuple[str, str, int, float]] = []  # (student, concept, how much evidence so far, when)
    frames: list[tuple[str, str, int, float]] = []  # the same as pushed
    sent: dict[str, float] = {}  # by event id, when it was answered
    recorded: dict[str, float] = {}  # by event id, when it was pushed as `eventRecorded`
    flag_seconds: list[float] = []  # from a flag's `at`, inside its fold, to its frame
