// How much it matters, told by word, shape and colour: no one of them alone.
import type { Severity } from "../risk";
import { SEVERITIES } from "../words";

export function SeverityBadge({ severity }: { severity: Severity }) {
  const { word, mark } = SEVERITIES[severity];
  return (
    <span class={`severity ${severity.toLowerCase()}`}>
      <span aria-hidden="true">{mark}</span> {word}
    </span>
  );
}
