// Builds ../built from this folder: types of the documents, one script, one style sheet. `make pages` runs it;
// another folder may be named, to compare.
// Documents are shipped as their ids only; the server knows the texts (trusted documents).
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { codegen } from "@graphql-codegen/core";
import * as operations from "@graphql-codegen/typescript-operations";
import { build } from "esbuild";
import { buildSchema, parse, printSchema } from "graphql";

const here = new URL("./", import.meta.url);
const at = (path) => new URL(path, here).pathname;
const target = process.argv[2] ?? at("../built");
const schema = parse(printSchema(buildSchema(readFileSync(at("../../../schema.graphql"), "utf8"))));
const SCALARS = { DateTime: "string", Date: "string", Seq: "string" };

rmSync(at("src/generated"), { recursive: true, force: true });
mkdirSync(at("src/generated"), { recursive: true });
const names = readdirSync(at("../documents")).filter((file) => file.endsWith(".graphql")).sort();
const lines = [];
for (const file of names) {
  const name = file.replace(".graphql", "");
  const text = readFileSync(at(`../documents/${file}`), "utf8");
  const document = parse(text);
  const operation = document.definitions.find((each) => each.kind === "OperationDefinition");
  const config = { scalars: SCALARS, skipTypename: true, enumsAsTypes: true, useTypeImports: true };
  const output = await codegen({
    filename: `${name}.ts`,
    schema,
    documents: [{ location: file, document }],
    config,
    plugins: [{ operations: {} }],
    pluginMap: { operations },
  });
  writeFileSync(at(`src/generated/${name}.ts`), output);
  const kind = operation.operation === "query" ? "Query" : "Subscription";
  const title = `${operation.name.value}${kind}`;
  const id = `sha256:${createHash("sha256").update(text).digest("hex")}`;
  lines.push(`import type { ${title}, ${title}Variables } from "./${name}";`);
  lines.push(`export type { ${title} } from "./${name}";`);
  lines.push(
    `export const ${operation.name.value}: Trusted<${title}, ${title}Variables> = { id: "${id}", name: "${operation.name.value}" };`,
  );
}
const trusted =
  "/** A document the server knows by its id. */\n" +
  "export interface Trusted<Result, Variables> {\n  id: string;\n  name: string;\n  /** Never set: ties the types to the id. */\n  of?: (variables: Variables) => Result;\n}\n";
writeFileSync(at("src/generated/documents.ts"), `${trusted}${lines.join("\n")}\n`);

await build({
  entryPoints: { live: at("src/main.tsx") },
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "eof",
  define: { "process.env.NODE_ENV": '"production"' },
  logLevel: "warning",
});
for (const name of ["index.html", "favicon.svg"]) copyFileSync(at(`src/${name}`), `${target}/${name}`);
