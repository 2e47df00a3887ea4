import assert from "node:assert/strict";
import { test } from "node:test";
import { CallError, ConnectionLost } from "../src/index.js";
import { codeOf, opened, pass, settle } from "./fake.js";

test("a call is answered", async (t) => {
  const { socket, line } = await opened(t);
  const room = socket.route();
  const answer = room.call<number>({ type: "add", n: 2 });
  line.hello();
  assert.deepEqual(line.last, { type: "call", timeout: 10, id: 1, data: { type: "add", n: 2 } });
  line.says({ type: "reply", id: 1 }, 4);
  assert.equal(await answer, 4);
  const empty = room.call(null);
  assert.equal(line.last!.data, null);
  line.says({ type: "reply", id: 2 });
  assert.equal(await empty, undefined);
});

test("an error of the server has its code, path, data and retry-after", async (t) => {
  const { socket, line } = await opened(t);
  line.hello();
  const call = socket.route().call(1);
  line.says({ type: "error", id: 1, error: { code: "busy", message: "later", path: "$.x", retry_after: 2.5, data: [1] } });
  await assert.rejects(call, (error: CallError) => {
    assert.ok(error instanceof CallError);
    assert.deepEqual([error.code, error.message, error.path, error.retryAfter, error.data], ["busy", "later", "$.x", 2500, [1]]);
    return true;
  });
});

test("a call that gets no answer is cancelled, and its late answer is ignored", async (t) => {
  const { socket, line } = await opened(t);
  line.hello();
  const call = socket.route().call(1, { timeout: 5000 });
  const failed = codeOf(call);
  await pass(t, 5001);
  assert.equal(await failed, "timeout");
  assert.deepEqual(line.last, { type: "cancel", id: 1 });
  line.says({ type: "reply", id: 1 }, "late");
  const next = socket.route().call(2);
  assert.equal(line.last!.id, 2);
  line.says({ type: "reply", id: 2 }, "its own");
  assert.equal(await next, "its own");
});

test("the time-out of a call that waits for a connection runs, and shortens what the server is told", async (t) => {
  const { socket, line } = await opened(t);
  const first = codeOf(socket.route().call(1, { timeout: 2000 }));
  const second = socket.route().call(2, { timeout: 9000 });
  await pass(t, 3000);
  assert.equal(await first, "timeout");
  line.hello();
  assert.deepEqual(line.sent, [{ type: "call", timeout: 6, id: 1, data: 2 }]);
  line.says({ type: "reply", id: 1 }, "two");
  assert.equal(await second, "two");
});

test("a call is endless only where that is written", async (t) => {
  const { socket, line } = await opened(t, { callTimeout: Infinity });
  line.hello();
  void codeOf(socket.route().call(1));
  assert.equal(line.last!.type, "call");
  assert.equal("timeout" in line.last!, false);
});

test("a signal cancels a call, sent or not", async (t) => {
  const { socket, line } = await opened(t);
  const [early, late, before] = [new AbortController(), new AbortController(), AbortSignal.abort(new Error("before"))];
  await assert.rejects(socket.route().call(0, { signal: before }), /before/);
  const waiting = socket.route().call(1, { signal: early.signal });
  early.abort(new Error("early"));
  await assert.rejects(waiting, /early/);
  line.hello();
  assert.deepEqual(line.sent, []);
  const sent = socket.route().call(2, { signal: late.signal });
  late.abort(new Error("late"));
  await assert.rejects(sent, /late/);
  assert.deepEqual(line.types(), ["call", "cancel"]);
});

test("calls wait for credit, which their final frames give back", async (t) => {
  const { socket, line } = await opened(t);
  line.hello({ credit: 2 });
  const answers = [1, 2, 3].map((n) => socket.route().call(n));
  assert.deepEqual(line.sent.map(({ data }) => data), [1, 2]);
  line.says({ type: "error", id: 1, error: { code: "no" } });
  assert.deepEqual(line.sent.map(({ data }) => data), [1, 2, 3]);
  await assert.rejects(answers[0]!);
  line.says({ type: "reply", id: 3 }, "c").says({ type: "reply", id: 2 }, "b");
  assert.deepEqual(await Promise.all(answers.slice(1)), ["b", "c"]);
});

