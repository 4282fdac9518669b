// GraphQL over Server-Sent Events: the npm client `graphql-sse`, as applications use it, against a real api.
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { createClient } from "graphql-sse";
import { Api, CLASSROOM, token } from "./api.js";

const EVENTS = `subscription ($classroom: ID!, $after: String) { eventRecorded(classroomId: $classroom, after: $after) {
  kind resumeToken activity { event { eventId } } } }`;

suite("event streams with the graphql-sse client", { timeout: 90_000 }, () => {
  let api;
  before(async () => (api = await Api.open()));
  after(() => api?.stop());

  const connect = (credential = () => token(), more = {}) =>
    createClient({
      url: api.url,
      headers: () => ({ authorization: `Bearer ${credential()}` }),
      retryAttempts: 0,
      ...more,
    });
  const listen = (client, resumeToken = null) =>
    client.iterate({ query: EVENTS, variables: { classroom: CLASSROOM, after: resumeToken } });
  const next = async (stream) => (await stream.next()).value.data.eventRecorded;

  test("a query is one answer, and the stream is over", async () => {
    const client = connect();
    const answers = [];
    for await (const answer of client.iterate({ query: "{ viewer { __typename } }" })) answers.push(answer);
    assert.deepEqual(answers.map(({ data }) => data), [{ viewer: { __typename: "Viewer" } }]);
    client.dispose();
  });

  test("a stream that is resumed where it was left", async () => {
    const client = connect();
    const first = listen(client);
    assert.equal((await next(first)).kind, "READY");
    await api.record("events-1");
    const seen = await next(first);
    assert.equal(seen.activity.event.eventId, "events-1");
    await first.return();

    await api.record("events-2"); // while nobody listens
    const resumed = listen(client, seen.resumeToken);
    assert.equal((await next(resumed)).activity.event.eventId, "events-2");
    await api.record("events-3");
    assert.equal((await next(resumed)).activity.event.eventId, "events-3");
    await resumed.return();
    client.dispose();
  });

  const wrong = {
    "a syntax error": ["{ viewer {", "GRAPHQL_PARSE_FAILED"],
    "an unknown field": ["{ nope }", "GRAPHQL_VALIDATION_FAILED"],
    "a class of others": ['subscription { eventRecorded(classroomId: "no") { kind } }', "FORBIDDEN"],
  };
  test("what is wrong with an operation is an event, not a failure of the connection", async () => {
    const client = connect();
    for (const [what, [query, code]] of Object.entries(wrong)) {
      const answers = [];
      for await (const answer of client.iterate({ query })) answers.push(answer);
      assert.deepEqual(answers.map(({ errors }) => errors[0].extensions.code), [code], what);
    }
    client.dispose();
  });

  test("a bad token fails the connection with 401", async () => {
    const client = connect(() => token({ secret: "some other secret of more than thirty-two bytes" }));
    const refused = await listen(client).next().then(assert.fail, (error) => error);
    assert.equal(refused.response.status, 401);
    client.dispose();
  });

  test("a token that expires on an open stream ends it with its code; a fresh one goes on", async () => {
    const client = connect(() => token({ seconds: 2 }));
    const stream = listen(client);
    const { resumeToken } = await next(stream);
    const { value } = await stream.next();
    assert.equal(value.errors[0].extensions.code, "UNAUTHENTICATED");
    assert.equal((await stream.next()).done, true);
    await api.record("events-4");
    const resumed = listen(connect(), resumeToken);
    assert.equal((await next(resumed)).activity.event.eventId, "events-4");
    await resumed.return();
    client.dispose();
  });

  test("a restart of the service: the stream breaks, and the client comes back by itself", async () => {
    const connections = [];
    const client = connect(() => token(), {
      retryAttempts: 200,
      retry: () => new Promise((resolve) => setTimeout(resolve, 100)),
      on: { connected: (isRetry) => connections.push(isRetry) },
    });
    const stream = listen(client);
    assert.equal((await next(stream)).kind, "READY");
    const coming = next(stream);
    assert.equal(await api.stop(), 0);
    await api.start();
    assert.equal((await coming).kind, "READY");
    assert.deepEqual(connections, [false, true]);
    await stream.return();
    client.dispose();
  });
});
