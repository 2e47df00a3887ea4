/** Many routes on one WebSocket. Each route has its own calls, credit and end. */
class SharedSocket {
  #routes = new Map();
  #highest = 0;

  constructor(url) {
    this.socket = new WebSocket(url, ["telex.v1"]);
    this.ready = new Promise((resolve, reject) => {
      this.socket.onmessage = (message) => this.#take(JSON.parse(message.data), resolve);
      this.socket.onclose = ({ code, reason }) => {
        reject(new Error(`${code} ${reason}`));
        for (const route of this.#routes.values()) {
          route.reject(new Error(`${code} ${reason}`)); // does nothing if the route was open
          route.onclose(code, reason);
        }
        this.#routes.clear();
      };
    });
    this.ready.catch(() => {}); // those who await it get the error
  }

  /** Opens a route, or rejects with `status`, `code` and `error`. `onframe` gets its frames, `onclose` how it ended. */
  async open(path, { query = "", onframe, onclose = () => {} }) {
    await this.ready;
    const c = ++this.#highest; // a number is never used again
    return new Promise((resolve, reject) => {
      this.#routes.set(c, { resolve, reject, onframe, onclose, handled: 0 });
      this.send({ type: "open", c, path, query, credit: 64 });
    });
  }

  send(frame) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }

  #take(frame, ready) {
    if (frame.type === "hello") return ready(frame);
    if (frame.type === "ping") return this.send({ type: "pong" });
    const route = this.#routes.get(frame.c);
    if (!route) return;
    const send = (more) => this.send({ c: frame.c, ...more });
    if (frame.type === "opened") return route.resolve({ send, close: () => send({ type: "close" }) });
    if (frame.type === "denied" || frame.type === "closed") {
      this.#routes.delete(frame.c);
      if (frame.type === "denied") return route.reject(Object.assign(new Error(frame.error.message), frame));
      return route.onclose(frame.code, frame.reason);
    }
    route.onframe(frame);
    // The server sends 64 of these, then it waits. Answers to calls take no credit.
    if (["notify", "call", "event", "gap", "present", "joined", "left"].includes(frame.type)
        && ++route.handled % 32 === 0) send({ type: "credit", n: 32 });
  }
}
