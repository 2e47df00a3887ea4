/** The events of a channel: they go on where a lost connection ended, and a gap loads the state again. */
import type { Frame, Member } from "./frames.js";
import type { Route } from "./route.js";
import type { Session } from "./session.js";

export interface ChannelOptions<S> {
  /** The position to begin after: {@link Channel.position} of an earlier page. */
  since?: string;
  /**
   * Loads the state: at the beginning (without `since`), and after a gap. The events that follow are those after
   * `position`; the state may contain some of them already.
   */
  load?: (position: string | undefined) => S | PromiseLike<S>;
}

export type ChannelEvent<T = unknown, S = unknown> =
  | { type: "event"; data: T; position?: string }
  | { type: "gap"; reason: string; position?: string }
  | { type: "loaded"; data: S; position?: string }
  | { type: "present"; members: Member[] }
  | { type: "joined"; member: Member }
  | { type: "left"; member: Member };

/** Events that may wait on a connection without credit; then those that follow are dropped, and a gap says so. */
const MOST = 1000;

type Item = [frame: Frame, session?: Session];

export class Channel<T = unknown, S = unknown> implements AsyncIterableIterator<ChannelEvent<T, S>> {
  /** The position of the last event that the loop got: store it to go on later with `since`. */
  position: string | undefined;
  /** Who is present, by key and ref, as the loop has seen it. */
  readonly members = new Map<string, Member>();
  /** The position to come back with: that of the last event that was received. */
  _since: string | undefined;
  /** The session whose events are taken; those of others are old. */
  #source: Session | undefined;
  #options: ChannelOptions<S>;
  #needsLoad: boolean;
  #overflowed = false;
  #items: Item[] = [];
  #wake: (() => void)[] = [];
  #end: { error?: unknown } | undefined;

  constructor(readonly route: Route, options: ChannelOptions<S>) {
    this.#options = options;
    this._since = this.position = options.since;
    this.#needsLoad = options.since === undefined;
  }

  /** From now on `session` continues the channel. One without a position does so when it is open. */
  _follow(session: Session): void {
    if (this._since !== undefined || session._isOpen) this.#source = session;
  }

  /** Takes a frame of a channel; false for other frames, and those of an old session. */
  _take(frame: Frame, session: Session): boolean {
    if (this.#end || session !== this.#source) return false;
    switch (frame.type) {
      case "subscribed":
        if (frame.recovered === false) this._gap("not_recovered", frame.position);
        this._since = frame.position ?? this._since;
        if (this.#needsLoad) this.#load();
        break;
      case "event":
        this._since = frame.position ?? this._since;
        this.#put([frame, session]);
        break;
      case "gap":
        this._since = frame.position ?? this._since;
        this.#put([frame, session]);
        this.#load();
        break;
      case "present":
      case "joined":
      case "left":
        this.#put([frame, session]);
        break;
      default:
        return false;
    }
    return true;
  }

  /** Events are missing here. */
  _gap(reason: string, position?: string): void {
    this._since = position;
    this.#put([{ type: "gap", reason, position } as Frame]);
    this.#needsLoad = true;
  }

  #load(): void {
    this.#needsLoad = false;
    if (this.#options.load) this.#put([{ type: "loaded", position: this._since } as Frame]);
  }

  #put(item: Item): void {
    if (this.#items.length >= MOST && item[0].type === "event") {
      item[1]?._took();
      if (this.#overflowed) return;
      this.#overflowed = true;
      item = [{ type: "gap", reason: "client_too_slow", position: this._since } as Frame];
    }
    this.#items.push(item);
    this.#wake.shift()?.();
  }

  /** The next event; `done` once the route was closed with 1000, a rejection if it was closed with another code. */
  async next(): Promise<IteratorResult<ChannelEvent<T, S>>> {
    while (!this.#items.length && !this.#end) await new Promise<void>((resolve) => this.#wake.push(resolve));
    const item = this.#items.shift();
    if (!item) return this.#over();
    const [frame, session] = item;
    session?._took();
    const value = { ...frame } as ChannelEvent<T, S> & Frame;
    delete value.c;
    if (value.type === "loaded") value.data = await this.#options.load!(frame.position);
    if (this.#overflowed && !this.#items.length) {
      this.#overflowed = false;
      this.#load();
    }
    this.#note(value);
    return { done: false, value };
  }

  #over(): IteratorResult<never> {
    const error = this.#end!.error;
    this.#end = {};
    if (error) throw error;
    return { done: true, value: undefined };
  }

  #note(value: ChannelEvent<T, S>): void {
    const key = ({ key, ref }: Member) => `${key} ${ref ?? ""}`;
    switch (value.type) {
      case "present":
        this.members.clear();
        for (const each of value.members) this.members.set(key(each), each);
        break;
      case "joined":
        this.members.set(key(value.member), value.member);
        break;
      case "left":
        this.members.delete(key(value.member));
        break;
      default:
        this.position = value.position ?? this.position;
    }
  }

  /** Leaving the loop closes the route. */
  async return(): Promise<IteratorResult<never>> {
    this._finish();
    this.#items = [];
    this.route.close();
    return { done: true, value: undefined };
  }

  _finish(error?: unknown): void {
    this.#end ??= { error };
    for (const wake of this.#wake.splice(0)) wake();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
