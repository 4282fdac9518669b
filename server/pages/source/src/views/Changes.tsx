// What has just changed, in words: read out by screen readers, politely, a few at a time.
import { computed } from "@preact/signals";
import { useMemo } from "preact/hooks";
import type { Classroom } from "../classroom";
import type { Change } from "../risk";
import { REASONS, SEVERITIES, timeOf } from "../words";
import { Name } from "./Name";

const SPOKEN_MAX = 3;

export function Changes({ room }: { room: Classroom }) {
  const spoken = useMemo(
    () =>
      computed(() => {
        const [newest, ...older] = room.changes.value;
        if (!newest) return "";
        const together = [newest, ...older.filter((each) => newest.readAt - each.readAt < 1_000)];
        const said = together.slice(0, SPOKEN_MAX).map((each) => `${each.student?.displayName ?? each.studentId}: ${sentence(each)}`);
        const rest = together.length - said.length;
        return said.join(". ") + (rest > 0 ? `. And ${rest} more changes.` : ".");
      }),
    [room],
  );
  return (
    <section class="card changes" aria-labelledby="changes">
      <h2 id="changes">Changes</h2>
      <p class="spoken" role="status" aria-live="polite">
        {spoken.value}
      </p>
      {room.changes.value.length === 0 ? (
        <p class="quiet empty">No flag has changed since you opened this page.</p>
      ) : (
        <ol class="scroll" tabindex={0} aria-label="Changes, the newest first">
          {room.changes.value.map((each) => (
            <li key={each.number} class={`${each.change.toLowerCase()} ${each.notify ? "" : "quieter"}`}>
              <time dateTime={each.at}>{timeOf(each.at, room.zone.value)}</time>{" "}
              <Name name={each.student?.displayName ?? null} id={each.studentId} />: {sentence(each)}
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

function sentence(change: Change): string {
  const reason = REASONS[change.reason].toLowerCase();
  const now = change.severity ? SEVERITIES[change.severity].word.toLowerCase() : "";
  if (change.change === "RAISED") return `${reason}, raised (${now})`;
  if (change.change === "CLEARED") return `${reason}, cleared`;
  const before = change.earlier ? SEVERITIES[change.earlier].word.toLowerCase() : "";
  return `${reason}, from ${before} to ${now}`;
}
