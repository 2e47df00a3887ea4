import assert from "node:assert/strict";
import { test } from "node:test";
import { pause } from "../src/back-off.js";
import { afterClose } from "../src/index.js";
import { browser, codeOf, opened, pass, settle } from "./fake.js";

test("the pauses have full jitter, grow, and are never 0", (t) => {
  const random = t.mock.method(Math, "random", () => 0);
  assert.deepEqual([0, 1, 9].map(pause), [1, 1, 1]);
  random.mock.mockImplementation(() => 0.999999);
  const longest = [0, 1, 2, 3, 4, 5, 6, 7, 100].map((attempt) => Math.round(pause(attempt) / 1000));
  assert.deepEqual(longest, [1, 1, 2, 4, 8, 16, 30, 30, 30]);
});

test("attempts back off, and begin again after 5 s open", async (t) => {
  t.mock.method(Math, "random", () => 0.5);
  const it = await opened(t);
  const delays: number[] = [];
  it.socket.on("status", (status) => status.state === "waiting" && delays.push(Math.round(status.delay)));
  for (const wait of [501, 501, 1001]) {
    it.line.ends(1006);
    await pass(t, wait);
  }
  assert.equal(it.lines.length, 4);
  it.line.hello();
  await pass(t, 4000);
  it.line.ends(1006);
  await pass(t, 2001);
  it.line.hello();
  await pass(t, 5001);
  it.line.ends(1006);
  assert.deepEqual(delays, [501, 501, 1001, 2001, 501]);
});

for (const [code, expected] of [[1006, 2], [1001, 2], [4500, 2], [4599, 2], [1015, 2], [1000, 1], [1008, 1], [4403, 1], [4499, 1], [3000, 1], [4001, 1], [4600, 1]]) {
  test(`after ${code}: ${afterClose(code!)}`, async (t) => {
    const it = await opened(t);
    it.line.hello().ends(code!, "because");
    await pass(t, 1100);
    assert.equal(it.lines.length, expected);
    if (expected === 1) assert.deepEqual(it.socket.status, { state: "closed", code, reason: "because", error: undefined });
  });
}

test("retry-after is followed, and is not hurried by `online`", async (t) => {
  const events = browser(t);
  const it = await opened(t);
  it.line.hello().ends(1012, "retry-after=7.5");
  events.online();
  await pass(t, 7400);
  assert.equal(it.lines.length, 1);
  await pass(t, 200);
  assert.equal(it.lines.length, 2);
});

test("a refusal is told by the error frame before the close", async (t) => {
  const it = await opened(t);
  it.line.accept().says({ type: "error", about: "connection", error: { code: "permission_denied", message: "not yours" } });
  it.line.ends(4403, "not yours");
  assert.equal(await codeOf(it.socket.route().call(1)), "closed");
  assert.equal(it.socket.route().error!.error!.code, "permission_denied");
});

test("a server that answers nothing, or without telex.v1", async (t) => {
  t.mock.method(Math, "random", () => 0.5);
  const silent = await opened(t);
  await pass(t, 10_001);
  assert.equal(silent.socket.status.state, "waiting");
  assert.ok(silent.line.isClosed);
  await pass(t, 502);
  assert.equal(silent.lines.length, 2);
  silent.line.accept(""); // no hello either
  assert.deepEqual([silent.socket.status.state, (silent.socket.status as any).code], ["closed", 4426]);
});

test("the token function: called at each attempt", async (t) => {
  let n = 0;
  const it = await opened(t, { token: () => `t${++n}` });
  await settle();
  assert.deepEqual(it.line.protocols, ["telex.v1", "bearer.t1"]);
  it.line.ends(1006);
  await pass(t, 1100);
  assert.deepEqual(it.line.protocols, ["telex.v1", "bearer.t2"]);
});

test("the token in the query, beside a query of the address", async (t) => {
  const it = await opened(t, { token: async () => "a&b", tokenIn: { query: "ticket" } }, "ws://test/room?x=1");
  await settle();
  assert.equal(it.line.url, "ws://test/room?x=1&ticket=a%26b");
  assert.deepEqual(it.line.protocols, ["telex.v1"]);
});

