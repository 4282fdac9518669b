// The rules of @graphql-eslint for schemas, all of them, but for the few that our conventions decide otherwise.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import graphql from "@graphql-eslint/eslint-plugin";
import { ESLint } from "eslint";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const SCHEMA = `${ROOT}schema.graphql`;

const rules = {
  ...graphql.configs["flat/schema-all"].rules,
  ...graphql.configs["flat/schema-relay"].rules,
  "@graphql-eslint/relay-arguments": ["error", { includeBoth: false }], // keyset pages go forward: `first` and `after`
  "@graphql-eslint/relay-edge-types": [
    "error", // lists of plain values exist, `nodes` beside `edges` among them; what is listed need not have an id
    { listTypeCanWrapOnlyEdgeType: false, shouldImplementNode: false, withEdgeSuffix: true },
  ],
  "@graphql-eslint/strict-id-in-types": "off", // connections, payloads, standings: values, which have no id
  "@graphql-eslint/alphabetize": "off", // graphql-core sorts the schema, with letters of both cases apart
  "@graphql-eslint/no-root-type": "off", // forbids mutations and subscriptions
  "@graphql-eslint/require-field-of-type-query-in-mutation-result": "off", // a payload says what was done; reads follow `seq`
  // A mutation always answers with its payload, in which its errors are; queries are judged below.
  "@graphql-eslint/require-nullable-result-in-root": "off",
};
const nullable = { "@graphql-eslint/require-nullable-result-in-root": "error" };

async function complaints(chosen, text) {
  const config = {
    files: ["**/*.graphql"],
    languageOptions: { parser: graphql.parser, parserOptions: { graphQLConfig: { schema: SCHEMA } } },
    plugins: { "@graphql-eslint": graphql },
    rules: chosen,
  };
  const eslint = new ESLint({ cwd: ROOT, overrideConfigFile: true, overrideConfig: [config] });
  const results = text ? await eslint.lintText(text, { filePath: "planted.graphql" }) : await eslint.lintFiles([SCHEMA]);
  assert.equal(results.length, 1);
  return results.flatMap(({ messages }) => messages.map(({ line, ruleId, message }) => `${line} ${ruleId}: ${message}`));
}

test("the schema is clean", async () => assert.deepEqual(await complaints(rules), []));

test("only a mutation answers what cannot be null", async () => {
  const told = await complaints(nullable);
  assert.deepEqual(told.filter((complaint) => !/result type "\w+Payload" in type "Mutation"/.test(complaint)), []);
});

test("a mistake is told", async () => {
  const told = await complaints(rules, 'type snake_case {\n  Field: String\n}\n');
  assert.match(told.join("\n"), /naming-convention/);
});
