// Where a teacher begins: their classes, how each is doing, and how many need them.
import { type Numbers, overview } from "../overview";
import { percent } from "../words";
import { placeOf, viewer } from "../viewer";
import { SeverityBadge } from "./Severity";

interface Props {
  classes: { key: string; name: string }[] | null;
  problem: string;
}

export function Home({ classes, problem }: Props) {
  return (
    <main id="main" tabIndex={-1} class="home">
      <h1>Your classes</h1>
      {viewer.value && (
        <p class="quiet">
          {viewer.value.tenant && (
            <>
              <bdi>{viewer.value.tenant.name}</bdi>, signed in as{" "}
            </>
          )}
          <bdi>{viewer.value.key}</bdi> ({viewer.value.roles.map((role) => role.toLowerCase()).join(", ")})
        </p>
      )}
      {problem && (
        <p class="problem" role="alert">
          {problem} This page tries again by itself.
        </p>
      )}
      {classes === null && !problem && <p role="status">Loading your classes…</p>}
      {classes?.length === 0 && <p>You teach no class today. Open one by its key, if you may see it:</p>}
      <ul class="classes">
        {classes?.map((each) => (
          <li key={each.key} class="card">
            <h2>
              <a href={placeOf(each.key)}>
                <bdi>{each.name}</bdi>
              </a>
            </h2>
            <Glance numbers={overview.value.get(each.key)} />
          </li>
        ))}
      </ul>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const key = new FormData(event.currentTarget).get("key");
          if (typeof key === "string" && key) location.hash = `#/class/${encodeURIComponent(key)}`;
        }}
      >
        <label>
          Another class, by its key <input name="key" required maxLength={128} />
        </label>{" "}
        <button type="submit">Open</button>
      </form>
    </main>
  );
}

function Glance({ numbers }: { numbers: Numbers | undefined }) {
  if (!numbers) return null;
  const { atRisk } = numbers;
  const some = (severity: "HIGH" | "MEDIUM" | "LOW"): number => atRisk?.nodes.filter((each) => each.severity === severity).length ?? 0;
  return (
    <>
      <p class="quiet">{numbers.activeStudents === 1 ? "1 student" : `${numbers.activeStudents} students`}</p>
      <dl class="numbers">
        <Figure name="Completed" value={numbers.completionRate} />
        <Figure name="Average" value={numbers.averageScore} />
        <Figure name="Handed in" value={numbers.submissionRate} />
      </dl>
      {atRisk && (
        <p class="glance">
          {atRisk.nodes.length === 0 && <span class="quiet">Nobody at risk</span>}
          {(["HIGH", "MEDIUM", "LOW"] as const)
            .filter((severity) => some(severity) > 0)
            .map((severity) => (
              <span key={severity}>
                <SeverityBadge severity={severity} /> {some(severity)}
                {atRisk.pageInfo.hasNextPage && severity === atRisk.nodes.at(-1)?.severity && " or more"}
              </span>
            ))}
        </p>
      )}
    </>
  );
}

function Figure({ name, value }: { name: string; value: number | null }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value === null ? "no data" : percent(value)}</dd>
    </div>
  );
}
