/** The body of an `error` frame. */
export interface ErrorBody {
  code: string;
  message?: string;
  path?: string;
  retry_after?: number;
  data?: unknown;
}

/** Every error of this package; `code` says which. */
export class TelexError extends Error {
  override name = "TelexError";

  constructor(readonly code: string, message: string) {
    super(message);
  }
}

/** A call failed: the server answered with an error, or `timeout` has passed (`code` is `"timeout"`). */
export class CallError extends TelexError {
  override name = "CallError";
  /** The path of the invalid value in the data, such as `$.count`. */
  readonly path: string | undefined;
  /** Milliseconds after which the call may succeed. */
  readonly retryAfter: number | undefined;
  readonly data: unknown;

  constructor(body: ErrorBody) {
    super(body.code, body.message || body.code);
    this.path = body.path;
    this.retryAfter = body.retry_after === undefined ? undefined : 1000 * body.retry_after;
    this.data = body.data;
  }
}

/** The connection was lost before the answer came. The server may have run the call. */
export class ConnectionLost extends TelexError {
  override name = "ConnectionLost";
  readonly mayHaveRun = true;

  constructor() {
    super("connection_lost", "the connection was lost before the answer came: the server may have run the call");
  }
}

/** Too many messages wait to be sent. */
export class QueueFull extends TelexError {
  override name = "QueueFull";

  constructor() {
    super("queue_full", "too many messages wait to be sent");
  }
}

/** The socket or route is closed, and is not opened again. */
export class Closed extends TelexError {
  override name = "Closed";

  constructor(
    readonly closeCode: number,
    readonly reason: string,
    /** What the server said about it. */
    readonly error?: ErrorBody,
  ) {
    super("closed", `closed with ${closeCode}${reason && `: ${reason}`}`);
  }
}
