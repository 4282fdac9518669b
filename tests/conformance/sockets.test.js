// graphql-transport-ws: the npm client `graphql-ws`, as applications use it, against a real api that is restarted.
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { Api, CLASSROOM, token } from "./api.js";

const EVENTS = `subscription ($classroom: ID!, $after: String) { eventRecorded(classroomId: $classroom, after: $after) {
  kind resumeToken activity { event { eventId } } } }`;
const WAIT_SECONDS_MAX = 30;

suite("graphql-transport-ws with the graphql-ws client", { timeout: 90_000 }, () => {
  let api;
  before(async () => (api = await Api.open()));
  after(() => api?.stop());

  test("a query, and a stream that is resumed where it was left", async () => {
    const client = connect(() => token(), { lazyCloseTimeout: 5_000 });
    const first = events(client);
    assert.deepEqual((await first.next()).kind, "READY");
    await api.record("resume-1");
    const seen = await first.next();
    assert.equal(seen.activity.event.eventId, "resume-1");
    first.end();

    await api.record("resume-2"); // while nobody listens
    const resumed = events(client, seen.resumeToken);
    assert.deepEqual((await resumed.next()).activity.event.eventId, "resume-2"); // no READY, nothing twice
    await api.record("resume-3");
    assert.deepEqual((await resumed.next()).activity.event.eventId, "resume-3");
    assert.deepEqual((await once(client, "{ viewer { __typename } }")).data, { viewer: { __typename: "Viewer" } });
    assert.deepEqual(client.heard.connections, 1);
    await client.dispose();
  });

  const wrong = {
    "a syntax error": ["{ viewer {", "GRAPHQL_PARSE_FAILED"],
    "an unknown field": ["{ nope }", "GRAPHQL_VALIDATION_FAILED"],
    "a mutation": ['mutation { cancelJob(input: { jobId: "x" }) { __typename } }', "BAD_INPUT"],
  };
  test("an operation that is wrong ends alone; the socket and its other stream live on", async () => {
    const client = connect(() => token());
    const stream = events(client);
    await stream.next();
    for (const [what, [query, code]] of Object.entries(wrong)) {
      const errors = await once(client, query).then(assert.fail, (error) => error);
      assert.equal(errors[0].extensions.code, code, what);
    }
    await api.record("alive-1");
    assert.equal((await stream.next()).activity.event.eventId, "alive-1");
    assert.deepEqual(client.heard, { connections: 1, closed: [] });
    await client.dispose();
  });

  test("a bad token is fatal: 4401, and the client does not come back", async () => {
    const client = connect(() => token({ secret: "some other secret of more than thirty-two bytes" }));
    const closed = await once(client, "{ viewer { __typename } }").then(assert.fail, (error) => error);
    assert.equal(closed.code, 4401);
    assert.deepEqual(client.heard, { connections: 0, closed: [4401] });
    await client.dispose();
  });

  test("an expired token is renewed: 4403, and the client comes back with a fresh one", async () => {
    const tokens = [token({ seconds: -600 }), token()];
    const client = connect(() => tokens.shift());
    assert.deepEqual((await once(client, "{ viewer { __typename } }")).data, { viewer: { __typename: "Viewer" } });
    assert.deepEqual(client.heard, { connections: 1, closed: [4403] });
    assert.deepEqual(tokens, []);
    await client.dispose();
  });

  test("a token that expires on an open socket: 4403, and the stream goes on with a fresh one", async () => {
    const lives = [2, 3600];
    const client = connect(() => token({ seconds: lives.shift() }));
    const stream = events(client);
    const { kind, resumeToken } = await stream.next();
    assert.equal(kind, "READY");
    stream.after(resumeToken);
    await client.hears("connected", 2);
    await api.record("renewed-1");
    assert.equal((await stream.next()).activity.event.eventId, "renewed-1");
    assert.deepEqual(client.heard, { connections: 2, closed: [4403] });
    await client.dispose();
  });

  test("a token renewed on the open socket: one connection, and its stream runs on", async () => {
    let socket;
    const pongs = [];
    const client = connect(() => token({ seconds: 2 }), {
      on: {
        opened: (opened) => (socket = opened),
        connected: () => {
          client.heard.connections += 1;
          const payload = { authorization: `Bearer ${token({ seconds: 3600 })}` };
          socket.send(JSON.stringify({ type: "ping", payload }));
        },
        pong: (received, payload) => received && pongs.push(payload),
        closed: ({ code }) => code !== 1000 && client.heard.closed.push(code),
      },
    });
    const expiring = connect(() => token({ seconds: 2 }), { retryAttempts: 0 });
    const stream = events(client);
    await stream.next();
    await once(expiring, EVENTS.replace("($classroom: ID!, $after: String)", "").replace("$classroom, after: $after", `"${CLASSROOM}"`))
      .then(assert.fail, (error) => assert.equal(error.code, 4403)); // by now the first token of both has expired
    await api.record("kept-1");
    assert.equal((await stream.next()).activity.event.eventId, "kept-1");
    assert.deepEqual(pongs.map(({ authorized }) => authorized), [true]);
    assert.deepEqual(client.heard, { connections: 1, closed: [] });
    await client.dispose();
    await expiring.dispose();
  });

  test("pings are answered, both ways round the same socket", async () => {
    const client = connect(() => token(), { keepAlive: 50, lazy: false });
    await client.hears("pong", 3);
    assert.deepEqual(client.heard, { connections: 1, closed: [] });
    await client.dispose();
  });

  test("a restart of the service: 1012, and the stream goes on where it stood", async () => {
    // By default the client takes a refused connection, which a restart on one port means, for the end.
    const client = connect(() => token(), { shouldRetry: () => true });
    const stream = events(client);
    const { resumeToken } = await stream.next();
    stream.after(resumeToken);
    assert.equal(await api.stop(), 0);
    assert.equal(client.heard.closed[0], 1012);
    await api.start();
    await client.hears("connected", 2);
    await api.record("restarted-1");
    assert.equal((await stream.next()).activity.event.eventId, "restarted-1");
    await client.dispose();
  });

  /** A client that keeps count of its connections and of the codes they were closed with. */
  function connect(freshToken, more = {}) {
    const heard = { connections: 0, closed: [] };
    const waiting = [];
    const counts = { connected: 0, pong: 0 };
    const told = (name) => {
      counts[name] += 1;
      for (const { until, resolve } of waiting) if (counts[until.name] >= until.count) resolve();
    };
    const client = createClient({
      url: api.socketUrl,
      webSocketImpl: WebSocket,
      connectionParams: () => ({ authorization: `Bearer ${freshToken()}` }),
      retryAttempts: 200,
      retryWait: () => new Promise((resolve) => setTimeout(resolve, 100)),
      onNonLazyError: () => {},
      on: {
        connected: () => ((heard.connections += 1), told("connected")),
        pong: (received) => received && told("pong"),
        closed: ({ code }) => code !== 1000 && code !== 1006 && heard.closed.push(code),
      },
      ...more,
    });
    const hears = (name, count) =>
      bounded(name, new Promise((resolve) => {
        waiting.push({ until: { name, count }, resolve });
        if (counts[name] >= count) resolve();
      }));
    return Object.assign(client, { heard, hears });
  }
});

