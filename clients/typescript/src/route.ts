/** One route: calls, notifies and answers in both directions. It lives as long as its user wants, over many connections. */
import { Channel, type ChannelOptions } from "./channel.js";
import { CallError, Closed, QueueFull, TelexError } from "./errors.js";
import type { Frame } from "./frames.js";
import { type CallOptions, Outgoing, readReply } from "./outgoing.js";
import type { Session } from "./session.js";

export type RouteStatus = "opening" | "open" | "closed";
export type Answer = (data: any, signal: AbortSignal) => unknown;

/** What a route needs of its socket. */
export interface RouteOwner {
  readonly _callTimeout: number;
  /** The largest `data` that the server takes. */
  readonly _max: number;
  /** Counts a message that waits; false if too many wait already. */
  _count(n: 1 | -1, size: number): boolean;
  _emit(event: "route", route: Route): void;
  _closeRoute(route: Route): void;
}

/** The parts of an answer that are sent without `more`. */
const PARTS = 16;

export class Route {
  status: RouteStatus = "opening";
  /** Why the route is closed. */
  error: Closed | undefined;
  /** Where calls go. */
  _session: Session | undefined;
  /** The one that will be open soon. */
  _next: Session | undefined;
  _channel: Channel<any, any> | undefined;
  _attempt = 0;
  _isRefreshed = false;
  _timer: ReturnType<typeof setTimeout> | undefined;
  readonly #queue: Outgoing[] = [];
  readonly #listeners = new Map<string, Set<(data: any) => void>>();
  readonly #answers = new Map<string, Answer>();

  constructor(readonly _owner: RouteOwner, readonly path: string, readonly _query: Record<string, string>) {}

  /** The query, with the position to go on from. */
  get _search(): string {
    const since = this._channel?._since;
    return new URLSearchParams({ ...this._query, ...(since !== undefined && { since }) }).toString();
  }

  // -- to the server

  /** Calls the server; resolves to its answer, or rejects with {@link CallError} or {@link ConnectionLost}. */
  call<T = unknown>(data?: unknown, options: CallOptions = {}): Promise<T> {
    return new Promise((resolve, reject) => {
      const outgoing: Outgoing = this.#begin(true, data, options, readReply(() => outgoing, resolve, reject), reject);
    });
  }

  /** Sends a message that wants no answer; resolves when it was sent. One that is under way at a disconnect is lost. */
  notify(data?: unknown, options: CallOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#begin(false, data, { timeout: Infinity, ...options }, () => resolve(), reject);
    });
  }

  /** The parts of an answer, as they come. Leaving the loop cancels the call. */
  async *stream<T = unknown>(data?: unknown, options: CallOptions = {}): AsyncGenerator<T, void, undefined> {
    const frames: Frame[] = [];
    let failed: { error: unknown } | undefined;
    let wake = () => {};
    let taken = 0;
    const outgoing = this.#begin(
      true,
      data,
      options,
      (frame) => {
        outgoing._begun();
        frames.push(frame!);
        wake();
      },
      (error) => {
        failed = { error };
        wake();
      },
    );
    try {
      for (;;) {
        while (!frames.length && !failed) await new Promise<void>((resolve) => (wake = resolve));
        const frame = frames.shift();
        if (!frame) throw failed!.error;
        if (frame.type === "error") throw new CallError(frame.error!);
        if (frame.type !== "item") return; // an answer in one part has no items
        yield frame.data as T;
        if (++taken % (PARTS / 2) === 0) outgoing._more(PARTS / 2);
      }
    } finally {
      outgoing._giveUp(undefined);
    }
  }

  #begin(
    isCall: boolean,
    data: unknown,
    options: CallOptions,
    onFrame: (frame?: Frame) => void,
    onFail: (error: unknown) => void,
  ): Outgoing {
    const outgoing = new Outgoing(isCall, data, options, options.timeout ?? this._owner._callTimeout, this, onFrame, onFail);
    if (outgoing._isDone) return outgoing;
    if (this.error) outgoing._fail(this.error);
    else if (outgoing._size > this._owner._max) outgoing._fail(new TelexError("too_large", "the server takes less data"));
    else if (!this.#queue.length && this._session?._hasRoom(outgoing._size)) this._session._start(outgoing);
    else if (this._owner._count(1, outgoing._size)) this.#queue.push(outgoing);
    else outgoing._fail(new QueueFull());
    return outgoing;
  }

  /** Sends what waits, as far as there is credit. */
  _flush(): void {
    while (this.#queue.length && this._session?._hasRoom(this.#queue[0]!._size)) {
      const outgoing = this.#queue.shift()!;
      this._owner._count(-1, outgoing._size);
      this._session._start(outgoing);
    }
  }

  /** A call with a key whose connection was lost: it is sent again, before those that wait. */
  _again(outgoing: Outgoing): void {
    if (this.error) return outgoing._fail(this.error);
    this._owner._count(1, outgoing._size);
    this.#queue.unshift(outgoing);
  }

  _forget(outgoing: Outgoing): void {
    const index = this.#queue.indexOf(outgoing);
    if (index < 0) return;
    this.#queue.splice(index, 1);
    this._owner._count(-1, outgoing._size);
  }

  // -- from the server

  /** Calls `listener` with each message of this `type` (`"*"`: with all). Returns the function that ends that. */
  on<T = any>(type: string, listener: (data: T) => void): () => void {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /** Answers the server's calls of this `type` (`"*"`: all others) with what `answer` returns. */
  answer(type: string, answer: Answer): void {
    this.#answers.set(type, answer);
  }

  _emit(data: any): void {
    for (const type of [data?.type, "*"]) this.#listeners.get(type)?.forEach((listener) => listener(data));
  }

  _answer(data: any, signal: AbortSignal): unknown {
    const answer = this.#answers.get(data?.type) ?? this.#answers.get("*");
    if (!answer) throw new CallError({ code: "not_found", message: "this client answers no such calls" });
    return answer(data, signal);
  }

  /** The events of the channel at this route, for one loop. */
  events<T = unknown, S = unknown>(options: ChannelOptions<S> = {}): Channel<T, S> {
    if (this._channel) throw new TelexError("conflict", "events() was called before: one loop takes the events");
    const channel = new Channel<T, S>(this, options);
    this._channel = channel;
    if (this.error) channel._finish(this.error);
    const session = this._next ?? this._session;
    if (session) channel._follow(session);
    return channel;
  }

  close(): void {
    this._owner._closeRoute(this);
  }

  // -- the life of a route

  /** `session` is open: calls go there. */
  _attach(session: Session): void {
    const old = this._session;
    this._session = session;
    this._next = undefined;
    this._channel?._follow(session);
    this.#become("open");
    this._flush();
    old?._connection._settle();
  }

  _detach(session: Session): void {
    if (this._next === session) this._next = undefined;
    if (this._session !== session) return;
    this._session = undefined;
    if (!this.error) this.#become("opening");
  }

  /** Not opened again. */
  _finish(error: Closed): void {
    if (this.error) return;
    this.error = error;
    clearTimeout(this._timer);
    for (const outgoing of this.#queue.splice(0)) {
      this._owner._count(-1, outgoing._size);
      outgoing._fail(error);
    }
    this._channel?._finish(error.closeCode === 1000 ? undefined : error);
    this.#become("closed");
  }

  #become(status: RouteStatus): void {
    if (this.status === status) return;
    this.status = status;
    this._owner._emit("route", this);
  }
}
