// Everything about one student in one class: flags first, then what they can do, their open work and their history.
import { useEffect, useMemo } from "preact/hooks";
import { type Event, type Mastery, Student, type Work } from "../student";
import { clockOf, dayOf, momentOf, percent } from "../words";
import { Deed } from "./Deed";
import { Flags } from "./Flags";
import { Name } from "./Name";
import { Problem, State } from "./State";
import { ScoreHistory } from "./ScoreHistory";

const STATUSES: Record<Work["status"], string> = {
  OVERDUE: "overdue",
  ASSIGNED: "to do",
  SUBMITTED: "awaiting a grade",
  GRADED: "graded",
  EXCUSED: "excused",
};

export function StudentView({ classroom, student: key }: { classroom: string; student: string }) {
  const student = useMemo(() => new Student(classroom, key), [classroom, key]);
  useEffect(() => () => student.close(), [student]);
  if (student.phase.value !== "ready") {
    return <State phase={student.phase.value} what="student" problem={student.problem.value} retry={() => void student.load()} />;
  }
  return (
    <main id="main" tabIndex={-1}>
      <nav aria-label="Where you are">
        <a href={`#/class/${encodeURIComponent(classroom)}`}>
          <span aria-hidden="true">←</span> <bdi>{student.className.value}</bdi>
        </a>
      </nav>
      <h1>
        <Name name={student.name.value} id={key} />
      </h1>
      <Problem text={student.problem.value} />
      <Summary student={student} />
      <div class="columns">
        <div>
          {student.flags.value && (
            <section class="card" aria-labelledby="flags">
              <h2 id="flags">Flags</h2>
              {student.flags.value.length === 0 ? (
                <p class="quiet">No flag is raised.</p>
              ) : (
                <Flags flags={student.flags.value} zone={student.zone.value} />
              )}
            </section>
          )}
          <MasteryList student={student} />
          <ScoreHistory scores={student.scores.value} zone={student.zone.value} threshold={student.threshold.value} />
        </div>
        <div>
          <OpenWork student={student} />
          <TimelineView student={student} />
        </div>
      </div>
    </main>
  );
}

function Summary({ student }: { student: Student }) {
  const progress = student.progress.value;
  if (!progress) return null;
  const { mastered, completed, inProgress, notStarted } = progress.concepts;
  return (
    <p class="summary">
      Concepts: {mastered} mastered, {completed} completed, {inProgress} in progress, {notStarted} not started.{" "}
      {progress.averageScore === null ? "Not enough data for an average." : `Average ${percent(progress.averageScore, 1)}.`}{" "}
      {progress.lastActivityAt && `Last active ${momentOf(progress.lastActivityAt, student.zone.value)}.`}
    </p>
  );
}

function MasteryList({ student }: { student: Student }) {
  const concepts = student.mastery.value;
  return (
    <section class="card" aria-labelledby="mastery">
      <header>
        <h2 id="mastery">Mastery</h2>
        <span class="quiet">mastered from {percent(student.threshold.value)}</span>
      </header>
      {concepts.length === 0 ? (
        <p class="quiet">No evidence yet. The first graded work or quiz will show here.</p>
      ) : (
        <ul class="mastery">
          {concepts.map((each) => (
            <li key={each.concept.key} class={student.news.value.has(each.concept.key) ? "news" : ""}>
              <span class="concept">
                <bdi>{each.concept.name}</bdi>
              </span>
              <Level mastery={each} threshold={student.threshold.value} minEvidence={student.minEvidence.value} />
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function Level({ mastery, threshold, minEvidence }: { mastery: Mastery; threshold: number; minEvidence: number }) {
  const { score, state, evidenceCount, masteredAt } = mastery;
  const evidence = `${evidenceCount} ${evidenceCount === 1 ? "piece" : "pieces"} of evidence`;
  if (score === null) return <span class="quiet">no evidence yet</span>;
  const isMastered = state === "OK" && score >= threshold;
  return (
    <>
      <span class="level" style={{ "--threshold": `${threshold * 100}%` }} title={`Mastered from ${percent(threshold)}`}>
        <meter min={0} max={1} value={score} aria-label={percent(score, 1)} class={state === "OK" ? "" : "thin"} />
      </span>
      <span class="score">{percent(score, 1)}</span>
      <span class="quiet">
        {evidence}
        {state === "LOW_EVIDENCE" && <strong>, not enough data (needs {minEvidence})</strong>}
        {isMastered && ", mastered"}
        {!isMastered && masteredAt && ", once mastered"}
      </span>
    </>
  );
}

function OpenWork({ student }: { student: Student }) {
  return (
    <section class="card" aria-labelledby="work">
      <h2 id="work">Open work</h2>
      {student.work.value.length === 0 ? (
        <p class="quiet">Nothing is open.</p>
      ) : (
        <ul class="work">
          {student.work.value.map((each) => (
            <li key={each.assignmentId} class={each.status.toLowerCase()}>
              <bdi>{each.assignment?.title ?? each.assignmentId}</bdi>{" "}
              <strong>{STATUSES[each.status]}</strong>{" "}
              <span class="quiet">
                {each.dueAt ? `due ${dayOf(each.dueAt, student.zone.value)}` : "no due date"}
                {each.isLate && ", handed in late"}
              </span>
            </li>
          ))}
        </ul>
      )}
      {student.hasMoreWork.value && <p class="quiet">And more: the first 50 are shown, the soonest due first.</p>}
    </section>
  );
}

function Late() {
  return (
    <span class="quiet late" title="It reached Sightline long after it happened">
      {" "}
      entered later
    </span>
  );
}

function Happening({ event, zone, isLate }: { event: Event; zone: string; isLate: boolean }) {
  return (
    <li class={event.effect === "EFFECTIVE" ? "" : "withdrawn"}>
      <time dateTime={event.occurredAt}>{clockOf(event.occurredAt, zone)}</time> <Deed event={event} />
      {isLate && <Late />}
      {event.effect !== "EFFECTIVE" && <span class="tag">{event.effect.toLowerCase()}</span>}
    </li>
  );
}

/** Days as they follow each other in the list, each with its events. */
function byDay(events: readonly Event[], zone: string): [string, Event[]][] {
  const days = new Map<string, Event[]>();
  for (const event of events) {
    const day = dayOf(event.occurredAt, zone);
    days.set(day, [...(days.get(day) ?? []), event]);
  }
  return [...days];
}

function TimelineView({ student }: { student: Student }) {
  return (
    <section class="card timeline" aria-labelledby="timeline">
      <h2 id="timeline">Timeline</h2>
      {student.timeline.value.length === 0 && <p class="quiet">Nothing has been recorded in this class.</p>}
      {byDay(student.timeline.value, student.zone.value).map(([day, events]) => (
        <section key={day} aria-label={day}>
          <h3>
            {day}
            {events.every((event) => event.isLate) && <Late />}
          </h3>
          <ol>
            {events.map((event) => (
              <Happening
                key={event.id}
                event={event}
                zone={student.zone.value}
                isLate={event.isLate && !events.every((each) => each.isLate)}
              />
            ))}
          </ol>
        </section>
      ))}
      {student.hasOlder.value && (
        <button type="button" onClick={() => void student.loadOlder()}>
          Show older events
        </button>
      )}
    </section>
  );
}
