// Listening: one socket for all subscriptions of the page, each resumed where it stopped, with a record that proves it.
import { signal } from "@preact/signals";
import { CloseCode, createClient } from "graphql-ws";
import type { Trusted } from "./generated/documents";
import { freshToken, onRenewal, signOut } from "./session";

/** idle: nothing is followed, so there is no line to lose. */
export type Connection = "idle" | "connecting" | "live" | "away" | "denied";

export interface Message {
  kind: "READY" | "SNAPSHOT" | "CHANGE" | "RESYNC";
  resumeToken: string;
  asOf: { seq: string; time: string };
  lagMs: number;
}

/** What one interruption came to: how long, what was made up for, and whether the check afterwards agreed. */
export interface Resumption {
  at: number; // epoch ms, when the stream was back
  awaySeconds: number;
  madeUpFor: number; // messages that were delivered from before the return
  repeats: number;
  check: "running" | "equal" | "different" | "resynced";
}

const WAIT_MS_MIN = 250;
const WAIT_MS_MAX = 5_000;
const KEEP_ALIVE_MS = 10_000;
const PONG_MS_MAX = 5_000;
const CATCHING_UP_MS = 1_500; // messages this soon after a return are counted as made up for
const EXPIRED = 4403;

export const connection = signal<Connection>("idle");
export const asOf = signal<{ seq: string; time: string } | null>(null);
export const lagMs = signal(0);
export const clockZone = signal("UTC"); // of what is shown, so that all times of the page agree
export const heardAt = signal(0); // epoch ms of the last sign of life
export const resumptions = signal<Resumption[]>([]);

let lostAt: number | null = null;
let socket: WebSocket | null = null;
let backAt = 0;
let followed = 0; // streams that somebody wants
const silent = new Set<symbol>(); // those of them that have never said anything: what happens is not heard yet
const returned = new Set<() => void>();

/** Calls `tell` after each return of a lost connection. */
export function onReturn(tell: () => void): () => void {
  returned.add(tell);
  return () => returned.delete(tell);
}

const client = createClient({
  url: () => new URL("graphql", document.baseURI).href.replace(/^http/, "ws"),
  connectionParams: async () => ({ authorization: `Bearer ${await freshToken()}` }),
  lazy: true,
  lazyCloseTimeout: 1_000,
  retryAttempts: 0, // each subscription is begun again with its own newest token, which a retry would not know
  keepAlive: KEEP_ALIVE_MS,
  // The client insists on a text; the document is named by its id, so the empty text is left out of what is sent.
  jsonMessageReplacer: (key, value: unknown) => (key === "query" && value === "" ? undefined : value),
  on: {
    // Not when it is opened: a token that is sent before the connection is initialised ends it (4401).
    connected: (opened) => {
      socket = opened as WebSocket;
      connection.value = "connecting"; // live is what hears everything
      settle();
      heardAt.value = Date.now();
      if (lostAt !== null) {
        backAt = Date.now();
        const record: Resumption = {
          at: backAt,
          awaySeconds: (backAt - lostAt) / 1000,
          madeUpFor: 0,
          repeats: 0,
          check: "running",
        };
        resumptions.value = [record, ...resumptions.value].slice(0, 20);
        lostAt = null;
        returned.forEach((tell) => tell());
      }
    },
    ping: (received) => {
      // A peer that has silently gone answers no ping: then the socket is cut here and begun again.
      if (!received) pongTimer = setTimeout(() => client.terminate(), PONG_MS_MAX);
    },
    pong: (received) => {
      if (received) {
        clearTimeout(pongTimer);
        heardAt.value = Date.now();
      }
    },
    closed: (event) => {
      clearTimeout(pongTimer);
      socket = null;
      const { code } = event as CloseEvent;
      if (followed > 0) lostAt ??= Date.now();
      if (code === CloseCode.Unauthorized) {
        connection.value = "denied";
        signOut("The service no longer accepts your access. Sign in again.");
      } else if (followed === 0) {
        connection.value = "idle"; // nobody listened any more, so the line was put down: no interruption
        lostAt = null;
      } else {
        connection.value = "away";
        if (code === EXPIRED) freshToken(true).catch(() => undefined);
      }
    },
  },
});
let pongTimer: ReturnType<typeof setTimeout> | undefined;

