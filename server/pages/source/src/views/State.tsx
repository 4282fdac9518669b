// What stands in a view's place while there is nothing to show: loading, unknown, not yours, nobody answers.
import { pausedSeconds } from "../api";
import type { Phase } from "../classroom";

interface Props {
  phase: Phase;
  what: "class" | "student";
  problem: string;
  retry: () => void;
}

export function State({ phase, what, problem, retry }: Props) {
  return (
    <main id="main" tabIndex={-1} class="state" aria-busy={phase === "loading"}>
      {phase === "loading" && <p role="status">Loading the {what}…</p>}
      {phase === "loading" && pausedSeconds.value > 0 && (
        <p>You have asked for much in a short time: the service answers again in {pausedSeconds.value} s.</p>
      )}
      {phase === "unknown" && (
        <>
          <h1>No such {what}</h1>
          <p>There is no {what} with this key that you may see.</p>
          <a href="#/">Your classes</a>
        </>
      )}
      {phase === "denied" && (
        <>
          <h1>Not for you to see</h1>
          <p>Only the teachers of this class and admins may open it. Your access may have changed a moment ago.</p>
          <a href="#/">Your classes</a>
        </>
      )}
      {phase === "away" && (
        <>
          <h1>The service is away</h1>
          <p role="alert">{problem || "It cannot be reached."} This page goes on by itself as soon as it is back.</p>
          <button type="button" onClick={retry}>
            Try now
          </button>
        </>
      )}
    </main>
  );
}

export function Problem({ text }: { text: string }) {
  return text ? (
    <p class="problem" role="alert">
      {text} What you see may be older than it says.
    </p>
  ) : null;
}
