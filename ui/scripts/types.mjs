/**
 * Writes src/server.ts: the shapes of the Management API, from its committed description. With `--check` it only says
 * whether that file is what it would write.
 */
import { readFile, writeFile } from "node:fs/promises";
import { compile } from "json-schema-to-typescript";

const description = new URL("../../docs/reference/openapi.json", import.meta.url);
const file = new URL("../src/server.ts", import.meta.url);

/** Schemas whose fields have no titles of their own: each title would become one more type. */
function plain(schema, named) {
  if (Array.isArray(schema)) return schema.map((each) => plain(each, false));
  if (typeof schema !== "object" || schema === null) return schema;
  const kept = Object.entries(schema).filter(([key]) => key !== "title" || named);
  const result = Object.fromEntries(
    kept.map(([key, value]) => [
      key,
      key === "properties"
        ? Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each, false)]))
        : key === "$ref"
          ? value.replace("#/components/schemas/", "#/definitions/")
          : plain(value, false),
    ]),
  );
  if (result.type === "object" && result.properties) result.additionalProperties ??= false;
  return result;
}

const { components } = JSON.parse(await readFile(description, "utf8"));
const definitions = Object.fromEntries(
  Object.entries(components.schemas).map(([name, schema]) => [
    name,
    { ...plain(schema, false), title: name },
  ]),
);
const written = await compile({ definitions, title: "Server", type: "object" }, "Server", {
  bannerComment:
    "/**\n * What the Management API takes and gives: made from docs/reference/openapi.json by `npm run types`.\n */",
  unreachableDefinitions: true,
  ignoreMinAndMaxItems: true,
  format: true,
  style: { printWidth: 110 },
});
const text = written
  .replace(/^export interface Server \{[^}]*\}\n+/m, "")
  .replace(/^\/\*\*\n \* This interface was referenced by[^/]*\*\/\n/gm, "")
  .replace(/^ \*\n \* This interface was referenced by[^\n]*\n \* via the `definition`[^\n]*\n/gm, "");
if (process.argv.includes("--check")) {
  const found = await readFile(file, "utf8").catch(() => "");
  if (found !== text) {
    process.stderr.write("src/server.ts is not what the API's description says: run `npm run types`.\n");
    process.exitCode = 1;
  }
} else {
  await writeFile(file, text);
}
