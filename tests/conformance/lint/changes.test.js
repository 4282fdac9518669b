// @graphql-inspector/cli: nothing breaks clients of the last release unless CHANGELOG.md says so.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const INSPECTOR = `${HERE}node_modules/.bin/graphql-inspector`;
const folder = mkdtempSync(join(tmpdir(), "sightline-changes-"));
after(() => rmSync(folder, { recursive: true }));

/** Compare two schemas by the command line; `status` is 1 where a client may break unawares. */
function compared(before, now, env = {}) {
  const told = ["diff", before, now, "--rule", `${HERE}described.cjs`];
  return new Promise((done) => {
    execFile(INSPECTOR, told, { cwd: HERE, env: { ...process.env, ...env } }, (error, out, err) =>
      done({ status: error ? error.code : 0, said: out + err }),
    );
  });
}

/** A file of the folder with this text. */
function written(name, text) {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function lastRelease() {
  const schemas = readdirSync(`${ROOT}docs/releases`).filter((name) => name.endsWith(".graphql"));
  const versions = schemas.map((name) => name.replace(".graphql", ""));
  const [newest] = versions.sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
  return `${ROOT}docs/releases/${newest}.graphql`;
}

test("no change since the last release breaks a client without a word", async () => {
  const { status, said } = await compared(lastRelease(), `${ROOT}schema.graphql`);
  assert.equal(status, 0, said);
});

test("a field that goes is told, unless the changelog names it", async () => {
  const before = written("before.graphql", "type Query { one: Int  two: Int }\n");
  const now = written("now.graphql", "type Query { two: Int }\n");
  const silent = written("silent.md", "# Changelog\n\n## 2 (unreleased)\n- `Query.one` is gone.\n");
  const frank = written("frank.md", "# Changelog\n\n## 2 (unreleased)\n- **Breaking:** `Query.one` is gone; use `two`.\n");

  const unaware = await compared(before, now, { CHANGELOG: silent });
  assert.equal(unaware.status, 1, unaware.said);
  assert.match(unaware.said, /Field one was removed/);
  const aware = await compared(before, now, { CHANGELOG: frank });
  assert.equal(aware.status, 0, aware.said);
});
