// Who can do what: students × concepts. Only the rows in view are in the page, so 1,255 students scroll like 30; the
// whole is one grid for the keyboard (arrows, Home, End, Page Up and Down) and for screen readers (row counts).
import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { Cell, Classroom, Concept, Row } from "../classroom";
import { percent, stepOf } from "../words";
import { Name } from "./Name";

const ROW_PX = 32;
const SPARE_ROWS = 6;
type Order = "name" | "lowest" | "highest";
const order = signal<Order>("lowest");
const sought = signal("");
const sortings = signal(0);
const scrolled = signal(0);
const height = signal(480);
const focused = signal<{ row: number; column: number }>({ row: 0, column: 0 });

// On paper nothing can be scrolled: a print holds every row.
const paper = matchMedia("print");
const isPrinted = signal(paper.matches);
paper.addEventListener("change", () => (isPrinted.value = paper.matches));
addEventListener("beforeprint", () => (isPrinted.value = true));
addEventListener("afterprint", () => (isPrinted.value = false));

export function HeatMap({ room }: { room: Classroom }) {
  const concepts = room.concepts.value;
  // The order is that of when it was asked for: rows that change stay where they are while somebody reads.
  const ids = useMemo(
    () => arranged(room.rows.value, order.value, sought.value).map((row) => row.id),
    [room, room.rows.value.length, order.value, sought.value, sortings.value],
  );
  const known = new Map(room.rows.value.map((row) => [row.id, row]));
  const rows = ids.flatMap((id) => known.get(id) ?? []);
  const columns = `var(--who) repeat(${concepts.length}, minmax(var(--cell), 1fr))`;
  return (
    <section class="card heat" aria-labelledby="heat">
      <header>
        <h2 id="heat">Mastery by concept</h2>
        <label>
          Order{" "}
          <select value={order.value} onChange={(event) => (order.value = event.currentTarget.value as Order)}>
            <option value="lowest">Lowest mastery first</option>
            <option value="highest">Highest mastery first</option>
            <option value="name">By name</option>
          </select>
        </label>
        <button type="button" title="Rows keep their places while numbers change" onClick={() => sortings.value++}>
          Sort again
        </button>
        <label>
          Find <input type="search" value={sought.value} onInput={(event) => (sought.value = event.currentTarget.value)} />
        </label>
      </header>
      <Legend minEvidence={room.minEvidence.value} threshold={room.masteryThreshold.value} />
      {concepts.length === 0 ? (
        <p class="quiet">No work of this class is about a concept yet.</p>
      ) : rows.length === 0 ? (
        <p class="quiet">{room.rowsAreWhole.value ? "No student has this name." : "Loading students…"}</p>
      ) : (
        <Grid room={room} rows={rows} concepts={concepts} columns={columns} />
      )}
      <p class="quiet rows">
        {rows.length} of {room.rows.value.length} students{room.rowsAreWhole.value ? "" : ", more are loading"}
      </p>
    </section>
  );
}

interface GridProps {
  room: Classroom;
  rows: Row[];
  concepts: Concept[];
  columns: string;
}

function Grid({ room, rows, concepts, columns }: GridProps) {
  const frame = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = frame.current;
    if (!element) return undefined;
    const watch = new ResizeObserver(() => (height.value = element.clientHeight));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);
  const first = isPrinted.value ? 0 : Math.max(0, Math.floor(scrolled.value / ROW_PX) - SPARE_ROWS);
  const last = isPrinted.value ? rows.length : Math.min(rows.length, first + Math.ceil(height.value / ROW_PX) + 2 * SPARE_ROWS);
  const place = { row: Math.min(focused.value.row, rows.length - 1), column: Math.min(focused.value.column, concepts.length) };

  const move = (event: KeyboardEvent): void => {
    const next = step(event, place, rows.length, concepts.length, Math.floor(height.value / ROW_PX) - 1);
    if (!next || !frame.current) return;
    event.preventDefault();
    focused.value = next;
    const top = next.row * ROW_PX;
    const body = frame.current.clientHeight - 3 * ROW_PX;
    if (top < frame.current.scrollTop) frame.current.scrollTop = top;
    if (top > frame.current.scrollTop + body) frame.current.scrollTop = top - body;
    scrolled.value = frame.current.scrollTop;
    requestAnimationFrame(() => frame.current?.querySelector<HTMLElement>('[data-focus="yes"]')?.focus());
  };
  const focus = (row: number, column: number) => ({
    tabIndex: place.row === row && place.column === column ? 0 : -1,
    "data-focus": place.row === row && place.column === column ? "yes" : "no",
    onFocus: () => {
      if (place.row !== row || place.column !== column) focused.value = { row, column };
    },
  });
  return (
    <div class="frame" ref={frame} onScroll={(event) => (scrolled.value = event.currentTarget.scrollTop)}>
      <div
        role="grid"
        aria-labelledby="heat"
        aria-rowcount={rows.length + 2}
        aria-colcount={concepts.length + 1}
        onKeyDown={move}
        style={{ "--columns": columns }}
      >
        <div role="rowgroup" class="heads">
          <div role="row" aria-rowindex={1} class="line">
            <span role="columnheader" class="head">
              Student
            </span>
            {concepts.map((concept) => (
              <span role="columnheader" class="head" key={concept.key} title={concept.name}>
                <bdi>{concept.name}</bdi>
              </span>
            ))}
          </div>
          <div role="row" aria-rowindex={2} class="line">
            <span role="rowheader" class="head quiet">
              Distribution
            </span>
            {concepts.map((concept) => (
              <Distribution key={concept.key} rows={room.rows.value} concept={concept} threshold={room.masteryThreshold.value} />
            ))}
          </div>
        </div>
        <div role="rowgroup" style={{ height: `${rows.length * ROW_PX}px`, position: "relative" }}>
          {rows.slice(first, last).map((row, index) => (
            <div
              role="row"
              class="line"
              key={row.id}
              aria-rowindex={first + index + 3}
              style={{ position: "absolute", top: `${(first + index) * ROW_PX}px`, height: `${ROW_PX}px` }}
            >
              <span role="rowheader" class="who">
                <a
                  {...focus(first + index, 0)}
                  href={`#/class/${encodeURIComponent(room.key)}/student/${encodeURIComponent(row.id)}`}
                >
                  <Name name={row.name} id={row.id} />
                </a>
              </span>
              {concepts.map((concept, column) => (
                <MasteryCell
                  key={concept.key}
                  cell={row.cells.get(concept.key)}
                  concept={concept}
                  focus={focus(first + index, column + 1)}
                />
              ))}
            </div>
          ))}
        </div>
      </div>
    </div>
  );
}

