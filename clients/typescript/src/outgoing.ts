/** A call or notify from its beginning to its end: it waits, is sent, and is answered, lost or given up. */
import { later } from "./back-off.js";
import { CallError, Closed, ConnectionLost } from "./errors.js";
import { type Body, type Frame, sizeOf, toBody } from "./frames.js";
import type { Session } from "./session.js";

export interface CallOptions {
  /** Milliseconds until the call is rejected with `timeout`, the wait for a connection included; `Infinity` for none. */
  timeout?: number;
  /** Cancels the call. */
  signal?: AbortSignal;
  /** Makes the call safe to repeat: after a lost connection it is sent again. The server's handler must allow it. */
  key?: string;
  meta?: Record<string, unknown>;
}

/** Where a call waits until it can be sent. */
interface Queue {
  _again(outgoing: Outgoing): void;
  _forget(outgoing: Outgoing): void;
}

export class Outgoing {
  _isDone = false;
  readonly _body: Body;
  readonly _size: number;
  #session: Session | undefined;
  #id = 0;
  #deadline: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #options: CallOptions;
  readonly #abort = () => this._giveUp(this.#options.signal!.reason);

  /** `onFrame` gets the frames of the answer (for a notify: nothing when it was sent), `onFail` why there is none. */
  constructor(
    readonly _isCall: boolean,
    data: unknown,
    options: CallOptions,
    timeout: number,
    readonly _queue: Queue,
    readonly _onFrame: (frame?: Frame) => void,
    readonly _onFail: (error: unknown) => void,
  ) {
    this._body = toBody(data);
    this._size = sizeOf(this._body);
    this.#options = options;
    this.#deadline = performance.now() + timeout;
    this.#timer = later(timeout, () => {
      this._giveUp(new CallError({ code: "timeout", message: `no answer came within ${timeout} ms` }));
    });
    if (options.signal?.aborted) this.#abort();
    options.signal?.addEventListener("abort", this.#abort);
  }

  _head(): { type: string } {
    const { key, meta } = this.#options;
    const left = this.#deadline - performance.now();
    return { type: "call", ...(left < Infinity && { timeout: Math.max(1, Math.ceil(left)) / 1000 }), key, meta } as { type: string };
  }

  _sent(session: Session, id: number): void {
    this.#session = session;
    this.#id = id;
    if (!this._isCall) {
      this.#finish();
      this._onFrame();
    }
  }

  /** The first part of an answer has come: its end may take any time. */
  _begun(): void {
    clearTimeout(this.#timer);
  }

  _more(n: number): void {
    this.#session?._send({ type: "more", id: this.#id, n });
  }

  _take(frame: Frame): void {
    if (this._isDone) return;
    if (frame.type !== "item") this.#finish();
    this._onFrame(frame);
  }

  /** The connection has ended. */
  _lose(): void {
    if (this._isDone) return;
    this.#session = undefined;
    if (this.#options.key) this._queue._again(this);
    else this._fail(new ConnectionLost());
  }

  /** Nobody waits any more: tells the server, which still sends one final frame. */
  _giveUp(error: unknown): void {
    if (this._isDone) return;
    if (this.#session) this.#session._send({ type: "cancel", id: this.#id });
    else this._queue._forget(this);
    this._fail(error);
  }

  _fail(error: unknown): void {
    if (this._isDone) return;
    this.#finish();
    this._onFail(error);
  }

  #finish(): void {
    this._isDone = true;
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener("abort", this.#abort);
  }
}

/** The answer of a call in one part. */
export function readReply<T>(
  outgoing: () => Outgoing,
  resolve: (value: T) => void,
  reject: (error: unknown) => void,
): (frame?: Frame) => void {
  return (frame) => {
    if (frame?.type === "reply") resolve(frame.data as T);
    else if (frame?.type === "error") reject(new CallError(frame.error!));
    else outgoing()._giveUp(new CallError({ code: "bad_frame", message: "the answer has parts: use stream()" }));
  };
}

export { Closed };
