// A rule for graphql-inspector: a breaking change that the newest section of CHANGELOG.md names, as `Type.field` in a line
// that begins with "- **Breaking:** ", is no reason to fail.
const { readFileSync } = require("node:fs");

const HEADING = /^## /m;
const CHANGELOG = process.env.CHANGELOG ?? `${__dirname}/../../../CHANGELOG.md`;

module.exports = ({ changes }) => {
  const newest = readFileSync(CHANGELOG, "utf8").split(HEADING)[1];
  const told = newest.split("\n").filter((line) => line.startsWith("- **Breaking:** "));
  const isTold = ({ path }) => told.some((line) => line.includes(`\`${path}\``));
  return changes.map((change) =>
    change.criticality.level === "BREAKING" && isTold(change)
      ? { ...change, criticality: { ...change.criticality, level: "DANGEROUS" } }
      : change,
  );
};
