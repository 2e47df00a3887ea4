/** Builds the package into dist/, and the file that the Python package serves (or the one given); or, with `--tests` or `--size`, only that. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

/** Where the Python package has the client, for pages without npm. */
const SERVED = "../../src/telex/contract/static/telex.client.js";
const LIMIT = 8 * 1024;

const common = { bundle: true, format: "esm", target: "es2022", logLevel: "warning" };
const small = { ...common, minify: true, mangleProps: /^_/, entryPoints: ["src/index.ts"] };
const mode = process.argv[2];
/** Members that begin with `_` are for the package alone. */
const INTERNAL = /^ +(?:\/\*\*(?:(?!\*\/).)*\*\/\n +)?(?:readonly |get )?_\w[^;]*;\n/gms;

if (mode === "--tests") {
  const outdir = process.argv[3] ?? ".tests";
  rmSync(outdir, { recursive: true, force: true });
  const tests = readdirSync("tests").filter((name) => name.endsWith(".test.ts"));
  await build({
    ...common,
    entryPoints: tests.map((name) => `tests/${name}`),
    outdir,
    outExtension: { ".js": ".mjs" },
    platform: "node",
    packages: "external",
    sourcemap: "inline",
  });
} else if (mode === "--size") {
  const built = await build({ ...small, write: false });
  const bytes = gzipSync(built.outputFiles[0].contents, { level: 9 }).length;
  console.log(`${bytes} of ${LIMIT} bytes, minified and gzipped`);
  process.exitCode = bytes > LIMIT ? 1 : 0;
} else {
  rmSync("dist", { recursive: true, force: true });
  const entryPoints = ["src/index.ts", "src/react.ts"];
  await build({ ...common, entryPoints, outdir: "dist", mangleProps: /^_/, packages: "external" });
  const banner = { js: "/* Built from clients/typescript by `npm run build`. */" };
  await build({ ...small, outfile: mode ?? SERVED, banner });
  const emitted = spawnSync("tsc", ["--project", "tsconfig.build.json"], { stdio: "inherit" });
  process.exitCode = emitted.status ?? 1;
  for (const name of readdirSync("dist").filter((each) => each.endsWith(".d.ts"))) {
    const text = readFileSync(`dist/${name}`, "utf8");
    writeFileSync(`dist/${name}`, text.replace(INTERNAL, ""));
  }
}
