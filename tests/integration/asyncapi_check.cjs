// Reads an AsyncAPI document from standard input and prints what AsyncAPI's own parser says of it, as JSON. argv[2]: where it is installed.
const { createRequire } = require("node:module");
const { readFileSync } = require("node:fs");
const from = createRequire(process.argv[2] + "/");
const { Parser } = from("@asyncapi/parser");
const { ProtoBuffSchemaParser } = from("@asyncapi/protobuf-schema-parser");

async function main() {
  const parser = new Parser();
  parser.registerSchemaParser(ProtoBuffSchemaParser());
  const { document, diagnostics } = await parser.parse(readFileSync(0, "utf8"));
  const payloads = {};
  for (const message of document ? document.allMessages().all() : []) payloads[message.id()] = message.payload().json();
  const operations = document ? document.operations().all().map((each) => [each.id(), each.action(), each.channels().all().map((c) => c.address())]) : [];
  const found = diagnostics.map(({ code, message, path, severity }) => ({ code, message, path: path.join("/"), severity }));
  process.stdout.write(JSON.stringify({ valid: document !== undefined, found, payloads, operations }));
}
main();
