// A real api process (`python -m server api`) on the database that the environment names, and tokens that it takes.
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const { SIGHTLINE_PYTHON, SIGHTLINE_ROOT, SIGHTLINE_TENANT, JWT_SECRET } = process.env;
if (!SIGHTLINE_PYTHON) throw new Error("run me with `make conformance`: I need a database");

const START_SECONDS_MAX = 60;
export const CLASSROOM = "7b"; // with the teacher t1 and the student s1

/** A bearer token; `seconds` is its life from now on, negative for one that has expired. */
export function token({ sub = "t1", roles = ["teacher"], scopes = [], seconds = 3600, secret = JWT_SECRET } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const claims = JSON.stringify({ sub, roles, scopes, iat: now - 7200, exp: now + seconds });
  const withTenant = `{"tenant":${SIGHTLINE_TENANT},${claims.slice(1)}`; // a test's tenant has 19 digits, a Number 16
  const parts = ['{"alg":"HS256","typ":"JWT"}', withTenant].map((part) => Buffer.from(part).toString("base64url"));
  return [...parts, createHmac("sha256", secret).update(parts.join(".")).digest("base64url")].join(".");
}

/** The api on a port of its own. `stop` and `start` again: the port stays. */
export class Api {
  static async open() {
    const api = new Api(await freePort());
    await api.start();
    return api;
  }

  constructor(port) {
    this.port = port;
    this.url = `http://127.0.0.1:${port}/graphql`;
    this.socketUrl = `ws://127.0.0.1:${port}/graphql`;
  }

  async start() {
    const env = { ...process.env, PORT: String(this.port), HOST: "127.0.0.1" };
    const words = ["-m", "server", "api", "--end-with", String(process.pid)];
    const api = spawn(SIGHTLINE_PYTHON, words, { cwd: SIGHTLINE_ROOT, env });
    let told = "";
    for (const stream of [api.stdout, api.stderr]) stream.on("data", (text) => (told = (told + text).slice(-4000)));
    this.process = api;
    for (const until = Date.now() + START_SECONDS_MAX * 1000; Date.now() < until; await sleep(50)) {
      if (api.exitCode !== null) break;
      const ready = await fetch(this.url.replace("graphql", "ready")).catch(() => null);
      if (ready?.ok) return;
    }
    throw new Error(`the api did not become ready: ${told}`);
  }

  /** As an operator stops it: SIGTERM. Returns its exit status. */
  async stop() {
    const gone = once(this.process, "exit");
    this.process.kill("SIGTERM");
    const [status] = await gone;
    return status;
  }

  /** Record one grade of s1 over HTTP and return the event's id. */
  async record(eventId) {
    const input = {
      type: "SUBMISSION_GRADED", source: "lms", eventId, studentId: "s1", classroomId: CLASSROOM,
      occurredAt: new Date().toISOString(), assignmentId: "hw1", conceptIds: ["fractions"], score: 0.8,
    }; // prettier-ignore
    const query = "mutation ($input: RecordEventInput!) { recordEvent(input: $input) { status errors { message } } }";
    const machine = token({ sub: "lms", roles: ["integrator"], scopes: ["ingest"] });
    const response = await fetch(this.url, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${machine}` },
      body: JSON.stringify({ query, variables: { input } }),
    });
    const body = await response.json();
    if (body.data?.recordEvent.status !== "ACCEPTED") throw new Error(JSON.stringify(body));
    return eventId;
  }
}

async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}
