// Relay: the compiler that its applications are built with takes the schema, and finds in it all that it looks for.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const COMPILER = join(HERE, "node_modules", "relay-compiler", "cli.js");
const SCHEMA = join(HERE, "..", "..", "schema.graphql");

suite("Relay", () => {
  let folder;
  before(() => (folder = mkdtempSync(join(tmpdir(), "sightline-relay-"))));
  after(() => rmSync(folder, { recursive: true }));

  test("the documents of an application compile: pages, refetching by id, a mutation, a subscription", () => {
    const made = join(folder, "src", "__generated__");
    cpSync(join(HERE, "relay"), join(folder, "src"), { recursive: true });
    cpSync(SCHEMA, join(folder, "schema.graphql"));
    mkdirSync(made);
    const config = {
      src: "src", schema: "schema.graphql", language: "javascript", artifactDirectory: "src/__generated__",
      persistConfig: { file: "persisted.json", algorithm: "SHA256" },
    };
    writeFileSync(join(folder, "persisted.json"), "{}");
    writeFileSync(join(folder, "relay.config.json"), JSON.stringify(config));

    execFileSync(process.execPath, [COMPILER, "relay.config.json"], { cwd: folder, encoding: "utf8", stdio: "pipe" });

    assert.deepEqual(readdirSync(made).sort(), [
      "classFlagsSubscription.graphql.js",
      "classHeaderRefetchQuery.graphql.js",
      "classNameRefetchQuery.graphql.js",
      "classPageQuery.graphql.js",
      "classRecordMutation.graphql.js",
      "classRosterPageQuery.graphql.js",
      "class_header.graphql.js",
      "class_name.graphql.js",
      "class_roster.graphql.js",
    ]);
  });

  test("the service takes what the compiler persisted as trusted documents, by the ids of the artifacts", () => {
    const persisted = join(folder, "persisted.json");
    const env = { ...process.env, TRUSTED_DOCUMENTS: persisted };
    const words = ["-m", "server", "documents", "--json"];
    const said = execFileSync(process.env.SIGHTLINE_PYTHON, words, {
      cwd: process.env.SIGHTLINE_ROOT, env, encoding: "utf8", stdio: "pipe",
    });

    const known = JSON.parse(said);
    const ids = Object.keys(JSON.parse(readFileSync(persisted, "utf8")));
    assert.equal(ids.length, 6);
    for (const id of ids) {
      assert.equal(known[`sha256:${id}`], persisted);
    }
    const artifact = readFileSync(join(folder, "src", "__generated__", "classPageQuery.graphql.js"), "utf8");
    assert.ok(ids.some((id) => artifact.includes(id)));
  });
});