test("notifies take credit until the server gives it back", async (t) => {
  const { socket, line } = await opened(t);
  line.hello({ credit: 1 });
  const sent: number[] = [];
  for (const n of [1, 2, 3]) void socket.route().notify(n).then(() => sent.push(n));
  await settle();
  assert.deepEqual(sent, [1]);
  line.says({ type: "credit", n: 2 });
  await settle();
  assert.deepEqual(sent, [1, 2, 3]);
  assert.deepEqual(line.sent[0], { type: "notify", data: 1 });
});

test("the bytes in work are bounded, and too large data is refused here", async (t) => {
  const { socket, line } = await opened(t);
  line.hello({ bytes: 1200, max: 1000 });
  const first = socket.route().call("x".repeat(900));
  const second = socket.route().call("y".repeat(900));
  assert.equal(line.sent.length, 1);
  line.says({ type: "reply", id: 1 });
  assert.equal(line.sent.length, 2);
  line.says({ type: "reply", id: 2 });
  await Promise.all([first, second]);
  assert.equal(await codeOf(socket.route().call("z".repeat(1000))), "too_large");
});

test("at most so many messages wait", async (t) => {
  const { socket } = await opened(t, { maxQueued: 2, maxQueuedBytes: 100 });
  const [first, second, third] = [1, 2, 3].map((n) => codeOf(socket.route().call(n, { timeout: 1000 })));
  assert.equal(await third, "queue_full");
  await pass(t, 1001);
  assert.deepEqual([await first, await second], ["timeout", "timeout"]);
  assert.equal(await codeOf(socket.route().notify("x".repeat(100))), "queue_full");
  void codeOf(socket.route().notify("small"));
});

test("unanswered calls are rejected when the connection is lost; those with a key are sent again", async (t) => {
  const { socket, line, lines } = await opened(t);
  line.hello();
  const lost = socket.route().call("once");
  const again = socket.route().call("again", { key: "k" });
  line.ends(1006);
  await assert.rejects(lost, (error: ConnectionLost) => error instanceof ConnectionLost && error.mayHaveRun);
  await pass(t, 1100);
  lines[1]!.hello();
  assert.deepEqual(lines[1]!.sent, [{ type: "call", timeout: 8.9, key: "k", id: 1, data: "again" }]);
  lines[1]!.says({ type: "reply", id: 1 }, "done");
  assert.equal(await again, "done");
});

test("parts of an answer, with credit for more", async (t) => {
  const { socket, line } = await opened(t);
  line.hello();
  const seen: number[] = [];
  const reading = (async () => {
    for await (const n of socket.route().stream<number>("count")) seen.push(n);
  })();
  await settle();
  for (let n = 0; n < 16; n++) line.says({ type: "item", id: 1 }, n);
  await settle();
  assert.deepEqual(line.sent.slice(1), [{ type: "more", id: 1, n: 8 }, { type: "more", id: 1, n: 8 }]);
  line.says({ type: "end", id: 1 });
  await reading;
  assert.deepEqual(seen, [...Array(16).keys()]);
});

test("leaving the loop cancels, an error is thrown, and so is a loss", async (t) => {
  const { socket, line } = await opened(t);
  line.hello();
  const room = socket.route();
  const first = (async () => {
    for await (const item of room.stream(1)) return item;
  })();
  await settle();
  line.says({ type: "item", id: 1 }, "a");
  assert.equal(await first, "a");
  assert.deepEqual(line.last, { type: "cancel", id: 1 });
  const second = codeOf(room.stream(2).next());
  await settle();
  line.says({ type: "error", id: 2, error: { code: "no" } });
  assert.equal(await second, "no");
  const third = codeOf(room.stream(3).next());
  await settle();
  line.ends(1006);
  assert.equal(await third, "connection_lost");
});

