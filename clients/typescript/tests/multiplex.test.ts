import assert from "node:assert/strict";
import { test } from "node:test";
import { codeOf, opened, pass, settle } from "./fake.js";

const SOCKET = { credit: undefined, routes: 100 };
const OPENED = { type: "opened", credit: 2, max: 1000, bytes: 4096, ping: 20 };

test("routes have calls, ids and ends of their own", async (t) => {
  const { socket, line } = await opened(t);
  const lobby = socket.route("/rooms/{room}", { room: "a/b c" }, { x: "1&2" });
  const early = lobby.call("early");
  line.hello(SOCKET);
  assert.deepEqual(line.sent.slice(), [{ type: "open", c: 1, path: "/rooms/a%2Fb%20c", query: "x=1%262", credit: 64 }]);
  line.says({ ...OPENED, c: 1 });
  const other = socket.route("/search");
  line.says({ ...OPENED, c: 2 });
  const found = other.call("x");
  assert.deepEqual(line.sent.slice(1).map(({ type, c, id }) => [type, c, id]), [["call", 1, 1], ["open", 2, undefined], ["call", 2, 1]]);
  line.says({ type: "reply", c: 2, id: 1 }, "found").says({ type: "reply", c: 1, id: 1 }, "ran");
  assert.deepEqual(await Promise.all([early, found]), ["ran", "found"]);
  lobby.on("*", (data) => assert.fail(`${data} came after the end`));
  lobby.close();
  assert.deepEqual(line.last, { type: "close", c: 1, code: 1000 });
  assert.equal(await codeOf(lobby.call(1)), "closed");
  line.says({ type: "notify", c: 1 }, "late").says({ type: "closed", c: 1, code: 1000, reason: "" });
  assert.deepEqual([lobby.status, other.status], ["closed", "open"]);
});

test("a parameter that is missing", async (t) => {
  const { socket } = await opened(t);
  assert.throws(() => socket.route("/rooms/{room}"), /\/rooms\/\{room\} needs the parameter 'room'/);
});

test("a denied route ends alone, or is opened again where its status allows it", async (t) => {
  const { socket, line } = await opened(t);
  line.hello(SOCKET);
  const staff = socket.route("/staff");
  const busy = socket.route("/busy");
  const call = codeOf(staff.call(1));
  line.says({ type: "denied", c: 1, status: 403, code: "permission_denied", error: { code: "permission_denied", message: "no" } });
  assert.equal(await call, "closed");
  assert.deepEqual([staff.error!.closeCode, staff.error!.error!.code, staff.status], [4403, "permission_denied", "closed"]);
  line.says({ type: "denied", c: 2, status: 429, code: "rate_limited", error: { code: "rate_limited" }, retry_after: 3 });
  await pass(t, 2900);
  assert.equal(line.sent.length, 2);
  await pass(t, 101);
  assert.deepEqual(line.last, { type: "open", c: 3, path: "/busy", query: "", credit: 64 });
  line.says({ ...OPENED, c: 3 });
  assert.equal(busy.status, "open");
  line.says({ type: "closed", c: 3, code: 1011, reason: "" });
  assert.equal(busy.status, "opening");
  await pass(t, 1100);
  assert.deepEqual([line.last!.type, line.last!.c], ["open", 4]);
});

test("401 for a route: a fresh token, then it is opened once more", async (t) => {
  let tokens = 0;
  const { socket, lines } = await opened(t, { token: () => `t${++tokens}` });
  await settle();
  const line = lines[0]!.hello(SOCKET);
  const route = socket.route("/mine");
  const denied = { type: "denied", status: 401, code: "not_authorized", error: { code: "not_authorized" } };
  line.says({ ...denied, c: 1 });
  await settle();
  assert.deepEqual(line.sent.at(-1), { type: "auth", token: "t2", id: 1 });
  line.says({ type: "reply", id: 1 }, {});
  await pass(t, 1);
  assert.deepEqual([line.last!.type, line.last!.c], ["open", 2]);
  line.says({ ...denied, c: 2 });
  assert.deepEqual([route.status, socket.status.state], ["closed", "open"]);
});

test("the client's credit is given back as its code takes what the server sends", async (t) => {
  const { socket, line } = await opened(t);
  line.hello(SOCKET);
  const channel = socket.channel("/events");
  line.says({ ...OPENED, c: 1 }).says({ type: "subscribed", c: 1, position: "e:0" });
  for (let n = 1; n <= 64; n++) line.says({ type: "event", c: 1, position: `e:${n}` }, n);
  await settle();
  assert.equal(line.sent.length, 1);
  for (let n = 1; n <= 33; n++) assert.equal(((await channel.next()).value as any).data, n);
  assert.deepEqual(line.sent.slice(1), [{ type: "credit", n: 32, c: 1 }]);
  const talking = socket.route("/talk");
  line.says({ ...OPENED, c: 2 });
  for (let n = 1; n <= 32; n++) line.says({ type: "notify", c: 2 }, n);
  assert.deepEqual(line.last, { type: "credit", n: 32, c: 2 });
  talking.close();
});

