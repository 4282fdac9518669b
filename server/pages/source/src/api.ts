// Asking: one trusted document over HTTP, with the refusals of an answer as values.
import { signal } from "@preact/signals";
import type { Trusted } from "./generated/documents";
import { freshToken } from "./session";

/** Why there is no answer, or not all of it. `code` is one of the service's error codes, or AWAY when nobody answers. */
export class Refusal extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly errorId = "",
  ) {
    super(message);
  }
}

export interface Answer<Result> {
  data: Result;
  refusals: { path: string; code: string }[];
}

interface Said<Result> {
  status: number;
  retryAfterSeconds: number;
  answer: () => Answer<Result>; // throws Refusal
}

interface GraphQLError {
  message: string;
  path?: (string | number)[];
  extensions?: { code?: string; errorId?: string };
}

const TRIES_MAX = 4;
const WAIT_SECONDS_MAX = 20;

/** How many seconds the service asked the page to wait; 0 while it may ask. */
export const pausedSeconds = signal(0);

/** Ask one query; one that comes too soon is asked again when the service says. Throws Refusal where there is no data. */
export async function ask<Result, Variables>(
  document: Trusted<Result, Variables>,
  variables: Variables,
): Promise<Answer<Result>> {
  let isRefused = false;
  for (let tries = 1; ; tries++) {
    const said: Said<Result> = await send<Result>(document.id, variables, await tokenOrRefusal(isRefused));
    const again = tries < TRIES_MAX && (said.status === 401 || said.status === 429);
    if (!again) return said.answer();
    isRefused = said.status === 401;
    if (said.status === 429) {
      pausedSeconds.value = Math.min(said.retryAfterSeconds, WAIT_SECONDS_MAX);
      await new Promise((done) => setTimeout(done, pausedSeconds.value * 1000));
      pausedSeconds.value = 0;
    }
  }
}

async function tokenOrRefusal(isRefused: boolean): Promise<string> {
  try {
    return await freshToken(isRefused);
  } catch {
    throw new Refusal("UNAUTHENTICATED", "You are not signed in.");
  }
}

async function send<Result>(documentId: string, variables: unknown, token: string): Promise<Said<Result>> {
  let response: Response;
  try {
    response = await fetch("graphql", {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "application/graphql-response+json, application/json",
        authorization: `Bearer ${token}`,
      },
      body: JSON.stringify({ documentId, variables }),
    });
  } catch {
    throw new Refusal("AWAY", "The service cannot be reached.");
  }
  const body = (await response.json().catch(() => ({}))) as { data?: Result | null; errors?: GraphQLError[] };
  const answer = (): Answer<Result> => {
    const errors = body.errors ?? [];
    const [first] = errors;
    if (body.data === undefined || body.data === null) {
      throw new Refusal(
        first?.extensions?.code ?? (response.status >= 500 ? "UNAVAILABLE" : "INTERNAL"),
        first?.message ?? `The service answered ${response.status}.`,
        first?.extensions?.errorId ?? "",
      );
    }
    const refusals = errors.map((each) => ({
      path: (each.path ?? []).join("."),
      code: each.extensions?.code ?? "INTERNAL",
    }));
    return { data: body.data, refusals };
  };
  const retryAfterSeconds = Number(response.headers.get("retry-after") ?? 1) || 1;
  return { status: response.status, retryAfterSeconds, answer };
}
