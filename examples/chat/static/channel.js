// A channel in telex.v1: calls that are answered, and events that go on where they stopped.

import { LastingSocket } from "./socket.js";

const PATIENCE = 10_000;

export class Channel {
  position = "";
  #on;
  #socket;
  #lastId = 0;
  #calls = new Map();
  #after = Promise.resolve();

  // `url(position)` is asked for each connection. `on` has load(), which loads the state anew, event(data),
  // present(members), joined(member), left(member), error(error), and state(…) as of LastingSocket.
  constructor(url, on, position = "") {
    this.#on = on;
    this.position = position;
    const hear = {
      message: (frame) => this.#frames[frame.type]?.(frame),
      state: (state, detail) => {
        if (state !== "connected") this.#giveUp("the connection was lost");
        this.#on.state?.(state, detail);
      },
    };
    this.#socket = new LastingSocket(() => url(this.position), hear, ["telex.v1"]);
  }

  get connected() {
    return this.#socket.connected;
  }

  // Resolves with the answer; rejects with the error that the server answers, or where no answer comes.
  call(data) {
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      if (!this.#socket.send({ type: "call", id, data })) throw new Error("there is no connection");
      const timer = setTimeout(() => this.#settle(id, "reject", new Error("no answer came")), PATIENCE);
      this.#calls.set(id, { resolve, reject, timer });
    });
  }

  notify(data) {
    this.#socket.send({ type: "notify", data });
  }

  // Hears nothing more; end() closes.
  leave() {
    this.#on = {};
  }

  end() {
    this.leave();
    this.#socket.end();
  }

  #frames = {
    subscribed: ({ position, recovered }) => {
      this.position = position;
      if (recovered === undefined) this.#then(() => this.#on.load?.());
    },
    // Events are missing: the state is loaded again, and the events after this position follow.
    gap: ({ position }) => {
      this.position = position;
      this.#then(() => this.#on.load?.());
    },
    event: ({ position, data }) => {
      this.position = position;
      this.#then(() => this.#on.event?.(data));
    },
    present: ({ members }) => this.#on.present?.(members),
    joined: ({ member }) => this.#on.joined?.(member),
    left: ({ member }) => this.#on.left?.(member),
    reply: ({ id, data }) => this.#settle(id, "resolve", data),
    error: ({ id, error }) => (id ? this.#settle(id, "reject", error) : this.#on.error?.(error)),
  };

  // One after another: events wait until the state is there.
  #then(work) {
    this.#after = this.#after.then(work).catch((error) => this.#on.error?.(error));
  }

  #settle(id, how, what) {
    const call = this.#calls.get(id);
    if (!call) return;
    this.#calls.delete(id);
    clearTimeout(call.timer);
    call[how](what);
  }

  #giveUp(reason) {
    for (const id of [...this.#calls.keys()]) this.#settle(id, "reject", new Error(reason));
  }
}