test("after a loss all routes are opened again, channels at their positions", async (t) => {
  const it = await opened(t);
  it.line.hello(SOCKET);
  const channel = it.socket.channel("/rooms/{room}/events", { room: "7" }, { query: { history: "5" } });
  const route = it.socket.route("/search");
  const closed = it.socket.route("/closed");
  closed.close();
  it.line.says({ ...OPENED, c: 1 }).says({ type: "subscribed", c: 1, position: "e:3" });
  const lost = codeOf(route.call(1));
  it.line.says({ ...OPENED, c: 2 });
  it.line.ends(1006);
  assert.equal(await Promise.race([lost, settle().then(() => "waits")]), "connection_lost");
  await pass(t, 1100);
  it.line.hello(SOCKET);
  assert.deepEqual(it.line.sent, [
    { type: "open", c: 1, path: "/rooms/7/events", query: "history=5&since=e%3A3", credit: 64 },
    { type: "open", c: 2, path: "/search", query: "", credit: 64 },
  ]);
  it.line.says({ ...OPENED, c: 1 }).says({ type: "event", c: 1, position: "e:4" }, "four");
  assert.equal(((await channel.next()).value as any).data, "four");
});

test("goaway: routes move one by one, and new ones wait for the new connection", async (t) => {
  const it = await opened(t);
  const old = it.line.hello(SOCKET);
  const room = it.socket.route("/room");
  const channel = it.socket.channel("/events");
  old.says({ ...OPENED, c: 1 }).says({ ...OPENED, c: 2 }).says({ type: "subscribed", c: 2, position: "e:0" });
  old.says({ type: "goaway", within: 30, retry_after: 1 });
  const late = it.socket.route("/late");
  assert.equal(old.last!.type, "open");
  assert.equal(old.last!.c, 2);
  await pass(t, 1001);
  it.line.hello(SOCKET);
  const call = room.call("x");
  assert.equal(old.last!.data, "x");
  old.says({ type: "event", c: 2, position: "e:1" }, 1);
  it.line.says({ ...OPENED, c: 1 }).says({ ...OPENED, c: 2 }).says({ ...OPENED, c: 3 });
  it.line.says({ type: "subscribed", c: 2, position: "e:0", recovered: true }).says({ type: "event", c: 2, position: "e:1" }, 1);
  assert.equal(((await channel.next()).value as any).data, 1);
  assert.equal(old.isClosed, false);
  old.says({ type: "reply", c: 1, id: 1 }, "answered");
  assert.equal(await call, "answered");
  assert.deepEqual([old.isClosed, late.status], [true, "open"]);
});

test("leaving the loop of a channel closes its route", async (t) => {
  const { socket, line } = await opened(t);
  line.hello(SOCKET);
  const reading = (async () => {
    for await (const event of socket.channel("/events")) return event.type;
  })();
  line.says({ ...OPENED, c: 1 }).says({ type: "subscribed", c: 1 }).says({ type: "present", c: 1, members: [] });
  assert.equal(await reading, "present");
  assert.deepEqual(line.last, { type: "close", c: 1, code: 1000 });
});

test("an address that carries no routes", async (t) => {
  const { socket, line } = await opened(t);
  const route = socket.route("/x");
  line.hello();
  assert.match(route.error!.message, /it is no Multiplex/);
  assert.equal(await codeOf(route.call(1)), "closed");
});

test("a plain route sends and receives messages", async (t) => {
  const { socket, line } = await opened(t);
  line.hello(SOCKET);
  const echo = socket.route("/echo");
  const seen: unknown[] = [];
  echo.on("*", (data) => seen.push(data));
  line.says({ type: "opened", c: 1, plain: true, credit: 16 });
  void echo.notify("hi");
  line.says({ type: "notify", c: 1 }, "hi back");
  assert.deepEqual([line.last, seen], [{ type: "notify", c: 1, data: "hi" }, ["hi back"]]);
});

test("route events", async (t) => {
  const { socket, line } = await opened(t);
  const seen: string[] = [];
  socket.on("route", (route) => seen.push(`${route.path} ${route.status}`));
  socket.route("/a");
  line.hello(SOCKET).says({ ...OPENED, c: 1 }).says({ type: "closed", c: 1, code: 1000, reason: "" });
  assert.deepEqual(seen, [" open", "/a open", "/a opening", "/a closed"]);
});
