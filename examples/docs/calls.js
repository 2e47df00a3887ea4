/** One connection that speaks telex.v1: calls, answers in parts, and questions of the server. */
class Calls {
  #waiting = new Map(); // what to do with the frames that answer a call, by its id
  #last = 0;
  #lost; // the error that answers calls once the connection has ended
  onnotify = (data) => console.log(data);
  onquestion = async (data) => { throw new Error("this client answers no questions"); };

  constructor(url) {
    this.socket = new WebSocket(url, ["telex.v1"]);
    this.ready = new Promise((resolve, reject) => {
      this.socket.onmessage = (message) => this.#take(JSON.parse(message.data), resolve);
      this.socket.onclose = ({ code, reason }) => {
        this.#lost = { type: "error", error: { code: "connection_lost", message: `${code} ${reason}` } };
        reject(failure(this.#lost));
        for (const answer of this.#waiting.values()) answer(this.#lost);
        this.#waiting.clear();
      };
    });
    this.ready.catch(() => {}); // those who await it get the error
  }

  /** Resolves to the answer. */
  async call(data, { timeout } = {}) {
    await this.ready;
    return new Promise((resolve, reject) => {
      this.#begin({ data, timeout }, (frame) => {
        if (frame.type === "reply") resolve(frame.data);
        else if (frame.type === "error") reject(failure(frame));
        else reject(new Error("the answer has parts: use stream()"));
      });
    });
  }

  /** The parts of an answer, as they come. Leaving the loop, or aborting `signal`, cancels the call. */
  async *stream(data, { signal } = {}) {
    await this.ready;
    if (signal?.aborted) return;
    const frames = [];
    let wake = () => {}, taken = 0, ended = false;
    const id = this.#begin({ data }, (frame) => { frames.push(frame); wake(); });
    const cancel = () => this.send({ type: "cancel", id });
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      for (;;) {
        while (!frames.length) await new Promise((resolve) => { wake = resolve; });
        const frame = frames.shift();
        ended = frame.type !== "item";
        if (frame.type === "error") throw failure(frame);
        if (ended) return;
        yield frame.data;
        if (++taken % 8 === 0) this.send({ type: "more", id, n: 8 }); // 16 come without it
      }
    } finally {
      signal?.removeEventListener("abort", cancel);
      if (!ended) cancel();
    }
  }

  /** Sends a message that wants no answer. */
  async notify(data) {
    await this.ready;
    this.send({ type: "notify", data });
  }

  send(frame) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }

  #begin(call, answer) {
    const id = ++this.#last; // each id is higher than the last
    if (this.#lost) answer(this.#lost);
    else this.#waiting.set(id, answer);
    this.send({ type: "call", id, ...call });
    return id;
  }

  #take(frame, ready) {
    if (frame.type === "hello") ready(frame);
    else if (frame.type === "notify") this.onnotify(frame.data);
    else if (frame.type === "ping") this.send({ type: "pong" });
    else if (frame.type === "call") this.#answer(frame);
    else if (["reply", "item", "end", "error"].includes(frame.type)) {
      const answer = this.#waiting.get(frame.id);
      if (frame.type !== "item") this.#waiting.delete(frame.id);
      answer?.(frame); // ignores the last parts of a call that was cancelled
    } // and ignores frames of a type that it does not know
  }

  async #answer({ id, data }) {
    try {
      this.send({ type: "reply", id, data: await this.onquestion(data) });
    } catch (error) {
      this.send({ type: "error", id, error: { code: "refused", message: error.message } });
    }
  }
}

function failure({ error }) {
  return Object.assign(new Error(error.message), error); // has code, message, path, data
}