test("an answer in parts to call() is an error, and is cancelled", async (t) => {
  const { socket, line } = await opened(t);
  line.hello();
  const call = codeOf(socket.route().call(1));
  line.says({ type: "item", id: 1 }, "part");
  assert.equal(await call, "bad_frame");
  assert.deepEqual(line.last, { type: "cancel", id: 1 });
});

test("messages of the server reach the listeners of their type", async (t) => {
  const { socket, line } = await opened(t);
  line.hello();
  const seen: unknown[] = [];
  const off = socket.route().on("joined", (data) => seen.push(["joined", data.name]));
  socket.route().on("*", (data) => seen.push(["*", data]));
  line.says({ type: "notify" }, { type: "joined", name: "ada" });
  off();
  line.says({ type: "notify" }, { type: "joined", name: "bo" }).says({ type: "notify" }, 7);
  assert.deepEqual(seen, [
    ["joined", "ada"],
    ["*", { type: "joined", name: "ada" }],
    ["*", { type: "joined", name: "bo" }],
    ["*", 7],
  ]);
});

test("the server's calls are answered", async (t) => {
  const { socket, line } = await opened(t);
  line.hello();
  const room = socket.route();
  room.answer("confirm", async ({ what }) => ({ yes: what === "tea" }));
  room.answer("fail", () => {
    throw new Error("a secret");
  });
  room.answer("refuse", () => {
    throw new CallError({ code: "busy", message: "not now", data: 3 });
  });
  const calls: [string, object][] = [["confirm", { what: "tea" }], ["fail", {}], ["refuse", {}], ["unknown", {}]];
  calls.forEach(([type, rest], index) => line.says({ type: "call", id: index + 1 }, { type, ...rest }));
  await settle();
  const answers = [...line.sent].sort((one, other) => one.id! - other.id!);
  assert.deepEqual(answers, [
    { type: "reply", id: 1, data: { yes: true } },
    { type: "error", id: 2, error: { code: "internal", message: "the client failed" } },
    { type: "error", id: 3, error: { code: "busy", message: "not now", data: 3 } },
    { type: "error", id: 4, error: { code: "not_found", message: "this client answers no such calls" } },
  ]);
});

test("the server cancels its call", async (t) => {
  const { socket, line } = await opened(t);
  line.hello();
  const aborted = new Promise((resolve) => {
    socket.route().answer("*", (_, signal) => new Promise((_, reject) => {
      signal.addEventListener("abort", () => {
        resolve(signal.reason.code);
        reject(signal.reason);
      });
    }));
  });
  line.says({ type: "call", id: 1 }, {});
  await settle();
  line.says({ type: "cancel", id: 1 });
  assert.equal(await aborted, "cancelled");
});

test("bytes travel in both directions", async (t) => {
  const { socket, line } = await opened(t);
  line.hello();
  const call = socket.route().call<Uint8Array>(new Uint8Array([1, 2, 255]));
  assert.deepEqual(line.last!.data, new Uint8Array([1, 2, 255]));
  line.says({ type: "reply", id: 1 }, new Uint8Array([9, 0]));
  assert.deepEqual(await call, new Uint8Array([9, 0]));
  void socket.route().notify(new Uint8Array([5]).buffer);
  assert.deepEqual(line.last, { type: "notify", data: new Uint8Array([5]) });
});

test("what is no frame, and frames of other versions, are ignored", async (t) => {
  const { socket, line } = await opened(t);
  line.hello();
  const call = socket.route().call(1);
  const header = new Uint8Array([0, 0, 1, 0, 123]);
  for (const raw of ["", "nonsense", "null", "[]", "7", '{"type":7}', '{"no":"type"}', new ArrayBuffer(2), header.buffer]) {
    line.saysRaw(raw);
  }
  line.says({ type: "brand-new", id: 1 }).says({ type: "reply", id: 99 }, 1).says({ type: "credit", c: 7, n: 1 });
  line.says({ type: "reply", id: 1, added: "later" }, "still here");
  assert.equal(await call, "still here");
});
