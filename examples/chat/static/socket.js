// A WebSocket that comes back: after a loss it waits a little longer each time, and never exactly as long as others.

import { afterClose } from "./close_codes.js";

const FIRST_WAIT = 300;
const LONGEST_WAIT = 15_000;

export class LastingSocket {
  #url;
  #socket = null;
  #losses = 0;
  #timer = 0;
  #ended = false;
  #protocols;

  // `on` has message(data), state("connecting" | "connected" | "waiting" | "closed", seconds or reason).
  constructor(url, on, protocols = []) {
    this.#url = url;
    this.#protocols = protocols;
    this.on = on;
    this.#connect();
    this.wake = () => this.#timer && this.#connect();
    addEventListener("online", this.wake);
  }

  get connected() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  // Sends if there is a connection; says whether there was.
  send(message) {
    if (!this.connected) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  end() {
    this.#ended = true;
    clearTimeout(this.#timer);
    removeEventListener("online", this.wake);
    this.#socket?.close(1000);
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.on.state("connecting");
    const socket = new WebSocket(this.#url(), this.#protocols);
    this.#socket = socket;
    socket.onopen = () => {
      this.#losses = 0;
      this.on.state("connected");
    };
    socket.onmessage = (event) => this.on.message(JSON.parse(event.data));
    socket.onclose = (event) => this.#ended || this.#closed(event);
  }

  #closed({ code, reason }) {
    const after = afterClose(code);
    if (after === "back_off" || after === "retry_after") this.#wait(after, reason);
    else this.on.state("closed", reason);
  }

  #wait(after, reason) {
    // A server that stops says when to come back, so that not all come at once.
    const asked = after === "retry_after" && /^retry-after=([\d.]+)$/.exec(reason);
    const grown = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#losses++);
    const wait = Math.max(grown * (0.5 + Math.random() / 2), asked ? Number(asked[1]) * 1000 : 0);
    this.on.state("waiting", Math.ceil(wait / 1000));
    this.#timer = setTimeout(() => this.#connect(), wait);
  }
}

export const address = (path) => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
