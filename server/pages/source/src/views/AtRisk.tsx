// Who is slipping, the most urgent first. Changes are shown where the student stands; while someone reads or tabs
// through the list its order stands still, and catches up when they leave.
import { signal } from "@preact/signals";
import type { Classroom } from "../classroom";
import type { AtRiskStudent } from "../risk";
import { REASONS, SEVERITIES } from "../words";
import { Flags } from "./Flags";
import { Name } from "./Name";
import { SeverityBadge } from "./Severity";

const NEWS = { raised: "newly at risk", added: "new reason", worse: "worse", better: "better", cleared: "cleared" } as const;
const isLoading = signal(false);

export function AtRisk({ room }: { room: Classroom }) {
  const students = room.atRisk.value;
  const more = (): void => {
    isLoading.value = true;
    void room.loadMoreAtRisk().finally(() => (isLoading.value = false));
  };
  return (
    <section
      class="card at-risk"
      aria-labelledby="at-risk"
      onPointerEnter={() => (room.isHeld.value = true)}
      onPointerLeave={() => room.release()}
      onFocusIn={() => (room.isHeld.value = true)}
      onFocusOut={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget as Node | null)) room.release();
      }}
    >
      <header>
        <h2 id="at-risk">At risk</h2>
        <Count students={students} hasMore={room.hasMoreAtRisk.value} />
      </header>
      {students.length === 0 ? (
        <p class="quiet">Nobody in this class is at risk right now.</p>
      ) : (
        <ol class="students">
          {students.map((student) => (
            <Student key={student.id} student={student} room={room} />
          ))}
        </ol>
      )}
      {room.hasMoreAtRisk.value && (
        <button type="button" onClick={more} disabled={isLoading.value}>
          {isLoading.value ? "Loading…" : "Show more students"}
        </button>
      )}
    </section>
  );
}

/** How many, by urgency; of a list that goes on, what is shown of it. */
function Count({ students, hasMore }: { students: AtRiskStudent[]; hasMore: boolean }) {
  const raised = students.filter((each) => each.news !== "cleared");
  const of = (severity: AtRiskStudent["severity"]): number => raised.filter((each) => each.severity === severity).length;
  const parts = (["HIGH", "MEDIUM", "LOW"] as const)
    .filter((severity) => of(severity) > 0)
    .map((severity) => `${of(severity)} ${SEVERITIES[severity].word.toLowerCase()}`);
  if (raised.length === 0) return null;
  return <span class="quiet">{hasMore ? `the ${raised.length} most urgent` : parts.join(", ")}</span>;
}

function Student({ student, room }: { student: AtRiskStudent; room: Classroom }) {
  return (
    <li class={student.news ? `news ${student.news}` : ""} data-student={student.id}>
      <details onToggle={(event) => event.currentTarget.open && void room.explain(student.id).catch(() => undefined)}>
        <summary>
          <SeverityBadge severity={student.severity} />
          <Name name={student.name} id={student.id} />
          <span class="reasons">{student.shown.map((flag) => REASONS[flag.reason]).join(", ")}</span>
          <span class="told">{student.news && <span class="tag">{NEWS[student.news]}</span>}</span>
        </summary>
        <Flags flags={student.shown} zone={room.zone.value} />
        <a class="onward" href={`#/class/${encodeURIComponent(room.key)}/student/${encodeURIComponent(student.id)}`}>
          Everything about <Name name={student.name} id={student.id} />
        </a>
      </details>
    </li>
  );
}
