// The three rates of a class and how many students they are of.
import type { Classroom } from "../classroom";
import { percent } from "../words";

export function RatesView({ room }: { room: Classroom }) {
  const rates = room.rates.value;
  if (!rates) return null;
  return (
    <section class="rates" aria-label="The class in numbers">
      <Rate title="Completion rate" hint="of assigned work is graded" value={rates.completionRate} />
      <Rate title="Average score" hint="each student counts the same" value={rates.averageScore} />
      <Rate title="Submission rate" hint="of assigned work is handed in" value={rates.submissionRate} />
      <div class="card rate">
        <h2>Students</h2>
        <p class="figure">{rates.activeStudents}</p>
        <p class="quiet">enrolled today</p>
      </div>
    </section>
  );
}

function Rate({ title, hint, value }: { title: string; hint: string; value: number | null }) {
  return (
    <div class="card rate">
      <h2>{title}</h2>
      <p class="figure">{value === null ? <span class="none">not enough data</span> : percent(value, 1)}</p>
      {value !== null && <meter min={0} max={1} value={value} aria-label={`${title}: ${percent(value, 1)}`} />}
      <p class="quiet">{hint}</p>
    </div>
  );
}