interface CellProps {
  cell: Cell | undefined;
  concept: Concept;
  focus: { tabIndex: number; "data-focus": string; onFocus: () => void };
}

function MasteryCell({ cell, concept, focus }: CellProps) {
  if (!cell || cell.score === null) {
    return (
      <span role="gridcell" class="cell none" aria-label={`${concept.name}: no evidence yet`} {...focus}>
        –
      </span>
    );
  }
  const isThin = cell.state === "LOW_EVIDENCE";
  const evidence = `${cell.evidence} ${cell.evidence === 1 ? "piece" : "pieces"} of evidence`;
  const said = `${concept.name}: ${percent(cell.score)}, ${evidence}${isThin ? ", not enough data" : ""}`;
  return (
    <span role="gridcell" class={`cell step${stepOf(cell.score)} ${isThin ? "thin" : ""}`} aria-label={said} title={said} {...focus}>
      {Math.round(cell.score * 100)}
      {isThin && <sup>?</sup>}
    </span>
  );
}

/** How the students stand with one concept: mastered, on the way, not enough data. */
function Distribution({ rows, concept, threshold }: { rows: Row[]; concept: Concept; threshold: number }) {
  const counts = { mastered: 0, onTheWay: 0, thin: 0 };
  for (const row of rows) {
    const cell = row.cells.get(concept.key);
    if (!cell || cell.score === null || cell.state !== "OK") counts.thin++;
    else if (cell.score >= threshold) counts.mastered++;
    else counts.onTheWay++;
  }
  const all = Math.max(1, rows.length);
  const said = `${concept.name}: ${counts.mastered} at or above the mastery threshold, ${counts.onTheWay} below it, ${counts.thin} without enough data`;
  const share = (count: number): string => `${((count / all) * 100).toFixed(2)}%`;
  return (
    <span role="gridcell" class="distribution" aria-label={said} title={said}>
      <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
        <rect class="mastered" x="0" width={share(counts.mastered)} height="10" />
        <rect class="on-the-way" x={share(counts.mastered)} width={share(counts.onTheWay)} height="10" />
      </svg>
    </span>
  );
}

function Legend({ minEvidence, threshold }: { minEvidence: number; threshold: number }) {
  return (
    <p class="legend quiet">
      <span class="scale" aria-hidden="true">
        {[0, 1, 2, 3, 4, 5, 6].map((step) => (
          <span key={step} class={`step${step}`} />
        ))}
      </span>{" "}
      0 to 100 %, mastered from {percent(threshold)}. <span class="cell thin sample">?</span> fewer than {minEvidence} pieces
      of evidence. <span class="cell none sample">–</span> no evidence yet.{" "}
      <span class="keys">
        Distribution: <span class="key mastered" aria-hidden="true" /> mastered, <span class="key on-the-way" aria-hidden="true" /> on
        the way, <span class="key" aria-hidden="true" /> not enough data.
      </span>
    </p>
  );
}

function arranged(rows: Row[], by: Order, text: string): Row[] {
  const wanted = text.trim().toLocaleLowerCase();
  const kept = wanted
    ? rows.filter((row) => (row.name ?? "").toLocaleLowerCase().includes(wanted) || row.id.toLocaleLowerCase().includes(wanted))
    : [...rows];
  const collator = new Intl.Collator();
  const named = (a: Row, b: Row): number => collator.compare(a.name ?? a.id, b.name ?? b.id);
  if (by === "name") return kept.sort(named);
  const means = new Map(kept.map((row) => [row.id, mean(row)]));
  const sign = by === "lowest" ? 1 : -1;
  // Students without a sure score come last in both orders: of them nothing can be said.
  return kept.sort((a, b) => {
    const [one, other] = [means.get(a.id) ?? null, means.get(b.id) ?? null];
    if (one === null || other === null) return Number(one === null) - Number(other === null) || named(a, b);
    return sign * (one - other) || named(a, b);
  });
}

function mean(row: Row): number | null {
  const scores = [...row.cells.values()].flatMap((cell) => (cell.state === "OK" && cell.score !== null ? [cell.score] : []));
  return scores.length ? scores.reduce((sum, score) => sum + score, 0) / scores.length : null;
}

function step(
  event: KeyboardEvent,
  place: { row: number; column: number },
  rows: number,
  columns: number,
  page: number,
): { row: number; column: number } | null {
  const moves: Record<string, [number, number]> = {
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
    PageUp: [-page, 0],
    PageDown: [page, 0],
    Home: [event.ctrlKey ? -rows : 0, -columns],
    End: [event.ctrlKey ? rows : 0, columns],
  };
  const by = moves[event.key];
  if (!by) return null;
  return {
    row: Math.max(0, Math.min(rows - 1, place.row + by[0])),
    column: Math.max(0, Math.min(columns, place.column + by[1])),
  };
}
