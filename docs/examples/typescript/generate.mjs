// Writes src/generated.ts: what each document of documents/ takes and answers, by the schema, and its trusted id.
// Name another schema as the argument: node generate.mjs ../schema.graphql
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { codegen } from "@graphql-codegen/core";
import * as operations from "@graphql-codegen/typescript-operations";
import { parse } from "graphql";

const at = (path) => new URL(path, import.meta.url);
const schema = parse(readFileSync(process.argv[2] ?? at("../../../schema.graphql"), "utf8"));
const files = readdirSync(at("documents")).filter((file) => file.endsWith(".graphql")).sort();
const texts = files.map((file) => readFileSync(at(`documents/${file}`), "utf8"));
const documents = texts.map((text, place) => ({ location: files[place], document: parse(text) }));

const types = await codegen({
  filename: "generated.ts",
  schema,
  documents,
  config: { scalars: { DateTime: "string", Date: "string", Seq: "string" }, skipTypename: true, enumsAsTypes: true },
  plugins: [{ operations: {} }],
  pluginMap: { operations },
});
const constants = texts.map((text, place) => {
  const { name, operation } = documents[place].document.definitions[0];
  const type = name.value + (operation === "query" ? "Query" : "Subscription");
  const id = `sha256:${createHash("sha256").update(text).digest("hex")}`;
  return `export const ${name.value}: Document<${type}, ${type}Variables> = ${JSON.stringify({ id, text })};\n`;
});
const Document = `
/** A document with what it takes and answers; \`of\` is never set, it ties the types to the text. */
export interface Document<Result, Variables> {
  id: string;
  text: string;
  of?: (variables: Variables) => Result;
}
`;
writeFileSync(at("src/generated.ts"), `// Written by generate.mjs.\n${types}${Document}\n${constants.join("\n")}`);
