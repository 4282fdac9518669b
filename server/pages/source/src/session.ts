// Who is looking: a bearer token kept in memory only, and a way to a fresh one before it ends.
import { signal } from "@preact/signals";

/** What the page was told by the server: where fresh tokens come from ("" = the viewer pastes one). */
const SIGN_IN_URL = document.documentElement.dataset["signIn"] ?? "";
const RENEW_AHEAD_SECONDS = 60;
const RENEW_AHEAD_SHARE = 0.25; // of a short life
const RENEW_AGAIN_SECONDS = 5;

export interface Credentials {
  token: string;
  expiresAt: number; // epoch ms
}

export type Role = "teacher" | "admin" | "student" | "guardian";

/** null: nobody is signed in. */
export const credentials = signal<Credentials | null>(null);
export const signInProblem = signal("");
/** The role asked for where the server hands out tokens by role (the demo). */
export const role = signal<Role>((new URLSearchParams(location.search).get("as") as Role | null) ?? "teacher");
export const canSignInByItself = SIGN_IN_URL !== "";

let renewing: Promise<Credentials> | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;
const renewed = new Set<(fresh: Credentials) => void>();

/** Calls `tell` with each fresh token; returns what ends that. */
export function onRenewal(tell: (fresh: Credentials) => void): () => void {
  renewed.add(tell);
  return () => renewed.delete(tell);
}

/** A token that is still good; a fresh one when it has ended or `isRefused`. Throws when there is none to be had. */
export async function freshToken(isRefused = false): Promise<string> {
  const held = credentials.value;
  if (held && !isRefused && held.expiresAt > Date.now()) return held.token;
  return (await renew()).token;
}

/** Fetch a fresh token; calls that come meanwhile wait for the same one. */
export function renew(): Promise<Credentials> {
  renewing ??= fetchToken().finally(() => {
    renewing = null;
  });
  return renewing;
}

/** Take a token that the viewer pasted. Throws Error with what is wrong with it. */
export function signInWith(token: string): void {
  accept(token.trim().replace(/^bearer\s+/i, ""));
}

export function signOut(why = ""): void {
  clearTimeout(timer);
  signInProblem.value = why;
  credentials.value = null;
}

async function fetchToken(): Promise<Credentials> {
  if (!canSignInByItself) {
    signOut("Your access has ended. Sign in again to go on where you were.");
    throw new Error("no token to be had");
  }
  const answer = await fetch(SIGN_IN_URL, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    body: JSON.stringify({ role: role.value }),
  });
  if (answer.status === 401 || answer.status === 403 || answer.status === 404) {
    signOut("The sign-in service does not know you.");
    throw new Error("refused");
  }
  if (!answer.ok) throw new Error(`sign-in answered ${answer.status}`);
  const said = (await answer.json()) as { accessToken: string };
  return accept(said.accessToken);
}

function accept(token: string): Credentials {
  const fresh = { token, expiresAt: Date.now() + lifeMsOf(token) };
  credentials.value = fresh;
  signInProblem.value = "";
  renewed.forEach((tell) => tell(fresh));
  plan(fresh.expiresAt);
  return fresh;
}

function plan(expiresAt: number): void {
  clearTimeout(timer);
  if (!canSignInByItself) return;
  const life = (expiresAt - Date.now()) / 1000;
  const ahead = Math.min(RENEW_AHEAD_SECONDS, life * RENEW_AHEAD_SHARE);
  timer = setTimeout(renewAhead, Math.max(0, Math.min(life - ahead, 86_400)) * 1000);
}

function renewAhead(): void {
  renew().catch(() => {
    if (credentials.value) timer = setTimeout(renewAhead, RENEW_AGAIN_SECONDS * 1000);
  });
}

/** How long a token holds from when it was made: this machine's own clock may be wrong, so it is not compared with. */
function lifeMsOf(token: string): number {
  const [, body] = token.split(".");
  try {
    const claims = JSON.parse(atob((body ?? "").replace(/-/g, "+").replace(/_/g, "/"))) as { exp: number; iat?: number };
    if (typeof claims.exp === "number") return Math.max(0, claims.exp * 1000 - (claims.iat ? claims.iat * 1000 : Date.now()));
  } catch {
    // told below
  }
  throw new Error("This is not a bearer token: it should look like three words joined by dots.");
}
