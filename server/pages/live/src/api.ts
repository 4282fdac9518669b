// Asking: one trusted document over HTTP, with the refusals of an answer as values.
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

interface GraphQLError {
  message: string;
  path?: (string | number)[];
  extensions?: { code?: string; errorId?: string };
}

/** Ask one query. Throws Refusal where there is no data at all. */
export async function ask<Result, Variables>(
  document: Trusted<Result, Variables>,
  variables: Variables,
): Promise<Answer<Result>> {
  const first = await send<Result>(document.id, variables, await tokenOrRefusal(false));
  if (first.status !== 401) return first.answer();
  return (await send<Result>(document.id, variables, await tokenOrRefusal(true))).answer();
}

async function tokenOrRefusal(isRefused: boolean): Promise<string> {
  try {
    return await freshToken(isRefused);
  } catch {
    throw new Refusal("UNAUTHENTICATED", "You are not signed in.");
  }
}

async function send<Result>(documentId: string, variables: unknown, token: string) {
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
  return { status: response.status, answer };
}
