// Who asks: short-lived tokens from the school's sign-in, fetched again before they end.
// Replace `signIn` by what your application does; the demo's answers POST /sign-in, to this machine only.

export const SERVICE = process.env["SIGHTLINE_URL"] ?? "http://127.0.0.1:8080/graphql";
const SIGN_IN = new URL("/sign-in", SERVICE);
const RENEW_AT_SHARE = 0.75; // of a token's life
const RENEW_AGAIN_MS = 5_000;

/** Nobody to sign in as: trying again is useless. */
export class SignInRefused extends Error {}

interface Held {
  token: string;
  endsAt: number; // epoch ms by our own clock
}

let held: Held | null = null;
let fetching: Promise<Held> | null = null;
const listeners = new Set<(token: string) => void>();

/** A token that is good now; a fresh one if the held one has ended, or `isSpent` because it was refused. */
export async function goodToken(isSpent = false): Promise<string> {
  if (held && !isSpent && held.endsAt > Date.now()) return held.token;
  return (await renew()).token;
}

/** Calls `tell` with each fresh token. */
export function onRenewal(tell: (token: string) => void): void {
  listeners.add(tell);
}

function renew(): Promise<Held> {
  // Whoever asks meanwhile waits for the same one.
  fetching ??= signIn()
    .then((token) => {
      const life = lifeMs(token);
      held = { token, endsAt: Date.now() + life };
      listeners.forEach((tell) => tell(token));
      setTimeout(renewAhead, life * RENEW_AT_SHARE).unref();
      return held;
    })
    .finally(() => {
      fetching = null;
    });
  return fetching;
}

function renewAhead(): void {
  renew().catch((problem: unknown) => {
    if (!(problem instanceof SignInRefused)) setTimeout(renewAhead, RENEW_AGAIN_MS).unref();
  });
}

async function signIn(): Promise<string> {
  const response = await fetch(SIGN_IN, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ role: "teacher" }),
  });
  if (response.status >= 400 && response.status < 500) throw new SignInRefused(`${SIGN_IN} answered ${response.status}`);
  if (!response.ok) throw new Error(`${SIGN_IN} answered ${response.status}`);
  return ((await response.json()) as { accessToken: string }).accessToken;
}

/** Counted from when it was made: the clock of this machine may be wrong, so it is not compared with the token's. */
function lifeMs(token: string): number {
  const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as { exp: number; iat: number };
  return (claims.exp - claims.iat) * 1000;
}
