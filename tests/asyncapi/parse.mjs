// Parses each document of a folder with the official parser; prints what it finds as JSON, by file.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_PACKAGES, "package.json"));
const { Parser } = require("@asyncapi/parser");
const parser = new Parser();
const found = {};
for (const file of readdirSync(process.argv[2]).sort()) {
  const { document, diagnostics } = await parser.parse(readFileSync(join(process.argv[2], file), "utf8"));
  const serious = diagnostics.filter((each) => each.severity < 2).map((each) => `${each.path.join(".")}: ${each.message}`);
  found[file] = { channels: document ? document.channels().all().length : -1, diagnostics: serious };
}
console.log(JSON.stringify(found));
