/** The socket: connects, comes back after a loss, hands over to a new connection before a server stops. */
import { hint, later, LONGEST, pause, within } from "./back-off.js";
import type { Channel, ChannelOptions } from "./channel.js";
import { afterClose } from "./close-codes.js";
import { Connection, SUBPROTOCOL, type WebSocketClass } from "./connection.js";
import { Closed, type ErrorBody, TelexError } from "./errors.js";
import type { Frame } from "./frames.js";
import { Route } from "./route.js";
import { PUSH_CREDIT, Session } from "./session.js";

export interface Options {
  /** Called at each attempt, and when 80 % of the token's time have passed. */
  token?: () => string | PromiseLike<string>;
  /** Where the token travels: as an offered subprotocol (default), in a query parameter, or in a frame alone. */
  tokenIn?: "subprotocol" | "frame" | { query: string };
  /** Milliseconds that an attempt may take, and the token function (10,000). */
  connectTimeout?: number;
  /** Milliseconds that a call may take (10,000); `Infinity` for no limit. */
  callTimeout?: number;
  /** Messages that may wait to be sent (100). */
  maxQueued?: number;
  /** Bytes that may wait to be sent (256 KiB). */
  maxQueuedBytes?: number;
  /** The hash of the contract that this client was written for. */
  contract?: string;
  /** Refuses a server with another contract; otherwise a warning says so, once. */
  strictContract?: boolean;
  /** The WebSocket class, where there is no global one. */
  WebSocket?: WebSocketClass;
}

export type Status =
  | { state: "connecting"; attempt: number }
  | { state: "open" }
  /** `error` is what the token function threw, or what the server said. */
  | { state: "waiting"; attempt: number; delay: number; code?: number; reason: string; error?: unknown }
  | { state: "closed"; code: number; reason: string; error?: unknown };

interface SocketEvents {
  status: Status;
  /** A route was opened, or has ended: see {@link Route.status}. */
  route: Route;
  /** The server reports an error that belongs to no call, such as a notify with invalid data. */
  error: ErrorBody;
}

const STABLE = 5_000;
const TRY_NOW = 1_000;
/** Between two attempts that `online` or a visible tab bring forward. */
const TRY_NOW_EVERY = 5_000;
const REFRESH_AT = 0.8;

export class Socket {
  status: Status = { state: "connecting", attempt: 0 };
  readonly _callTimeout: number;
  readonly #url: string;
  readonly #options: Options;
  readonly #routes = new Set<Route>();
  readonly #root: Route;
  readonly #listeners = new Map<string, Set<(value: any) => void>>();
  #current: Connection | undefined;
  /** The one that is being opened. */
  #next: Connection | undefined;
  #retired: Connection | undefined;
  #attempt = 0;
  /** Rises with each attempt: what belongs to an older one is ignored. */
  #turn = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stable: ReturnType<typeof setTimeout> | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;
  #mayHurry = false;
  #hurried = -Infinity;
  #isRefreshed = false;
  #hasWarned = false;
  #queued = 0;
  #queuedBytes = 0;

