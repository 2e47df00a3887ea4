import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { Channel, ChannelEvent } from "../src/index.js";
import { codeOf, fake, type Fake, opened, pass, settle } from "./fake.js";

/** Reads a channel in the background. */
function read(channel: Channel): { seen: ChannelEvent[]; texts(): unknown[]; done: Promise<string> } {
  const seen: ChannelEvent[] = [];
  const done = codeOf(
    (async () => {
      for await (const event of channel) seen.push(event);
    })(),
  );
  const text = (event: ChannelEvent) => ("data" in event ? event.data : event.type);
  return { seen, texts: () => seen.map(text), done };
}

function event(it: Fake, n: number, line = it.line): void {
  line.says({ type: "event", position: `e:${n}` }, n);
}

async function lose(t: TestContext, it: Fake, code = 1006): Promise<void> {
  it.line.ends(code);
  await pass(t, 1100);
}

test("a channel goes on at its last position, also before the first event", async (t) => {
  const it = await opened(t);
  const { seen, texts } = read(it.socket.channel());
  assert.equal(it.line.url, "ws://test/room");
  it.line.hello().says({ type: "subscribed", position: "e:4" });
  await lose(t, it);
  assert.equal(it.line.url, "ws://test/room?since=e%3A4");
  it.line.hello().says({ type: "subscribed", position: "e:4", recovered: true });
  event(it, 5);
  event(it, 6);
  await lose(t, it);
  assert.equal(it.line.url, "ws://test/room?since=e%3A6");
  await settle();
  assert.deepEqual(texts(), [5, 6]);
  assert.deepEqual(seen[0], { type: "event", data: 5, position: "e:5" });
});

test("a line that is cut in the replay goes on there", async (t) => {
  const it = fake(t);
  const { texts } = read(it.socket.channel(undefined, {}, { since: "e:1" }));
  await settle();
  assert.equal(it.line.url, "ws://test/room?since=e%3A1");
  it.line.hello().says({ type: "subscribed", position: "e:1", recovered: true });
  event(it, 2);
  await lose(t, it);
  assert.equal(it.line.url, "ws://test/room?since=e%3A2");
  it.line.hello().says({ type: "subscribed", position: "e:2", recovered: true });
  event(it, 3);
  await settle();
  assert.deepEqual(texts(), [2, 3]);
});

test("load() is called at the beginning and after a gap, before the events that follow", async (t) => {
  const it = await opened(t);
  const loaded: unknown[] = [];
  const load = async (position: string | undefined) => {
    loaded.push(position);
    return `state ${loaded.length}`;
  };
  const { seen, texts } = read(it.socket.channel(undefined, {}, { load }));
  it.line.hello().says({ type: "subscribed", position: "e:4" });
  event(it, 5);
  it.line.says({ type: "gap", reason: "broker_lost", position: "e:9" });
  event(it, 10);
  await settle();
  assert.deepEqual(texts(), ["state 1", 5, "gap", "state 2", 10]);
  assert.deepEqual(loaded, ["e:4", "e:9"]);
  assert.deepEqual(seen[0], { type: "loaded", data: "state 1", position: "e:4" });
});

test("a gap while load() runs: it is called again, after it", async (t) => {
  const it = await opened(t);
  const waiting: ((state: string) => void)[] = [];
  const load = () => new Promise<string>((resolve) => waiting.push(resolve));
  const { texts } = read(it.socket.channel(undefined, {}, { load }));
  it.line.hello().says({ type: "subscribed", position: "e:1" });
  await settle();
  event(it, 2);
  it.line.says({ type: "gap", reason: "slow", position: "e:7" });
  event(it, 8);
  waiting[0]!("old");
  await settle();
  assert.deepEqual([texts(), waiting.length], [["old", 2, "gap"], 2]);
  waiting[1]!("new");
  await settle();
  assert.deepEqual(texts(), ["old", 2, "gap", "new", 8]);
});

