// Why a student is at risk, with the evidence, and what clears each flag.
import type { Flag } from "../risk";
import { titleOf } from "../titles";
import { ITEM_STATES, NUMBERS, REASONS, dayOf, numberShown, percent } from "../words";
import { SeverityBadge } from "./Severity";

export function Flags({ flags, zone }: { flags: readonly Flag[]; zone: string }) {
  return (
    <ul class="flags">
      {flags.map((flag) => (
        <li key={flag.reason}>
          <p class="flag-head">
            <SeverityBadge severity={flag.severity} /> <strong>{REASONS[flag.reason]}</strong>{" "}
            <span class="quiet">since {dayOf(flag.raisedAt, zone)}</span>
          </p>
          <p>{flag.clearsWhen}</p>
          {flag.evidence ? <Evidence evidence={flag.evidence} zone={zone} /> : <p class="quiet">Reading the evidence…</p>}
        </li>
      ))}
    </ul>
  );
}

function Evidence({ evidence, zone }: { evidence: NonNullable<Flag["evidence"]>; zone: string }) {
  const { items, numbers, lastActiveOn, enrolledOn } = evidence;
  return (
    <details>
      <summary>Evidence</summary>
      <dl class="numbers">
        {numbers.map(({ name, value }) => (
          <div key={name}>
            <dt>{NUMBERS[name] ?? name}</dt>
            <dd>{numberShown(name, value)}</dd>
          </div>
        ))}
        {lastActiveOn && (
          <div>
            <dt>Last active</dt>
            <dd>{dayOf(`${lastActiveOn}T12:00:00Z`, "UTC")}</dd>
          </div>
        )}
        {enrolledOn && (
          <div>
            <dt>In the class since</dt>
            <dd>{dayOf(`${enrolledOn}T12:00:00Z`, "UTC")}</dd>
          </div>
        )}
      </dl>
      {items.length > 0 && (
        <ul class="items">
          {items.map((item) => (
            <li key={`${item.key} ${item.state}`}>
              <bdi>{titleOf(item.key)}</bdi>: {ITEM_STATES[item.state] ?? item.state}
              {item.score !== null && `, ${percent(item.score)}`}
              {item.dueAt && `, due ${dayOf(item.dueAt, zone)}`}
            </li>
          ))}
        </ul>
      )}
    </details>
  );
}
