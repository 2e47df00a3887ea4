/** One route on one connection: the ids of its calls, and the credit in both directions. */
import type { Connection } from "./connection.js";
import { CallError, ConnectionLost, type ErrorBody, TelexError } from "./errors.js";
import { type Body, type Frame, toBody } from "./frames.js";
import type { Outgoing } from "./outgoing.js";
import type { Route } from "./route.js";

/** Messages that the server may send on a route before the client gives credit for more. */
export const PUSH_CREDIT = 64;
const PUSHES = ["notify", "call", "event", "gap", "present", "joined", "left"];

/** Something that takes the frames of an answer. */
interface Asked {
  readonly _size: number;
  readonly _isFree?: boolean;
  readonly _isDone?: boolean;
  _take(frame: Frame): void;
  _lose(): void;
}

export class Session {
  _isOpen = false;
  #isOver = false;
  #credit = 0;
  #bytes = Infinity;
  #lastId = 0;
  #taken = 0;
  readonly #asked = new Map<number, Asked>();
  readonly #notifies: number[] = [];
  readonly #questions = new Map<number, AbortController>();

  constructor(readonly _connection: Connection, readonly _route: Route, readonly _c?: number) {}

  /** `hello` or `opened` has come. */
  _opened(frame: Frame): void {
    this._isOpen = true;
    this.#credit = frame.credit ?? 0;
    if (frame.bytes !== undefined) this.#bytes = this._c ? frame.bytes / 2 : frame.bytes;
  }

  /** Whether the route has no other session yet, the server waits for an answer, or we do. */
  get _isBusy(): boolean {
    if (this._route._session === this || this.#questions.size) return true;
    return [...this.#asked.values()].some((each) => !each._isDone);
  }

  _send(head: object, body?: Body): void {
    this._connection._send(this._c ? { ...head, c: this._c } : head, body);
  }

  _hasRoom(size: number): boolean {
    const isIdle = !this.#asked.size && !this.#notifies.length;
    return this._isOpen && this.#credit > 0 && (size <= this.#bytes || isIdle);
  }

  /** Sends a call or notify, which {@link _hasRoom} has allowed. */
  _start(outgoing: Outgoing): void {
    this.#credit--;
    this.#bytes -= outgoing._size;
    if (outgoing._isCall) {
      this.#ask(outgoing, outgoing._head(), outgoing._body);
    } else {
      this.#notifies.push(outgoing._size);
      this._send({ type: "notify" }, outgoing._body);
    }
    outgoing._sent(this, this.#lastId);
  }

  /** Sends a token; `take` gets the answer. */
  _auth(token: string, take: (frame: Frame) => void): void {
    this.#ask({ _size: 0, _isFree: true, _take: take, _lose: () => {} }, { type: "auth", token });
  }

  #ask(asked: Asked, head: { type: string; token?: string }, body?: Body): void {
    const id = ++this.#lastId;
    this.#asked.set(id, asked);
    this._send({ ...head, id }, body);
  }

  /** The application has taken one message of the server. */
  _took(): void {
    if (this._c && ++this.#taken % (PUSH_CREDIT / 2) === 0) this._send({ type: "credit", n: PUSH_CREDIT / 2 });
  }

  _take(frame: Frame): void {
    if (this.#isOver) return;
    const route = this._route;
    switch (frame.type) {
      case "item":
        this.#asked.get(frame.id!)?._take(frame);
        break;
      case "reply":
      case "end":
      case "error":
        this.#answered(frame);
        break;
      case "credit":
        this.#credit += frame.n!;
        for (const size of this.#notifies.splice(0, frame.n)) this.#bytes += size;
        route._flush();
        break;
      case "notify":
        this._took();
        route._emit(frame.data);
        break;
      case "call":
        this._took();
        void this.#answer(frame);
        break;
      case "cancel":
        this.#questions.get(frame.id!)?.abort(new TelexError("cancelled", "the server does not wait any more"));
        break;
      default:
        if (!route._channel?._take(frame, this) && PUSHES.includes(frame.type)) this._took();
    }
  }

  #answered(frame: Frame): void {
    const asked = this.#asked.get(frame.id!);
    if (!asked) return;
    this.#asked.delete(frame.id!);
    if (!asked._isFree) {
      this.#credit++;
      this.#bytes += asked._size;
    }
    asked._take(frame);
    this._route._flush();
    this._connection._settle();
  }

  async #answer({ id, data }: Frame): Promise<void> {
    const aborting = new AbortController();
    this.#questions.set(id!, aborting);
    try {
      const body = toBody(await this._route._answer(data, aborting.signal));
      this._send({ type: "reply", id }, body);
    } catch (error) {
      this._send({ type: "error", id, error: bodyOf(error) });
    }
    this.#questions.delete(id!);
    this._connection._settle();
  }

  /** The connection or route has ended. */
  _end(): void {
    this.#isOver = true;
    this._isOpen = false;
    for (const each of this.#questions.values()) each.abort(new ConnectionLost());
    for (const each of this.#asked.values()) each._lose();
    this.#asked.clear();
  }
}

/** What the server learns of an exception: all of a {@link CallError}, nothing of others. */
function bodyOf(error: unknown): ErrorBody {
  if (!(error instanceof CallError)) return { code: "internal", message: "the client failed" };
  return { code: error.code, message: error.message, data: error.data };
}
