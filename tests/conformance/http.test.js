// GraphQL over HTTP: the public audit suite of the npm package `graphql-http`, every audit of it.
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { serverAudits } from "graphql-http";
import { Api, token } from "./api.js";

const AUDITS = 61; // of graphql-http 1.23.1; a newer suite that audits less would go unnoticed otherwise

suite("GraphQL over HTTP", () => {
  let api;
  before(async () => (api = await Api.open()));
  after(() => api?.stop());

  const authorized = (url, init = {}) =>
    fetch(url, { ...init, headers: { ...init.headers, authorization: `Bearer ${token()}` } });
  const audits = serverAudits({ url: () => api.url, fetchFn: authorized });

  test(`the suite holds ${AUDITS} audits`, () => assert.equal(audits.length, AUDITS));

  for (const audit of audits) {
    test(`${audit.id} ${audit.name}`, async () => {
      const result = await audit.fn();
      // `warn` and `notice` are SHOULD and MAY: kept like every MUST.
      const answer = result.status === "ok" ? "" : `: ${result.response?.status} ${await text(result.response)}`;
      assert.equal(result.status, "ok", `${result.reason}${answer}`);
    });
  }
});

async function text(response) {
  return response && !response.bodyUsed ? await response.text() : "";
}
