/** One WebSocket: frames in and out, and the check whether the line is alive. */
import { later } from "./back-off.js";
import type { ErrorBody } from "./errors.js";
import { type Body, decode, encode, type Frame } from "./frames.js";
import type { Session } from "./session.js";

/** The part of the WebSocket interface that this package uses. */
export interface WebSocketLike {
  binaryType: string;
  readonly protocol: string;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}
export type WebSocketClass = new (url: string, protocols: string[]) => WebSocketLike;

export const SUBPROTOCOL = "telex.v1";
/** How long an answer to `ping` may take. */
const PATIENCE = 10_000;

/** What a connection tells its socket. */
export interface ConnectionOwner {
  _onFrame(connection: Connection, frame: Frame): void;
  _onEnd(connection: Connection, code: number, reason: string): void;
}

export class Connection {
  _hello: Frame | undefined;
  /** The last `error` frame about the connection: why it will be closed. */
  _error: ErrorBody | undefined;
  /** The server has sent `goaway`, and the milliseconds that it leaves. */
  _goesAway: number | undefined;
  _root!: Session;
  readonly _sessions = new Map<number, Session>();
  _lastRoute = 0;
  /** Messages that were no frames. */
  _ignored = 0;
  #socket: WebSocketLike;
  #isOpen = false;
  #isRetired = false;
  #heard = 0;
  #isAnswered = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #probe: ReturnType<typeof setTimeout> | undefined;

  constructor(WebSocket: WebSocketClass, url: string, protocols: string[], readonly _owner: ConnectionOwner) {
    const socket = (this.#socket = new WebSocket(url, protocols));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#isOpen = true;
      if (socket.protocol !== SUBPROTOCOL) this._end(4426, `the server does not speak ${SUBPROTOCOL}`);
    };
    socket.onmessage = ({ data }) => {
      this.#heard = performance.now();
      this.#isAnswered = true;
      const frame = decode(data);
      if (!frame) this._ignored++;
      else if (frame.type === "ping") this._send({ type: "pong" });
      else _owner._onFrame(this, frame);
    };
    socket.onclose = ({ code, reason }) => this._end(code, reason, false);
    socket.onerror = () => {}; // `onclose` follows
  }

  _send(head: object, body?: Body): void {
    if (this.#isOpen) this.#socket.send(encode(head, body));
  }

  /** Ends the connection here and now: the closing handshake of a dead line would last for minutes. */
  _end(code: number, reason: string, close = true): void {
    const socket = this.#socket;
    if (!socket.onclose) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    this.#isOpen = false;
    clearTimeout(this.#timer);
    clearTimeout(this.#probe);
    if (close) socket.close(1000);
    this._owner._onEnd(this, code, reason);
  }

  /** Watches the line: after `ms` of silence it is probed. */
  _watch(ms: number): void {
    const wait = (left: number) => {
      this.#timer = later(left, () => {
        const rest = this.#heard + ms - performance.now();
        if (rest <= 0) this._probe();
        wait(rest > 0 ? rest : ms);
      });
    };
    this.#heard = performance.now();
    wait(ms);
  }

  /** Ends a line that stays silent after a `ping`. A timer that fires late, after a sleep, ends nothing by itself. */
  _probe(): void {
    if (this.#probe || !this._hello) return;
    this.#isAnswered = false;
    this._send({ type: "ping" });
    this.#probe = later(PATIENCE, () => {
      this.#probe = undefined;
      if (!this.#isAnswered) this._end(1006, "the line is dead");
    });
  }

  /** Another connection has taken over: closes this one once its calls are answered. */
  _retire(): void {
    this.#isRetired = true;
    clearTimeout(this.#timer);
    this.#timer = later(this._goesAway ?? 0, () => this._end(1000, ""));
    this._settle();
  }

  /** A call was answered. */
  _settle(): void {
    if (this.#isRetired && ![this._root, ...this._sessions.values()].some((each) => each._isBusy)) {
      this._end(1000, "");
    }
  }
}
