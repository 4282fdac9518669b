// The bar above all views: which class, whether the page is live, how fresh its numbers are, and the proof of it.
import { signal } from "@preact/signals";
import { asOf, clockZone, connection, type Connection, lagMs, resumptions } from "../stream";
import { canSignInByItself, signOut } from "../session";
import { duration, timeOf } from "../words";

const WORDS: Record<Exclude<Connection, "idle">, { word: string; mark: string }> = {
  connecting: { word: "Connecting", mark: "◌" },
  live: { word: "Live", mark: "●" },
  away: { word: "Reconnecting", mark: "◐" },
  denied: { word: "Signed out", mark: "○" },
};
const CHECKS = {
  running: "being checked",
  equal: "checked against a fresh reading: equal",
  different: "differed from a fresh reading; read anew",
  resynced: "too old to resume; read anew",
};
export const theme = signal(localStorage.getItem("theme") ?? "auto");

export function Bar({ classes, current }: { classes: { key: string; name: string }[]; current: string | null }) {
  return (
    <header class="bar">
      <a class="skip" href="#main" onClick={skip}>
        To the content
      </a>
      <a class="brand" href="#/">
        Sightline
      </a>
      {classes.length > 0 && (
        <label>
          <span class="hidden">Class</span>
          <select
            value={current ?? ""}
            onChange={(event) => (location.hash = `#/class/${encodeURIComponent(event.currentTarget.value)}`)}
          >
            {current === null && <option value="">Choose a class</option>}
            {current !== null && !classes.some((each) => each.key === current) && <option value={current}>{current}</option>}
            {classes.map((each) => (
              <option key={each.key} value={each.key}>
                {each.name}
              </option>
            ))}
          </select>
        </label>
      )}
      {current !== null && <Freshness />}
      <label class="theme">
        <span class="quiet">Colours</span>
        <select value={theme.value} onChange={(event) => choose(event.currentTarget.value)}>
          <option value="auto">Auto</option>
          <option value="light">Light</option>
          <option value="dark">Dark</option>
        </select>
      </label>
      {!canSignInByItself && (
        <button type="button" onClick={() => signOut()}>
          Sign out
        </button>
      )}
    </header>
  );
}

function Freshness() {
  if (connection.value === "idle") return null; // nothing here is live, and nothing says it is
  const { word, mark } = WORDS[connection.value];
  const at = asOf.value;
  const records = resumptions.value;
  return (
    <details class={`freshness ${connection.value}`}>
      <summary>
        <span aria-hidden="true">{mark}</span> <span role="status">{word}</span>
        {at && (
          <span class="quiet">
            {" "}
            as of <time dateTime={at.time}>{timeOf(at.time, clockZone.value)}</time>, lag {duration(lagMs.value / 1000)}
          </span>
        )}
      </summary>
      <div class="records">
        <p>
          {at ? `Everything recorded up to position ${at.seq} is counted.` : "Nothing has been heard yet."}{" "}
          {records.length === 0 && "The connection has not been interrupted since you opened this page."}
        </p>
        <ol>
          {records.map((each) => (
            <li key={each.at}>
              Back at {timeOf(each.at, clockZone.value)} after {duration(each.awaySeconds)}: {each.madeUpFor} changes made up for,{" "}
              {each.repeats} repeated; {CHECKS[each.check]}.
            </li>
          ))}
        </ol>
      </div>
    </details>
  );
}

function choose(value: string): void {
  theme.value = value;
  localStorage.setItem("theme", value);
  document.documentElement.dataset["theme"] = value;
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
