/** A WebSocket whose server is the test, and a clock that the test moves. */
import { type TestContext } from "node:test";
import { connect, type Options, type Socket } from "../src/index.js";
import { decode, encode, type Frame, toBody } from "../src/frames.js";

export class Line {
  binaryType = "";
  protocol = "";
  onopen: ((event: any) => void) | null = null;
  onmessage: ((event: any) => void) | null = null;
  onclose: ((event: any) => void) | null = null;
  onerror: ((event: any) => void) | null = null;
  /** What the client has sent. */
  readonly sent: Frame[] = [];
  isClosed = false;

  constructor(readonly url: string, readonly protocols: string[]) {}

  send(data: string | Uint8Array<ArrayBuffer>): void {
    this.sent.push(decode(typeof data === "string" ? data : data.buffer)!);
  }

  close(): void {
    this.isClosed = true;
  }

  /** The server accepts, and says hello. */
  hello(fields: object = {}): this {
    this.accept();
    return this.says({ type: "hello", session: "s", ping: 20, max: 1000, credit: 4, bytes: 4096, features: [], ...fields });
  }

  accept(protocol = "telex.v1"): this {
    this.protocol = protocol;
    this.onopen?.({});
    return this;
  }

  says(frame: object, data?: unknown): this {
    const message = encode(frame, data === undefined ? undefined : toBody(data));
    return this.saysRaw(typeof message === "string" ? message : message.buffer);
  }

  saysRaw(data: unknown): this {
    this.onmessage?.({ data });
    return this;
  }

  ends(code: number, reason = ""): void {
    this.onclose?.({ code, reason });
  }

  /** The last frame that the client has sent. */
  get last(): Frame | undefined {
    return this.sent.at(-1);
  }

  types(): string[] {
    return this.sent.map((frame) => frame.type);
  }
}

export interface Fake {
  readonly socket: Socket;
  readonly lines: Line[];
  /** The newest connection. */
  readonly line: Line;
  readonly states: string[];
  /** The machine sleeps: the time goes on, and timers fire late. */
  sleep(ms: number): void;
}

/** Opens a socket whose server is the test. Time stands still until {@link pass} moves it. */
export function fake(t: TestContext, options: Options = {}, url = "ws://test/room"): Fake {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  let slept = 0;
  t.mock.method(performance, "now", () => Date.now() + slept);
  const lines: Line[] = [];
  class Connecting extends Line {
    constructor(url: string, protocols: string[]) {
      super(url, protocols);
      lines.push(this);
    }
  }
  const socket = connect(url, { WebSocket: Connecting, ...options });
  const states: string[] = [socket.status.state];
  socket.on("status", (status) => states.push(status.state));
  t.after(() => socket.close());
  return {
    socket,
    lines,
    states,
    sleep: (ms) => (slept += ms),
    get line() {
      return lines.at(-1)!;
    },
  };
}

/** The same, when the client has opened its first connection. */
export async function opened(t: TestContext, options: Options = {}, url?: string): Promise<Fake> {
  const it = fake(t, options, url);
  await settle();
  return it;
}

/** Lets everything happen that waits for no time. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Lets `ms` pass. */
export async function pass(t: TestContext, ms: number): Promise<void> {
  await settle();
  t.mock.timers.tick(ms);
  await settle();
}

/** The code of the error that a promise is rejected with. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
  return "none";
}

/** Gives the client a window and a tab. */
export function browser(t: TestContext): { online(): void; visible(): void; document: { hidden: boolean } } {
  const window = new EventTarget();
  const document = Object.assign(new EventTarget(), { hidden: false });
  const globals: Record<string, unknown> = {
    document,
    addEventListener: window.addEventListener.bind(window),
    removeEventListener: window.removeEventListener.bind(window),
  };
  Object.assign(globalThis, globals);
  t.after(() => {
    for (const name in globals) delete (globalThis as Record<string, unknown>)[name];
  });
  return {
    document,
    online: () => window.dispatchEvent(new Event("online")),
    visible: () => document.dispatchEvent(new Event("visibilitychange")),
  };
}