/** The messages of `eventRecorded`, one by one. */
function events(client, after = null) {
  const variables = { classroom: CLASSROOM, after };
  const arrived = []; // functions that settle whoever waits, so that what nobody reads rejects nothing
  const wanted = [];
  let isRead = true;
  const match = () => isRead && arrived.length && wanted.length && (arrived.shift()(wanted.shift()), match());
  const offer = (settle) => (arrived.push(settle), match());
  const fail = (why) => offer(({ reject }) => reject(why instanceof Error ? why : new Error(told(why))));
  const end = client.subscribe({ query: EVENTS, variables }, {
    next: (answer) => (answer.data ? offer(({ resolve }) => resolve(answer.data.eventRecorded)) : fail(answer.errors)),
    error: fail,
    complete: () => fail("the stream is over"),
  });
  return {
    next: () => bounded("a message", new Promise((resolve, reject) => (wanted.push({ resolve, reject }), match()))),
    // The client subscribes again with the same object, so that what is written here counts after a reconnection.
    after: (resumeToken) => (variables.after = resumeToken),
    end: () => ((isRead = false), end()),
  };
}

const told = (why) => (why?.code ? `closed with ${why.code} ${why.reason}` : JSON.stringify(why));

/** The one answer of a query; rejects with the client's error: the list of errors, or the event that closed the socket. */
function once(client, query) {
  let answer;
  return bounded(query, new Promise((resolve, reject) => {
    const complete = () => resolve(JSON.parse(JSON.stringify(answer)));
    client.subscribe({ query }, { next: (value) => (answer = value), error: reject, complete });
  }));
}

/** A bound on each wait, so that silence is told as what was missing. */
function bounded(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came: ${what}`)), WAIT_SECONDS_MAX * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
