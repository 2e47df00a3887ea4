/** The adapter of this client for `telex conformance`: see clients/conformance. Its argument is the module to test. */
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { connect } = await import(process.argv[2] ? pathToFileURL(process.argv[2]).href : "./dist/index.js");

const tell = (observation) => console.log(JSON.stringify(observation, (_, value) => encoded(value)));
const encoded = (value) => (value instanceof Uint8Array ? { $bytes: Buffer.from(value).toString("base64") } : value);
const decoded = (data) => (data?.$bytes === undefined ? data : new Uint8Array(Buffer.from(data.$bytes, "base64")));
const plain = (value) => (value instanceof Uint8Array ? encoded(value) : value);

let url;
let socket;
let tokens;
const routes = new Map();
const calls = new Map();

/** The route that a command is about. */
const of = ({ route }) => (route ? routes.get(route) : socket.route());

function options({ as, timeout, key }) {
  const aborting = new AbortController();
  calls.set(as, aborting);
  return { signal: aborting.signal, key, ...(timeout && { timeout: 1000 * timeout }) };
}

function failed(as) {
  return (error) => tell({ as, error: error.code ?? String(error), data: error.data });
}

const commands = {
  begin: (command) => {
    url = command.url;
  },
  connect: (command) => {
    tokens = command.tokens;
    const token = () => {
      const next = tokens.length > 1 ? tokens.shift() : tokens[0];
      if (next === null) throw new Error("no token");
      return next;
    };
    socket = connect(url, { ...(tokens && { token }), ...(command.token_in && { tokenIn: command.token_in }) });
    socket.on("status", ({ state, code }) => tell({ status: state, code }));
  },
  route: ({ as, path, params }) => routes.set(as, socket.route(path, params)),
  call: (command) => {
    const answer = of(command).call(decoded(command.data), options(command));
    answer.then((reply) => tell({ as: command.as, reply: plain(reply) }), failed(command.as));
  },
  cancel: ({ as }) => calls.get(as).abort({ code: "cancelled" }),
  notify: (command) => void of(command).notify(decoded(command.data)),
  stream: async (command) => {
    const { as, take = Infinity } = command;
    let taken = 0;
    try {
      for await (const item of of(command).stream(command.data, options(command))) {
        tell({ as, item });
        if (++taken >= take) break;
      }
      tell({ as, end: true });
    } catch (error) {
      failed(as)(error);
    }
  },
  listen: (command) => of(command).on("*", (message) => tell({ message: plain(message) })),
  answer: (command) => of(command).answer(command.type, () => command.reply),
  channel: async ({ as, path, params, since, load }) => {
    try {
      const loading = load === undefined ? {} : { load: () => load };
      for await (const event of socket.channel(path, params, { since, ...loading })) tell({ as, event });
      tell({ as, end: true });
    } catch (error) {
      failed(as)(error);
    }
  },
  close: ({ route }) => (route ? routes.get(route) : socket).close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  for (const command of JSON.parse(line)) commands[command.do](command);
}
process.exit();
