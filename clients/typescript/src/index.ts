/** The client of Telex: see the README. */
import { type Options, Socket } from "./socket.js";

export { Channel, type ChannelEvent, type ChannelOptions } from "./channel.js";
export { afterClose, type AfterClose } from "./close-codes.js";
export { CallError, Closed, ConnectionLost, type ErrorBody, QueueFull, TelexError } from "./errors.js";
export type { Member } from "./frames.js";
export type { CallOptions } from "./outgoing.js";
export { type Answer, Route, type RouteStatus } from "./route.js";
export { type Options, Socket, type Status } from "./socket.js";

/** Connects to `url` (`ws:` or `wss:`), and stays connected until `close()`. */
export function connect(url: string, options?: Options): Socket {
  return new Socket(url, options);
}
