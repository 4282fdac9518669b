// Watch the risk flags of a class: npm run watch -- 7b
import { ask } from "./ask.js";
import { follow } from "./follow.js";
import { RaisedFlags, RiskChanges, type RaisedFlagsQuery } from "./generated.js";

const classroom = process.argv[2] ?? "7b";
const raised = new Map<string, string>(); // severity by student and reason

/** The state as it is now; changes that come after it are repeated harmlessly, since they name the new severity. */
async function readFlags(): Promise<void> {
  raised.clear();
  let after: string | null = null;
  do {
    const answer: RaisedFlagsQuery = await ask(RaisedFlags, { classroom, after });
    const found = answer.classroom?.riskFlags;
    if (!found) throw new Error(`there is no class ${classroom} that you may see`);
    for (const flag of found.nodes) raised.set(`${flag.studentId} ${flag.reason}`, flag.severity);
    after = found.pageInfo.hasNextPage ? found.pageInfo.endCursor : null;
  } while (after);
  console.log(`${raised.size} flags are raised in ${classroom}`);
}

for await (const message of follow(RiskChanges, { classroom }, (result) => result.riskFlagChanged)) {
  const { kind, transition } = message;
  // READY: you are listening, so what is read now misses nothing. RESYNC: you were away for longer than changes are kept.
  if (kind === "READY" || kind === "RESYNC") await readFlags();
  if (!transition) continue;
  const { studentId, reason, severity, change } = transition;
  if (severity) raised.set(`${studentId} ${reason}`, severity);
  else raised.delete(`${studentId} ${reason}`);
  const who = transition.student?.displayName ?? studentId;
  // `notify` is false for what is not worth a person's attention twice.
  console.log(`${transition.notify ? "!" : " "} ${who} (${studentId}): ${reason} ${change} ${severity ?? ""} ${transition.clearsWhen}`);
}