test("a load() that throws ends the loop with its error", async (t) => {
  const it = await opened(t);
  const load = () => Promise.reject(Object.assign(new Error("500"), { code: "http_500" }));
  const { done } = read(it.socket.channel(undefined, {}, { load }));
  it.line.hello().says({ type: "subscribed" });
  assert.equal(await done, "http_500");
});

test("a position that is gone: a gap, and the state again", async (t) => {
  const it = fake(t);
  const { texts } = read(it.socket.channel(undefined, {}, { since: "e:1", load: () => "state" }));
  await settle();
  it.line.accept().ends(4410);
  await pass(t, 1100);
  assert.equal(it.line.url, "ws://test/room");
  it.line.hello().says({ type: "subscribed", position: "e:90" });
  await settle();
  assert.deepEqual(texts(), ["gap", "state"]);
  it.line.ends(1006);
  await pass(t, 1100);
  it.line.hello().says({ type: "subscribed", position: "x:3", recovered: false });
  event(it, 4);
  await settle();
  assert.deepEqual(texts(), ["gap", "state", "gap", "state", 4]);
});

test("presence", async (t) => {
  const it = await opened(t);
  const channel = it.socket.channel();
  const { texts } = read(channel);
  const keys = () => [...channel.members.values()].map(({ key }) => key);
  it.line.hello().says({ type: "subscribed" });
  it.line.says({ type: "present", members: [{ key: "ada", ref: "1" }, { key: "bo", ref: "2" }] });
  it.line.says({ type: "joined", member: { key: "ada", ref: "3" } });
  it.line.says({ type: "left", member: { key: "bo", ref: "2" } });
  await settle();
  assert.deepEqual(keys(), ["ada", "ada"]);
  it.line.says({ type: "present", members: [{ key: "cy" }] });
  await settle();
  assert.deepEqual([keys(), texts()], [["cy"], ["present", "joined", "left", "present"]]);
});

test("goaway: the position is frozen, and nothing comes twice", async (t) => {
  const it = await opened(t);
  const { texts } = read(it.socket.channel());
  it.line.hello().says({ type: "subscribed", position: "e:0" });
  const old = it.line;
  event(it, 1);
  old.says({ type: "goaway", within: 30, retry_after: 1 });
  event(it, 2);
  await pass(t, 1001);
  assert.equal(it.line.url, "ws://test/room?since=e%3A2");
  event(it, 3, old);
  it.line.ends(1013, "retry-after=1"); // refused: tried again from the same position
  event(it, 4, old);
  await pass(t, 1001);
  assert.equal(it.line.url, "ws://test/room?since=e%3A2");
  it.line.hello().says({ type: "subscribed", position: "e:2", recovered: true });
  for (const n of [3, 4, 5]) event(it, n);
  event(it, 5, old);
  await settle();
  assert.deepEqual(texts(), [1, 2, 3, 4, 5]);
  assert.ok(old.isClosed);
});

test("a loop that is too slow on a connection without credit: a gap, and the state again", async (t) => {
  const it = fake(t);
  const channel = it.socket.channel(undefined, {}, { since: "e:0", load: () => "state" });
  await settle();
  it.line.hello().says({ type: "subscribed", position: "e:0", recovered: true });
  for (let n = 1; n <= 1500; n++) event(it, n);
  const { seen } = read(channel);
  await settle();
  await settle();
  for (let turn = 0; turn < 500 && seen.at(-1)?.type !== "loaded"; turn++) await settle();
  assert.deepEqual([seen.length, seen[1000]!.type, (seen[1000] as any).reason, seen[1001]!.type], [1002, "gap", "client_too_slow", "loaded"]);
  event(it, 1501);
  await settle();
  assert.equal((seen.at(-1) as any).data, 1501);
});

test("the end of a channel", async (t) => {
  const it = await opened(t);
  const { done } = read(it.socket.channel());
  assert.throws(() => it.socket.channel(), /events\(\) was called before/);
  it.line.hello().ends(1000);
  assert.equal(await done, "none");
});

test("a refused channel throws", async (t) => {
  const it = await opened(t);
  const { done } = read(it.socket.channel());
  it.line.accept().ends(4403, "not yours");
  assert.equal(await done, "closed");
});
