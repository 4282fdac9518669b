// What one event says, in words: "was graded on Week 3: decimals 85 %".
import { percent, verbOf } from "../words";
import { conceptOf, titleOf } from "../titles";

interface Told {
  type: string;
  assignmentId: string | null;
  conceptIds?: readonly string[];
  score: number | null;
}

export function Deed({ event }: { event: Told }) {
  const [concept] = event.conceptIds ?? [];
  const object = event.assignmentId !== null ? titleOf(event.assignmentId) : concept === undefined ? null : conceptOf(concept);
  return (
    <>
      {verbOf(event.type, object !== null)}
      {object !== null && (
        <>
          {" "}
          <bdi class="object">{object}</bdi>
        </>
      )}
      {event.score !== null && <strong> {percent(event.score)}</strong>}
    </>
  );
}
