// Where the page begins: who is looking, what they want to see, and the one error boundary.
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { computed, effect, signal, untracked } from "@preact/signals";
import { Component, type ComponentChildren, render } from "preact";
import { ask, Refusal } from "./api";
import { Classes } from "./generated/documents";
import { loadOverview } from "./overview";
import { canSignInByItself, credentials, renew, signInProblem } from "./session";
import { Bar, theme } from "./views/Bar";
import { ClassView } from "./views/ClassView";
import { loadViewer, placeOf } from "./viewer";
import { Home } from "./views/Home";
import { SignIn } from "./views/SignIn";
import { StudentView } from "./views/StudentView";

const CLASS_PAGES_MAX = 10;
const AGAIN_MS = 2_000;

const place = signal(location.hash);
addEventListener("hashchange", () => (place.value = location.hash));
const route = computed(() => {
  const [, kind, classroom, next, student] = place.value.split("/").map(decoded);
  if (kind !== "class" || !classroom) return { classroom: null, student: null };
  return { classroom, student: next === "student" && student ? student : null };
});
const classes = signal<{ key: string; name: string }[] | null>(null);
const problem = signal("");
const isSignedIn = computed(() => credentials.value !== null);

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// Who arrives at a list of one is led on; who comes back to it wants to see it.
let isArriving = route.value.classroom === null;

async function loadClasses(): Promise<void> {
  const found: { key: string; name: string }[] = [];
  let after: string | null = null;
  try {
    await loadViewer();
    for (let page = 0; page < CLASS_PAGES_MAX; page++) {
      const answer: Awaited<ReturnType<typeof askClasses>> = await askClasses(after);
      const list = answer.data.viewer?.classrooms;
      if (!list) break;
      found.push(...list.nodes);
      after = list.pageInfo.endCursor;
      if (!list.pageInfo.hasNextPage) break;
    }
    problem.value = "";
    classes.value = found;
    const [only] = found;
    if (isArriving && only && found.length === 1 && route.value.classroom === null) location.hash = placeOf(only.key);
    isArriving = false;
  } catch (refused) {
    problem.value = refused instanceof Refusal ? refused.message : String(refused);
    if (credentials.value) setTimeout(() => void loadClasses(), AGAIN_MS);
  }
}

function askClasses(after: string | null) {
  return ask(Classes, { after });
}

/** A mistake of the page itself is said, not shown as an empty screen. */
class Boundary extends Component<{ children: ComponentChildren }, { broken: string }> {
  override state = { broken: "" };
  static override getDerivedStateFromError(broken: Error): { broken: string } {
    return { broken: broken.message };
  }
  override render() {
    if (!this.state.broken) return this.props.children;
    return (
      <main id="main" class="state">
        <h1>Something in this page broke</h1>
        <p role="alert">{this.state.broken}</p>
        <button type="button" onClick={() => location.reload()}>
          Load the page again
        </button>
      </main>
    );
  }
}

function App() {
  const { classroom, student } = route.value;
  if (!isSignedIn.value) return canSignInByItself ? <Waiting /> : <SignIn />;
  return (
    <>
      <Bar classes={classes.value ?? []} current={classroom} />
      {classroom === null ? (
        <Home classes={classes.value} problem={problem.value} />
      ) : student === null ? (
        <ClassView key={classroom} classroom={classroom} />
      ) : (
        <StudentView key={`${classroom} ${student}`} classroom={classroom} student={student} />
      )}
    </>
  );
}

function Waiting() {
  return (
    <main id="main" class="state">
      <h1>Sightline</h1>
      <p role="status">Signing you in… The page goes on as soon as the service answers.</p>
      {signInProblem.value && <p role="alert">{signInProblem.value}</p>}
    </main>
  );
}

function signIn(): void {
  if (isSignedIn.value) return;
  renew().catch(() => setTimeout(signIn, AGAIN_MS));
}

document.documentElement.dataset["theme"] = theme.value;
effect(() => {
  if (isSignedIn.value) untracked(() => void loadClasses()); // not again with every renewed token
});
effect(() => {
  const { classroom, student } = route.value;
  const named = classes.value?.find((each) => each.key === classroom)?.name ?? classroom;
  document.title = [student, named, "Sightline"].filter(Boolean).join(" · ");
  if (classroom === null && isSignedIn.value) untracked(() => void loadOverview());
});
if (canSignInByItself) {
  signIn();
  // Whoever is signed out by the service is signed in by it again; a moment later, lest the two take turns.
  effect(() => {
    if (!isSignedIn.value && signInProblem.value) setTimeout(signIn, AGAIN_MS);
  });
}
const root = document.getElementById("page");
if (root) {
  root.replaceChildren(); // "Loading Sightline…"
  render(
    <Boundary>
      <App />
    </Boundary>,
    root,
  );
}
