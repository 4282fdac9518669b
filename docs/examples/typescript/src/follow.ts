// Listening: a subscription that outlives cut lines, restarts of the service and tokens, with no gap and no repeat.
import { setTimeout as sleep } from "node:timers/promises";
import { CloseCode, createClient } from "graphql-ws";
import { WebSocket } from "ws"; // for Node 20; a browser brings its own
import { IS_TRUSTED, isPassing, Refused, type Problem } from "./ask.js";
import type { Document } from "./generated.js";
import { goodToken, onRenewal, SERVICE, SignInRefused } from "./session.js";

const WAIT_MS_MIN = 250;
const WAIT_MS_MAX = 10_000;
const KEEP_ALIVE_MS = 10_000;
const PONG_MS_MAX = 5_000;
const EXPIRED = 4403; // come back with a fresh token
const UNAUTHORIZED = CloseCode.Unauthorized as number; // 4401: this token, or who it names, will never be accepted

let socket: WebSocket | null = null;
let silence: NodeJS.Timeout | undefined;

const client = createClient({
  url: SERVICE.replace(/^http/, "ws"),
  webSocketImpl: WebSocket,
  connectionParams: async () => ({ authorization: `Bearer ${await goodToken()}` }),
  retryAttempts: 0, // a retry would send the first resume token again; `follow` sends the newest
  keepAlive: KEEP_ALIVE_MS,
  // The client insists on a text; where a document goes by its id, the empty text is left out of what is sent.
  jsonMessageReplacer: (key, value: unknown) => (key === "query" && value === "" ? undefined : value),
  on: {
    // Not when it is opened: a token that is sent before the connection is initialised ends it (4401).
    connected: (opened) => (socket = opened as WebSocket),
    // A peer that has silently gone answers no ping: the line is cut here, and begun again.
    ping: (isReceived) => isReceived || (silence = setTimeout(() => client.terminate(), PONG_MS_MAX)),
    pong: (isReceived) => isReceived && clearTimeout(silence),
    closed: () => {
      clearTimeout(silence);
      socket = null;
    },
  },
});

// The open socket lives on under the fresh token; without this it would be closed with 4403 when the old one ends.
onRenewal((token) => {
  if (socket?.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ type: "ping", payload: { authorization: `Bearer ${token}` } }));
  }
});

/**
 * Every message of a subscription, for as long as you take them. Coming for the next message says that you have handled
 * the one before: after an interruption the stream goes on behind it. Pass `after` to go on where an earlier run stopped.
 * Throws Refused, SignInRefused, or what closed the socket for good.
 */
export async function* follow<Result, Variables extends object, Message extends { resumeToken: string }>(
  document: Document<Result, Variables>,
  variables: Variables,
  pick: (result: Result) => Message,
  after: string | null = null,
): AsyncGenerator<Message> {
  let wait = WAIT_MS_MIN;
  for (;;) {
    try {
      await goodToken(); // here, where its refusal can be told from a lost line
      const asked = IS_TRUSTED ? { query: "", documentId: document.id } : { query: document.text };
      for await (const answer of client.iterate<Result>({ ...asked, variables: { ...variables, after } })) {
        if (!answer.data) throw answer.errors;
        const message = pick(answer.data);
        yield message;
        after = message.resumeToken;
        wait = WAIT_MS_MIN;
      }
    } catch (problem) {
      await mendable(problem);
    }
    await sleep(wait * (0.75 + Math.random() / 2)); // not all clients at once
    wait = Math.min(WAIT_MS_MAX, wait * 2);
  }
}

/** Returns if trying again can help; throws otherwise. */
async function mendable(problem: unknown): Promise<void> {
  if (problem instanceof SignInRefused) throw problem;
  if (Array.isArray(problem)) {
    const problems = problem as Problem[]; // the operation was refused, not the line lost
    if (!isPassing(problems)) throw new Refused(problems);
    return;
  }
  const code = (problem as { code?: unknown } | undefined)?.code;
  if (code === UNAUTHORIZED) throw new Error("closed with 4401: this token is not accepted");
  if (code === EXPIRED) await goodToken(true).catch(rethrowRefusal);
}

function rethrowRefusal(problem: unknown): void {
  if (problem instanceof SignInRefused) throw problem;
}
