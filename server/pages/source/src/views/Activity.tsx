// What students do, as it happens; it can be stopped to be read.
import { signal } from "@preact/signals";
import type { Activity as Event, Classroom } from "../classroom";
import { timeOf } from "../words";
import { Deed } from "./Deed";
import { Name } from "./Name";

const held = signal<Event[] | null>(null);

export function Activity({ room }: { room: Classroom }) {
  const events = held.value ?? room.activity.value;
  const toggle = (): void => {
    held.value = held.value ? null : room.activity.value;
  };
  return (
    <section class="card activity" aria-labelledby="activity">
      <header>
        <h2 id="activity">Recent activity</h2>
        <span class="quiet">{room.activityPerMinute.value} in the last minute</span>
        <button type="button" aria-pressed={held.value !== null} onClick={toggle}>
          {held.value ? "Go on" : "Pause"}
        </button>
      </header>
      {events.length === 0 ? (
        <p class="quiet">Nothing was recorded in the last seven days.</p>
      ) : (
        <ol class="scroll" tabindex={0} aria-label="Recent activity, the newest first">
          {events.map(({ event, student, studentId }) => (
            <li key={event.id} class={event.effect === "EFFECTIVE" ? "" : "withdrawn"}>
              <time dateTime={event.occurredAt}>{timeOf(event.occurredAt, room.zone.value)}</time>{" "}
              <Name name={student?.displayName ?? null} id={studentId} /> <Deed event={event} />
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