test("a token function that throws, and one that hangs, count as failed attempts", async (t) => {
  t.mock.method(Math, "random", () => 0.5);
  let calls = 0;
  const it = await opened(t, {
    token: () => {
      if (++calls === 1) throw new Error("no network");
      return new Promise(() => {});
    },
  });
  await settle();
  assert.match((it.socket.status as any).reason, /no network/);
  await pass(t, 502);
  await pass(t, 10_001);
  assert.match((it.socket.status as any).reason, /token function has not ended within 10000 ms/);
  await pass(t, 502);
  assert.deepEqual([calls, it.lines.length], [3, 0]);
});

test("after 4401 one fresh token, then the end", async (t) => {
  let calls = 0;
  const it = await opened(t, { token: () => `t${++calls}` });
  await settle();
  it.line.hello().ends(4401);
  await pass(t, 1100);
  assert.deepEqual([calls, it.lines.length], [2, 2]);
  it.line.hello().ends(4401);
  await pass(t, 60_000);
  assert.deepEqual([calls, it.lines.length, it.socket.status.state], [2, 2, "closed"]);
});

test("a fresh token at 80 % of its time, and again after the answer", async (t) => {
  let calls = 0;
  const it = await opened(t, { token: () => `t${++calls}` });
  await settle();
  it.line.hello({ expires_in: 100, ping: 10_000_000 });
  await pass(t, 79_000);
  assert.equal(it.line.sent.length, 0);
  await pass(t, 1001);
  assert.deepEqual(it.line.last, { type: "auth", token: "t2", id: 1 });
  it.line.says({ type: "reply", id: 1 }, { expires_in: 10 });
  await pass(t, 8001);
  assert.deepEqual(it.line.last, { type: "auth", token: "t3", id: 2 });
  it.line.says({ type: "reply", id: 2 }, { expires_in: null }); // a token that does not expire
  await pass(t, 1_000_000);
  assert.equal(calls, 3);
});

test("a token function that fails before the expiry is called again", async (t) => {
  let calls = 0;
  const it = await opened(t, { token: () => (++calls === 2 ? Promise.reject(new Error("no network")) : `t${calls}`) });
  await settle();
  it.line.hello({ expires_in: 100, ping: 10_000 });
  await pass(t, 80_001);
  assert.equal(it.line.sent.length, 0);
  await pass(t, 20_001);
  assert.deepEqual(it.line.last, { type: "auth", token: "t3", id: 1 });
});

test("a token of a hundred years overflows no timer", async (t) => {
  const it = await opened(t, { token: () => "t" });
  await settle();
  it.line.hello({ expires_in: 3e9 });
  await pass(t, 1000);
  assert.equal(it.line.sent.length, 0);
});

test("a server that wants the token in a frame", async (t) => {
  const it = await opened(t, { token: () => "t", tokenIn: "frame" });
  await settle();
  assert.deepEqual(it.line.protocols, ["telex.v1"]);
  it.line.hello({ auth: "required" });
  const call = it.socket.route().call(1);
  await settle();
  assert.deepEqual(it.line.sent, [{ type: "auth", token: "t", id: 1 }]);
  assert.equal(it.socket.status.state, "connecting");
  it.line.says({ type: "reply", id: 1 }, { expires_in: 60 });
  assert.equal(it.socket.status.state, "open");
  it.line.says({ type: "reply", id: 2 }, "x");
  assert.equal(await call, "x");
});

test("a silent line is probed, and dead after 10 s more", async (t) => {
  const it = await opened(t);
  it.line.hello({ ping: 20 });
  await pass(t, 19_000);
  it.line.says({ type: "ping" });
  assert.deepEqual(it.line.types(), ["pong"]);
  await pass(t, 19_000);
  await pass(t, 1001);
  assert.deepEqual(it.line.types(), ["pong", "ping"]);
  it.line.says({ type: "pong" });
  await pass(t, 10_001);
  assert.equal(it.socket.status.state, "open");
  await pass(t, 10_001);
  assert.deepEqual(it.line.types(), ["pong", "ping", "ping"]);
  await pass(t, 10_001);
  assert.deepEqual([it.socket.status.state, it.line.isClosed], ["waiting", true]);
});

test("an hour of sleep: the line gets 10 s to answer", async (t) => {
  const it = await opened(t);
  it.line.hello();
  it.sleep(3_600_000);
  await pass(t, 20_001);
  assert.deepEqual([it.socket.status.state, it.line.types()], ["open", ["ping"]]);
  it.line.says({ type: "pong" });
  await pass(t, 9_000);
  assert.equal(it.socket.status.state, "open");
});

