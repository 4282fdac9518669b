// Scores over time as a plot, and as a table for whoever does not see it.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Scored } from "../student";
import { titleOf } from "../titles";
import { dayOf, momentOf, percent } from "../words";

const HEIGHT_PX = 220;

export function ScoreHistory({ scores, zone, threshold }: { scores: Scored[]; zone: string; threshold: number }) {
  const counted = scores.filter((each) => each.score !== null && each.effect === "EFFECTIVE").reverse();
  return (
    <section class="card history" aria-labelledby="history">
      <h2 id="history">Scores over time</h2>
      {counted.length === 0 ? (
        <p class="quiet">Nothing has been scored yet.</p>
      ) : (
        <>
          <Plot scores={counted} zone={zone} threshold={threshold} />
          <details>
            <summary>As a table</summary>
            <table>
              <thead>
                <tr>
                  <th scope="col">When</th>
                  <th scope="col">Work</th>
                  <th scope="col">Score</th>
                </tr>
              </thead>
              <tbody>
                {[...counted].reverse().map((each) => (
                  <tr key={each.id}>
                    <td>{momentOf(each.occurredAt, zone)}</td>
                    <td>
                      <bdi>{each.assignmentId === null ? "–" : titleOf(each.assignmentId)}</bdi>
                    </td>
                    <td>{percent(each.score)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </details>
        </>
      )}
    </section>
  );
}

function Plot({ scores, zone, threshold }: { scores: Scored[]; zone: string; threshold: number }) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = place.current;
    if (!element) return undefined;
    const ink = getComputedStyle(element);
    const colour = (name: string): string => ink.getPropertyValue(name).trim();
    const times = scores.map((each) => Date.parse(each.occurredAt) / 1000);
    const data: uPlot.AlignedData = [times, scores.map((each) => (each.score ?? 0) * 100), times.map(() => threshold * 100)];
    const axis = { stroke: colour("--ink"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    const plot = new uPlot(
      {
        width: element.clientWidth || 600,
        height: HEIGHT_PX,
        legend: { show: false },
        cursor: { points: { size: 8 } },
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone),
        scales: { x: { time: true }, y: { range: [0, 100] } },
        axes: [{ ...axis, space: 80 }, { ...axis, values: (_plot, marks) => marks.map((mark) => `${mark} %`) }],
        series: [
          {},
          { stroke: colour("--accent"), width: 2, points: { show: true, size: 7, fill: colour("--accent") } },
          { stroke: colour("--quiet"), dash: [6, 4], width: 1, points: { show: false } },
        ],
      },
      data,
      element,
    );
    const watch = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    watch.observe(element);
    return () => {
      watch.disconnect();
      plot.destroy();
    };
  }, [scores.map((each) => each.id + each.score).join(), zone, threshold]);
  const [first, last] = [scores[0], scores.at(-1)];
  const said =
    first && last
      ? `${scores.length} scores from ${dayOf(first.occurredAt, zone)} (${percent(first.score)}) to ${dayOf(last.occurredAt, zone)} (${percent(last.score)}); the dashed line is the mastery threshold, ${percent(threshold)}`
      : "";
  return <div class="plot" role="img" aria-label={said} ref={place} />;
}
