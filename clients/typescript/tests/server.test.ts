/** Against a Telex server, whose address is in TELEX_URL: `tests/clients` starts one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CallError, type ChannelEvent, connect, type Socket } from "../src/index.js";
import { codeOf } from "./fake.js";

const SERVER = process.env.TELEX_URL;
const options = { skip: SERVER ? false : "TELEX_URL is not set", timeout: 30_000 };

/** Runs `check` on a socket of its own, and on the same route of a shared socket. */
function both(name: string, path: string, check: (route: ReturnType<Socket["route"]>, socket: Socket) => Promise<void>): void {
  for (const [kind, address] of [["direct", path], ["shared", "/socket"]]) {
    test(`${name}, ${kind}`, options, async (t) => {
      const socket = connect(`${SERVER}${address}`);
      t.after(() => socket.close());
      await check(socket.route(kind === "shared" ? path : undefined), socket);
    });
  }
}

both("calls both ways", "/desk", async (desk) => {
  assert.equal(await desk.call({ type: "add", a: 2, b: 3 }), 5);
  desk.answer("confirm", async ({ what }) => ({ yes: what === "tea" }));
  const told = new Promise((resolve) => desk.on("ordered", resolve));
  assert.equal(await desk.call({ type: "order", what: "tea" }), true);
  assert.deepEqual(await told, { type: "ordered", what: "tea" });
  await assert.rejects(desk.call({ type: "order", what: "cake" }), (error: CallError) => {
    assert.deepEqual([error.code, error.data], ["sold_out", { what: "cake" }]);
    return true;
  });
  await assert.rejects(desk.call({ type: "add", a: "2" }), (error: CallError) => {
    assert.deepEqual([error.code, error.path], ["invalid_message", "$.a"]);
    return true;
  });
  const sums = await Promise.all(Array.from({ length: 120 }, (_, n) => desk.call({ type: "add", a: n, b: 0 })));
  assert.deepEqual(sums, [...Array(120).keys()]);
});

both("a call that takes too long is cancelled at the server", "/desk", async (desk, socket) => {
  assert.equal(await codeOf(desk.call({ type: "sleep" }, { timeout: 200 })), "timeout");
  const asking = socket.status.state === "open" && desk.path ? socket.route("/cancelled") : connect(`${SERVER}/cancelled`).route();
  for (;;) {
    if ((await asking.call<string[]>(null)).length) break;
  }
  asking.close();
});

both("an answer in parts", "/count", async (count) => {
  const seen: number[] = [];
  for await (const n of count.stream<number>(100)) seen.push(n);
  assert.deepEqual(seen, [...Array(100).keys()]);
  for await (const n of count.stream<number>(1_000_000)) if (n === 50) break;
  assert.equal(await codeOf(count.call(3)), "bad_frame");
});

both("bytes", "/bytes", async (bytes) => {
  const sent = Uint8Array.from({ length: 70_000 }, (_, n) => n % 251);
  assert.deepEqual(await bytes.call(sent), new Uint8Array([...sent].reverse()));
});

test("a refusal of a route is final, and says why", options, async (t) => {
  const socket = connect(`${SERVER}/socket`);
  t.after(() => socket.close());
  const staff = socket.route("/staff");
  assert.equal(await codeOf(staff.call("x")), "closed");
  assert.equal(staff.error!.error!.message, "this is not yours");
  assert.equal(socket.status.state, "open");
});

both("a route that the server closes comes back, or not, as the code says", "/desk", async (desk) => {
  assert.equal(await codeOf(desk.call({ type: "leave", code: 1013, reason: "retry-after=0.1" })), "connection_lost");
  assert.equal(await desk.call({ type: "add", a: 1, b: 1 }), 2);
  assert.equal(await codeOf(desk.call({ type: "leave", code: 4001, reason: "bye" })), "connection_lost");
  assert.equal(await codeOf(desk.call({ type: "add", a: 1, b: 1 })), "closed");
  assert.deepEqual([desk.error!.closeCode, desk.error!.reason], [4001, "bye"]);
});

for (const kind of ["direct", "shared"]) {
  test(`a channel loses nothing when the server lets its clients go, ${kind}`, options, () => follow(kind));
}

async function follow(kind: string): Promise<void> {
  const room = `room-${kind}`;
  const follower = connect(kind === "shared" ? `${SERVER}/socket` : `${SERVER}/rooms/${room}`);
  const path = kind === "shared" ? "/rooms/{room}" : undefined;
  const channel = follower.channel<number, string>(path, { room }, { load: () => "state" });
  const publisher = connect(`${SERVER}/rooms/${room}`);
  const cutter = connect(`${SERVER}/cut`);
  const seen: ChannelEvent<number, string>[] = [];
  const reading = (async () => {
    for await (const event of channel) {
      seen.push(event);
      if (event.type === "event" && event.data === 199) return;
    }
  })();
  await channel.route.call(0);
  for (let n = 1; n < 200; n++) {
    for (;;) {
      const published = await codeOf(publisher.route().call(n));
      if (published === "none") break;
      assert.equal(published, "connection_lost");
      const last = await publisher.route().call<{ events: { data: number }[] }>({ type: "history", limit: 1 });
      if (last.events[0]!.data === n) break; // it has run
    }
    if (n % 60 === 30) await cutter.route().notify("retry-after=0.05");
  }
  await reading;
  for (const each of [follower, publisher, cutter]) each.close();
  const events = seen.filter(({ type }) => type === "event").map((event) => (event as { data: number }).data);
  assert.deepEqual(events, [...Array(200).keys()]);
  assert.deepEqual(seen.filter(({ type }) => type === "gap"), []);
  assert.equal(seen.filter(({ type }) => type === "loaded").length, 1);
}

test("positions of another epoch: a gap, and the state once", options, async (t) => {
  const socket = connect(`${SERVER}/socket`);
  t.after(() => socket.close());
  const loads: unknown[] = [];
  const channel = socket.channel("/rooms/{room}", { room: "epoch" }, { since: "0123abcd:7", load: (at) => loads.push(at) });
  const seen: string[] = [];
  await channel.route.call("hello");
  for await (const { type } of channel) {
    seen.push(type);
    if (type === "loaded") break;
  }
  assert.deepEqual(seen.filter((type) => type === "gap" || type === "loaded"), ["gap", "loaded"]);
  assert.equal(loads.length, 1);
});

for (const [path, tokenIn] of [["/me", "subprotocol"], ["/me-in-band", "frame"]] as const) {
  test(`tokens that expire are renewed, ${tokenIn}`, options, async (t) => {
    let tokens = 0;
    const socket = connect(`${SERVER}${path}`, { tokenIn, token: async () => `ada.${++tokens}` });
    t.after(() => socket.close());
    while (tokens < 4) {
      assert.equal(await socket.route().call(null), "ada");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });
}
