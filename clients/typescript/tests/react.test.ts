import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { createElement } from "react";
import { act, create, type ReactTestRenderer } from "react-test-renderer";
import { useCall, useChannel, useStatus } from "../src/react.js";
import { opened, pass, settle } from "./fake.js";

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });
mock.method(console, "error", (text: string) => assert.match(text, /react-test-renderer is deprecated|ExperimentalWarning/));

async function render(component: (props: any) => unknown, props: object): Promise<ReactTestRenderer> {
  let rendered!: ReactTestRenderer;
  const element = createElement(component as any, props);
  await act(async () => {
    rendered = create(element);
  });
  return rendered;
}

test("useStatus", async (t) => {
  const it = await opened(t);
  const page = await render(() => useStatus(it.socket).state, {});
  assert.equal(page.toJSON(), "connecting");
  await act(async () => void it.line.hello());
  assert.equal(page.toJSON(), "open");
  await act(async () => it.line.ends(1006));
  assert.equal(page.toJSON(), "waiting");
  await act(async () => page.unmount());
});

test("useChannel", async (t) => {
  const it = await opened(t);
  it.line.hello({ routes: 100 });
  const Room = ({ room }: { room: string }) => {
    const { state, members, error } = useChannel<string, string>(it.socket, "/rooms/{room}", {
      params: { room },
      initial: "nothing",
      load: () => `state of ${room}`,
      reduce: (text, event) => (event.type === "event" ? `${text}, ${event.data}` : text),
    });
    return `${state} | ${members.map(({ key }) => key)} | ${(error as any)?.code ?? ""}`;
  };
  const page = await render(Room, { room: "a" });
  assert.equal(page.toJSON(), "nothing |  | ");
  await act(async () => {
    it.line.says({ type: "opened", c: 1, credit: 4 }).says({ type: "subscribed", c: 1, position: "e:1" });
    it.line.says({ type: "present", c: 1, members: [{ key: "ada" }] });
    it.line.says({ type: "event", c: 1, position: "e:2" }, "hi");
    await settle();
  });
  assert.equal(page.toJSON(), "state of a, hi | ada | ");
  await act(async () => page.update(createElement(Room, { room: "b" })));
  assert.deepEqual(it.line.sent.slice(-2).map(({ type, c }) => [type, c]), [["close", 1], ["open", 2]]);
  assert.equal(page.toJSON(), "nothing |  | ");
  await act(async () => {
    it.line.says({ type: "denied", c: 2, status: 403, error: { code: "permission_denied" } });
    await settle();
  });
  assert.equal(page.toJSON(), "nothing |  | closed");
  await act(async () => page.unmount());
});

test("useCall", async (t) => {
  const it = await opened(t);
  it.line.hello();
  let call!: (data: unknown) => Promise<unknown>;
  const page = await render(() => {
    const [run, { isPending, data, error }] = useCall<string>(it.socket.route());
    call = run;
    return `${isPending} ${data} ${(error as any)?.code}`;
  }, {});
  await act(async () => void call("first"));
  assert.equal(page.toJSON(), "true undefined undefined");
  await act(async () => void call("second"));
  assert.deepEqual(it.line.types(), ["call", "cancel", "call"]);
  await act(async () => {
    it.line.says({ type: "error", id: 1, error: { code: "cancelled" } }).says({ type: "reply", id: 2 }, "two");
    await settle();
  });
  assert.equal(page.toJSON(), "false two undefined");
  await act(async () => void call("third"));
  await act(async () => {
    await pass(t, 10_001);
  });
  assert.equal(page.toJSON(), "false two timeout");
  await act(async () => void call("fourth"));
  await act(async () => page.unmount());
  assert.equal(it.line.last!.type, "cancel");
});