  constructor(url: string, options: Options = {}) {
    this.#url = url;
    this.#options = options;
    this._callTimeout = options.callTimeout ?? 10_000;
    this.#root = new Route(this, "", {});
    this.#listen(true);
    queueMicrotask(() => this.status.state === "closed" || void this.#connect()); // after `channel(…, { since })`
  }

  /** Calls `listener` with each value. Returns the function that ends that. */
  on<K extends keyof SocketEvents>(event: K, listener: (value: SocketEvents[K]) => void): () => void {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /**
   * The route at `path` on a socket of many routes (`Multiplex`), such as `route("/rooms/{room}", { room: "7" })`.
   * Without a path: the route at the address of the socket.
   */
  route(path?: string, params: Record<string, string> = {}, query: Record<string, string> = {}): Route {
    if (path === undefined) return this.#root;
    const route = new Route(this, fill(path, params), query);
    if (this.#root.error) route._finish(this.#root.error);
    else {
      this.#routes.add(route);
      if (this.#current) this.#open(route, this.#current);
    }
    return route;
  }

  /** The events of the channel at `path`, for one `for await` loop: see {@link Route.events}. */
  channel<T = unknown, S = unknown>(
    path?: string,
    params: Record<string, string> = {},
    { query, ...options }: ChannelOptions<S> & { query?: Record<string, string> } = {},
  ): Channel<T, S> {
    return this.route(path, params, query).events(options);
  }

  /** Closes the socket for good. */
  close(): void {
    this.#finish(1000, "", undefined);
  }

  // -- for routes

  get _max(): number {
    return this.#current?._hello!.max ?? Infinity;
  }

  _count(n: 1 | -1, size: number): boolean {
    const { maxQueued = 100, maxQueuedBytes = 256 * 1024 } = this.#options;
    if (n > 0 && (this.#queued >= maxQueued || this.#queuedBytes + size > maxQueuedBytes)) return false;
    this.#queued += n;
    this.#queuedBytes += n * size;
    return true;
  }

  _emit<K extends keyof SocketEvents>(event: K, value: SocketEvents[K]): void {
    this.#listeners.get(event)?.forEach((listener) => listener(value));
  }

  _closeRoute(route: Route): void {
    if (route === this.#root) return this.close();
    this.#routes.delete(route);
    for (const session of [route._session, route._next]) {
      session?._send({ type: "close", code: 1000 });
      session?._end();
    }
    route._finish(new Closed(1000, ""));
  }

  // -- attempts

  #become(status: Status): void {
    if (status.state === this.status.state && status.state !== "waiting") return;
    this.status = status;
    this._emit("status", status);
  }

  async #connect(): Promise<void> {
    const { token, tokenIn = "subprotocol", connectTimeout = 10_000 } = this.#options;
    const turn = ++this.#turn;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#current) this.#become({ state: "connecting", attempt: this.#attempt });
    const url = new URL(this.#url);
    const protocols = [SUBPROTOCOL];
    let connection: Connection;
    try {
      if (token && tokenIn !== "frame") {
        const value = await within(connectTimeout, token, "the token function");
        if (turn !== this.#turn) return;
        if (tokenIn === "subprotocol") protocols.push(`bearer.${value}`);
        else url.searchParams.set(tokenIn.query, value);
      }
      for (const [name, value] of new URLSearchParams(this.#root._search)) url.searchParams.set(name, value);
      const WebSocket = this.#options.WebSocket ?? (globalThis.WebSocket as unknown as WebSocketClass);
      connection = this.#next = new Connection(WebSocket, url.href, protocols, this);
    } catch (error) {
      if (turn === this.#turn) this.#wait(this.#backOff(), undefined, String(error), error);
      return;
    }
    connection._root = this.#root._next = new Session(connection, this.#root);
    this.#root._channel?._follow(connection._root);
    this.#timer = later(connectTimeout, () => connection._end(1006, "the server has not answered in time"));
  }

  #backOff(): number {
    this.#mayHurry = true;
    return pause(this.#attempt++);
  }

  #wait(delay: number, code: number | undefined, reason: string, error: unknown): void {
    if (!this.#current) {
      this.#become({ state: "waiting", attempt: this.#attempt, delay, code, reason, error } as Status);
    }
    if (this.status.state === "closed") return;
    this.#retryIn(delay);
  }

  #retryIn(delay: number): void {
    clearTimeout(this.#timer);
    this.#timer = later(delay, () => {
      this.#timer = undefined;
      if (globalThis.document?.hidden && !this.#current) this.#mayHurry = true; // `visibilitychange` goes on
      else void this.#connect();
    });
  }

  _onFrame(connection: Connection, frame: Frame): void {
    if (frame.type === "hello") return this.#onHello(connection, frame);
    if (frame.type === "error" && frame.id === undefined) {
      connection._error = frame.error;
      return this._emit("error", frame.error!);
    }
    if (frame.type === "goaway") return this.#onGoAway(connection, frame);
    const session = frame.c === undefined ? connection._root : connection._sessions.get(frame.c);
    if (!session) return;
    if (frame.type === "opened") {
      session._opened(frame);
      session._route._attempt = 0;
      session._route._attach(session);
    } else if (frame.type === "denied") {
      this.#routeEnded(session, 4000 + frame.status!, frame.error?.message ?? "", frame);
    } else if (frame.type === "closed") {
      this.#routeEnded(session, Number(frame.code), frame.reason ?? "", frame);
    } else {
      session._take(frame);
    }
  }

  #onHello(connection: Connection, hello: Frame): void {
    if (hello.auth === "required") return void this.#authenticate(connection, hello);
    if (connection !== this.#next) return;
    const { contract, strictContract } = this.#options;
    if (contract && hello.contract && hello.contract !== contract) {
      if (strictContract) return this.#finish(4409, "the server has another contract", undefined);
      if (!this.#hasWarned) console.warn("telex-client: the server has another contract than this client");
      this.#hasWarned = true;
    }
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const old = this.#current;
    this.#next = undefined;
    this.#current = connection;
    connection._hello = hello;
    connection._root._opened(hello);
    connection._watch(1000 * (hello.ping ?? 20));
    this.#renewAfter(connection, hello.expires_in);
    clearTimeout(this.#stable);
    this.#stable = later(STABLE, () => {
      this.#attempt = 0;
      this.#isRefreshed = false;
    });
    if (old) {
      this.#retired?._end(1000, "");
      this.#retired = old;
    }
    this.#become({ state: "open" });
    this.#root._attach(connection._root);
    for (const route of this.#routes) this.#open(route, connection);
    old?._retire();
  }

  _onEnd(connection: Connection, code: number, reason: string): void {
    for (const session of [connection._root, ...connection._sessions.values()]) {
      session._end();
      session._route._detach(session);
    }
    if (connection === this.#retired) this.#retired = undefined;
    if (connection === this.#current) {
      this.#current = undefined;
      clearTimeout(this.#stable);
      clearTimeout(this.#renewal);
      if (this.#next || this.#timer) return this.#become({ state: "connecting", attempt: this.#attempt });
    } else if (connection === this.#next) {
      this.#next = undefined;
    } else {
      return;
    }
    this.#decide(code, reason, connection._error);
  }

  #decide(code: number, reason: string, error: ErrorBody | undefined): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#mayHurry = false;
    const channel = this.#root._channel;
    if (code === 4410 && channel?._since !== undefined) {
      channel._gap("gone");
      return this.#wait(pause(0), code, reason, error);
    }
    switch (afterClose(code)) {
      case "back_off":
        return this.#wait(this.#backOff(), code, reason, error);
      case "retry_after":
        return this.#wait(hint(reason) ?? this.#backOff(), code, reason, error);
      case "refresh":
        if (this.#isRefreshed || !this.#options.token) break;
        this.#isRefreshed = true;
        return this.#wait(pause(0), code, reason, error);
    }
    this.#finish(code, reason, error);
  }

  #finish(code: number, reason: string, error: ErrorBody | undefined): void {
    if (this.status.state === "closed") return;
    this.#turn++;
    for (const timer of [this.#timer, this.#stable, this.#renewal]) clearTimeout(timer);
    this.#listen(false);
    this.#become({ state: "closed", code, reason, error });
    const closed = new Closed(code, reason, error);
    const connections = [this.#current, this.#next, this.#retired];
    this.#current = this.#next = this.#retired = undefined;
    for (const connection of connections) connection?._end(1000, "");
    for (const route of [this.#root, ...this.#routes]) route._finish(closed);
    this.#routes.clear();
  }

  // -- a server that stops

  #onGoAway(connection: Connection, { within = 30, retry_after = 0 }: Frame): void {
    if (connection !== this.#current || connection._goesAway !== undefined) return;
    connection._goesAway = 1000 * within;
    if (!this.#next && !this.#timer) this.#retryIn(1000 * Math.min(retry_after, within / 2));
  }

  // -- tokens

  async #authenticate(connection: Connection, hello: Frame): Promise<void> {
    try {
      const token = await within(10_000, this.#options.token ?? missing, "the token function");
      connection._root._auth(token, (frame) => {
        if (frame.type !== "reply") connection._error = frame.error;
        else this.#onHello(connection, { ...hello, ...(frame.data as Frame), auth: "done" });
      });
    } catch (error) {
      connection._end(4401, String(error));
    }
  }

  #renewAfter(connection: Connection, expires_in: number | null | undefined): void {
    clearTimeout(this.#renewal);
    if (typeof expires_in !== "number" || !this.#options.token) return; // it does not expire
    this.#renewal = later(Math.min(LONGEST, 1000 * REFRESH_AT * expires_in), () => {
      this.#renew(connection).catch(() => this.#renewAfter(connection, expires_in / 4));
    });
  }

  /** Sends a fresh token. At the expiry of the old one the server closes with 4401. */
  async #renew(connection: Connection): Promise<void> {
    const token = await within(this.#options.connectTimeout ?? 10_000, this.#options.token!, "the token function");
    await new Promise<void>((resolve, reject) => {
      connection._root._auth(token, (frame) => {
        if (frame.type !== "reply") return reject(frame.error);
        this.#renewAfter(connection, (frame.data as Frame | undefined)?.expires_in);
        resolve();
      });
    });
  }

  // -- routes of a Multiplex

  #open(route: Route, connection: Connection): void {
    if (connection._goesAway !== undefined) return; // the next connection opens it
    clearTimeout(route._timer);
    if (connection._hello!.routes === undefined) {
      return route._finish(new Closed(4404, "the server carries no routes at this address: it is no Multiplex"));
    }
    const c = ++connection._lastRoute;
    const session = (route._next = new Session(connection, route, c));
    connection._sessions.set(c, session);
    session._send({ type: "open", c, path: route.path, query: route._search, credit: PUSH_CREDIT });
    route._channel?._follow(session);
  }

  #routeEnded(session: Session, code: number, reason: string, frame: Frame): void {
    const route = session._route;
    const connection = session._connection;
    connection._sessions.delete(session._c!);
    const isLive = route._session === session || route._next === session;
    session._end();
    route._detach(session);
    connection._settle();
    if (!isLive || route.error) return;
    const again = (delay: number) => {
      route._timer = later(delay, () => this.#current && this.#open(route, this.#current));
    };
    if (code === 4410 && route._channel?._since !== undefined) {
      route._channel._gap("gone");
      return again(0);
    }
    switch (afterClose(code)) {
      case "back_off":
        return again(pause(route._attempt++));
      case "retry_after":
        return again(frame.retry_after ? 1000 * frame.retry_after : (hint(reason) ?? pause(route._attempt++)));
      case "refresh":
        if (route._isRefreshed || !this.#options.token) break;
        route._isRefreshed = true;
        this.#renew(connection).then(
          () => again(0),
          () => again(pause(0)),
        );
        return;
    }
    this.#routes.delete(route);
    route._finish(new Closed(code, reason, frame.error));
  }

  // -- the network and the tab

  #listen(on: boolean): void {
    const change = on ? "addEventListener" : "removeEventListener";
    globalThis[change]?.("online", this.#hurry);
    globalThis.document?.[change]("visibilitychange", this.#hurry);
  }

  /** Tries now, or looks whether the line is alive. A server that said when to come back is not hurried. */
  readonly #hurry = (): void => {
    if (globalThis.document?.hidden) return;
    this.#current?._probe();
    const now = performance.now();
    const waits = this.status.state === "waiting" && !this.#next && this.#mayHurry;
    if (!waits || (this.#timer && now - this.#hurried < TRY_NOW_EVERY)) return; // a hidden tab has no timer
    this.#hurried = now;
    this.#retryIn(1 + Math.random() * TRY_NOW);
  };
}

/** The path with its parameters, percent-encoded. */
function fill(path: string, params: Record<string, string>): string {
  return path.replace(/\{([^}]+)\}/g, (_, name: string) => {
    const value = params[name];
    if (value === undefined) throw new TelexError("not_found", `${path} needs the parameter '${name}'`);
    return encodeURIComponent(value);
  });
}

function missing(): never {
  throw new TelexError("not_authorized", "the server wants a token: give the option token");
}