test("`online` tries now, once; a storm of it does not", async (t) => {
  t.mock.method(Math, "random", () => 0.999);
  const events = browser(t);
  const it = await opened(t);
  for (let attempt = 0; attempt < 5; attempt++) {
    it.line.ends(1006);
    await pass(t, 31_000);
  }
  it.line.ends(1006);
  for (let n = 0; n < 100; n++) events.online();
  await pass(t, 1000);
  assert.equal(it.lines.length, 7);
  it.line.ends(1006);
  for (let n = 0; n < 40; n++) {
    events.online();
    await pass(t, 100);
  }
  assert.equal(it.lines.length, 7);
});

test("a hidden tab waits, and goes on when it is seen", async (t) => {
  const events = browser(t);
  const it = await opened(t);
  events.document.hidden = true;
  it.line.ends(1006);
  await pass(t, 60_000);
  assert.equal(it.lines.length, 1);
  events.document.hidden = false;
  events.visible();
  events.document.hidden = true; // and hidden again, before the attempt
  await pass(t, 1100);
  assert.equal(it.lines.length, 1);
  events.document.hidden = false;
  events.visible();
  await pass(t, 1100);
  assert.equal(it.lines.length, 2);
});

test("a tab that is seen again probes its line", async (t) => {
  const events = browser(t);
  const it = await opened(t);
  it.line.hello();
  events.visible();
  assert.deepEqual(it.line.types(), ["ping"]);
  await pass(t, 10_001);
  assert.equal(it.socket.status.state, "waiting");
});

test("another contract: a warning, or the end", async (t) => {
  const warned = t.mock.method(console, "warn", () => {});
  const lax = await opened(t, { contract: "sha256:a" });
  lax.line.hello({ contract: "sha256:b" });
  lax.line.ends(1006);
  await pass(t, 1100);
  lax.line.hello({ contract: "sha256:b" });
  assert.deepEqual([lax.socket.status.state, warned.mock.callCount()], ["open", 1]);
  lax.socket.close();
  t.mock.timers.reset();
  const strict = await opened(t, { contract: "sha256:a", strictContract: true });
  strict.line.hello({ contract: "sha256:b" });
  assert.deepEqual([strict.socket.status.state, strict.line.isClosed], ["closed", true]);
});

test("goaway: the new connection first, then the old one is left", async (t) => {
  const it = await opened(t);
  it.line.hello();
  const [old] = it.lines;
  const slow = it.socket.route().call("slow");
  old!.says({ type: "goaway", within: 30, retry_after: 2 });
  await pass(t, 1900);
  assert.equal(it.lines.length, 1);
  await pass(t, 200);
  assert.equal(it.lines.length, 2);
  const between = it.socket.route().call("between");
  assert.equal(old!.last!.data, "between");
  it.line.hello();
  const after = it.socket.route().call("after");
  assert.deepEqual(it.line.sent.map(({ id, data }) => [id, data]), [[1, "after"]]);
  assert.equal(old!.isClosed, false);
  old!.says({ type: "reply", id: 1 }, "s").says({ type: "reply", id: 2 }, "b");
  it.line.says({ type: "reply", id: 1 }, "a");
  assert.deepEqual(await Promise.all([slow, between, after]), ["s", "b", "a"]);
  assert.equal(old!.isClosed, true);
  assert.deepEqual(it.states, ["connecting", "open"]);
});

test("goaway: a new connection that is refused is tried again, while the old one works", async (t) => {
  const it = await opened(t);
  it.line.hello().says({ type: "goaway", within: 30, retry_after: 0.5 });
  await pass(t, 600);
  it.line.ends(1013, "retry-after=1");
  await pass(t, 1001);
  assert.deepEqual([it.lines.length, it.socket.status.state], [3, "open"]);
  it.lines[0]!.ends(1012, "retry-after=20");
  assert.equal(it.socket.status.state, "connecting");
  it.line.hello();
  assert.equal(it.socket.status.state, "open");
});

test("close() ends everything", async (t) => {
  const it = await opened(t);
  const [waiting, events] = [codeOf(it.socket.route().call(1)), it.socket.route().events().next()];
  it.socket.close();
  assert.equal(await waiting, "closed");
  assert.equal((await events).done, true);
  assert.equal(await codeOf(it.socket.route().notify(1)), "closed");
  assert.equal(it.line.isClosed, true);
  await pass(t, 60_000);
  assert.equal(it.lines.length, 1);
});
