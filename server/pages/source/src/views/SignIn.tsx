// Where no service hands out tokens, the viewer brings one; it is kept in this page's memory only.
import { signal } from "@preact/signals";
import { signInProblem, signInWith } from "../session";

const token = signal("");

export function SignIn() {
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    try {
      signInWith(token.value);
      token.value = "";
    } catch (problem) {
      signInProblem.value = problem instanceof Error ? problem.message : String(problem);
    }
  };
  return (
    <main id="main" tabIndex={-1} class="state">
      <h1>Sightline</h1>
      <p>See, live, who is mastering what and who is slipping.</p>
      <form onSubmit={submit}>
        <label>
          Access token
          <textarea
            rows={4}
            autocomplete="off"
            spellcheck={false}
            value={token.value}
            aria-invalid={signInProblem.value !== ""}
            aria-describedby="sign-in-problem"
            onInput={(event) => (token.value = event.currentTarget.value)}
          />
        </label>
        <p id="sign-in-problem" class="problem" role="alert">
          {signInProblem.value}
        </p>
        <button type="submit">Open</button>
      </form>
      <p class="quiet">Paste a bearer token. It stays in this page and is gone when you close it.</p>
    </main>
  );
}