// The stream goes on under the fresh token: the socket's own life is extended by it.
onRenewal((fresh) => {
  if (socket?.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ type: "ping", payload: { authorization: `Bearer ${fresh.token}` } }));
  }
});

// A laptop that wakes up, or a network that comes back, need not wait for the next try.
let hurry: (() => void)[] = [];
function hurryUp(): void {
  hurry.splice(0).forEach((go) => go());
}
addEventListener("online", hurryUp);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && hurryUp());

/** Live once every stream has spoken, READY at least, or is resumed: what happens from then on is heard. */
function settle(): void {
  if (connection.value === "connecting" && socket !== null && silent.size === 0) connection.value = "live";
}

/** Cut the socket as a network failure would; the subscriptions come back by themselves. */
export function cut(): void {
  client.terminate();
}

/**
 * Follow one subscription until the returned function is called. `take` gets every message once: after an interruption
 * the stream goes on behind the last message taken. `lost` is called when the server asks for a fresh snapshot (RESYNC)
 * and when it refuses for good.
 */
export function follow<Result extends object, Variables extends object, Told extends Message>(
  document: Trusted<Result, Variables>,
  variables: Variables,
  pick: (result: Result) => Told,
  take: (message: Told) => void,
  lost: (why: "resync" | "refused") => void = () => undefined,
): () => void {
  const self = Symbol(document.name);
  let isOver = false;
  let after: string | null = null;
  let dispose: () => void = () => undefined;
  const recent: string[] = [];

  const speak = (): void => {
    if (silent.delete(self)) settle();
  };
  const receive = (message: Told): void => {
    heardAt.value = Date.now();
    speak();
    asOf.value = message.asOf;
    lagMs.value = message.lagMs;
    if (message.kind === "CHANGE") {
      count(recent.includes(message.resumeToken));
      recent.push(message.resumeToken);
      if (recent.length > 500) recent.shift();
    }
    after = message.resumeToken;
    if (message.kind === "RESYNC") {
      mark("resynced");
      lost("resync");
    } else {
      take(message);
    }
  };

  const once = (): Promise<boolean> =>
    new Promise((done) => {
      if (after === null) silent.add(self); // one that resumes misses nothing, and need not speak first
      dispose = client.subscribe<Result>(
        { query: "", documentId: document.id, variables: { ...variables, after } } as never,
        {
          next: ({ data, errors }) => {
            if (data) receive(pick(data));
            else if (errors) {
              lost("refused");
              done(false);
            }
          },
          error: (problem) => {
            // An array holds GraphQL errors: the operation itself was refused. Anything else is the connection.
            if (Array.isArray(problem)) lost("refused");
            done(!Array.isArray(problem));
          },
          complete: () => done(true),
        },
      );
    });

  const goOn = async (): Promise<void> => {
    let wait = WAIT_MS_MIN;
    while (!isOver) {
      const began = Date.now();
      const goesOn = await once();
      if (isOver || !goesOn || connection.value === "denied") return;
      if (Date.now() - began > 10_000) wait = WAIT_MS_MIN;
      await patience(wait * (0.75 + Math.random() / 2));
      wait = Math.min(WAIT_MS_MAX, wait * 2);
    }
  };
  if (followed++ === 0 && connection.value === "idle") connection.value = "connecting";
  let isCounted = true;
  const leave = (): void => {
    if (isCounted) followed--;
    isCounted = false;
    speak(); // or never will
  };
  void goOn().finally(leave);
  return () => {
    isOver = true;
    leave();
    dispose();
  };
}

/** The check after the newest return ended so. */
export function mark(check: Resumption["check"]): void {
  const [newest, ...older] = resumptions.value;
  if (newest?.check === "running") resumptions.value = [{ ...newest, check }, ...older];
}

function count(isRepeat: boolean): void {
  const [newest, ...older] = resumptions.value;
  if (!newest || (!isRepeat && Date.now() - backAt > CATCHING_UP_MS)) return;
  const repeats = newest.repeats + (isRepeat ? 1 : 0);
  resumptions.value = [{ ...newest, repeats, madeUpFor: newest.madeUpFor + (isRepeat ? 0 : 1) }, ...older];
}

function patience(ms: number): Promise<void> {
  return new Promise((done) => {
    const go = (): void => {
      clearTimeout(timer);
      hurry = hurry.filter((each) => each !== go);
      done();
    };
    const timer = setTimeout(go, ms);
    hurry.push(go);
  });
}
