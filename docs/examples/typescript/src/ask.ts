// Asking: one typed query over HTTP, asked again where that can help.
import { setTimeout as sleep } from "node:timers/promises";
import type { Document } from "./generated.js";
import { goodToken, SERVICE } from "./session.js";

const TRIES_MAX = 5;
const WAIT_MS_FIRST = 250;
const AGAIN_HELPS = new Set(["RATE_LIMITED", "OVERLOADED", "UNAVAILABLE", "STALE"]);

/** With SIGHTLINE_TRUSTED=1 documents go by their ids: an operator who registered them need answer nothing else. */
export const IS_TRUSTED = process.env["SIGHTLINE_TRUSTED"] === "1";

export interface Problem {
  message: string;
  path?: readonly (string | number)[] | undefined;
  extensions?: { code?: string } | undefined;
}

/** The service answered, and what it said will not change by asking again. */
export class Refused extends Error {
  constructor(readonly problems: readonly Problem[]) {
    super(problems.map(({ message, extensions }) => `${extensions?.code ?? "?"}: ${message}`).join("; "));
  }
}

export const isPassing = (problems: readonly Problem[]): boolean =>
  problems.length > 0 && problems.every(({ extensions }) => AGAIN_HELPS.has(extensions?.code ?? ""));

/** What a query answers. A field that failed is null in it, so each error is thrown rather than shown as nothing. */
export async function ask<Result, Variables>(document: Document<Result, Variables>, variables: Variables): Promise<Result> {
  let token = await goodToken();
  for (let tried = 1; ; tried++) {
    const response = await fetch(SERVICE, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({ ...(IS_TRUSTED ? { documentId: document.id } : { query: document.text }), variables }),
    }).catch(() => null); // the connection failed
    const answer = response && ((await response.json()) as { data?: Result | null; errors?: Problem[] });
    if (answer?.data && !answer.errors) return answer.data;
    const isSpent = response?.status === 401;
    if (tried === TRIES_MAX || (answer && !isSpent && !isPassing(answer.errors ?? []))) {
      throw new Refused(answer?.errors ?? [{ message: "the service is away" }]);
    }
    if (isSpent) token = await goodToken(true);
    const told = Number(response?.headers.get("retry-after") ?? 0) * 1000;
    await sleep(Math.max(told, WAIT_MS_FIRST * 2 ** tried * (0.75 + Math.random() / 2)));
  }
}
