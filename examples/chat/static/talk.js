// The list of messages: each number once, in order, those of one author together.

const TOGETHER = 5 * 60_000;

export class Talk {
  me = "";
  onearlier = () => {};
  #list;
  #typing;
  #oldest = Infinity;
  #newest = 0;
  #timer = 0;

  constructor(list, typing) {
    this.#list = list;
    this.#typing = typing;
  }

  clear() {
    this.#list.replaceChildren();
    this.#oldest = Infinity;
    this.#newest = 0;
    this.#typing.textContent = "";
  }

  // After a loss the messages repeat what is here; a gap that is wider than they are starts the list anew.
  load({ messages, complete }) {
    if (this.#newest && !complete && messages[0].number > this.#newest) this.clear();
    const first = this.#newest === 0;
    for (const message of messages) this.add(message);
    if (first && !complete) this.#offerEarlier();
    this.#toEnd();
  }

  add(message) {
    if (message.number <= this.#newest) return;
    const atEnd = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 80;
    this.#list.append(this.#shown(message, this.#list.lastElementChild));
    this.#newest = message.number;
    this.#oldest = Math.min(this.#oldest, message.number);
    this.#typing.textContent = "";
    if (atEnd || message.author === this.me) this.#toEnd();
  }

  prepend({ messages, complete }) {
    this.#list.querySelector(".earlier")?.remove();
    const before = this.#list.scrollHeight;
    const first = this.#list.firstElementChild;
    let previous = null;
    for (const message of messages) {
      previous = this.#shown(message, previous);
      this.#list.insertBefore(previous, first);
    }
    if (messages.length) this.#oldest = messages[0].number;
    if (!complete) this.#offerEarlier();
    this.#list.scrollTop += this.#list.scrollHeight - before;
  }

  note(text) {
    const atEnd = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 80;
    const note = document.createElement("li");
    note.className = "news";
    note.textContent = text;
    this.#list.append(note);
    if (atEnd) this.#toEnd();
  }

  showTyping(name) {
    this.#typing.textContent = name && `${name} is writing …`;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#typing.textContent = ""), 3000);
  }

  avatar(name) {
    const avatar = document.createElement("span");
    avatar.className = "avatar";
    avatar.textContent = [...name][0].toUpperCase();
    avatar.style.setProperty("--hue", [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7));
    return avatar;
  }

  #shown({ author, text, at }, previous) {
    const time = new Date(at);
    const item = document.createElement("li");
    item.className = "message";
    item.dataset.author = author;
    item.dataset.at = time.getTime();
    if (previous?.dataset.author === author && time - previous.dataset.at < TOGETHER) item.classList.add("more");
    const by = document.createElement("div");
    by.className = "by";
    const strong = document.createElement("strong");
    strong.textContent = author;
    const when = document.createElement("time");
    when.dateTime = at;
    when.textContent = time.toLocaleString([], this.#format(time));
    by.append(strong, when);
    const words = document.createElement("div");
    words.className = "text";
    words.textContent = text;
    const body = document.createElement("div");
    body.className = "body";
    body.append(by, words);
    item.append(this.avatar(author), body);
    return item;
  }

  #format(time) {
    const today = time.toDateString() === new Date().toDateString();
    return today ? { hour: "2-digit", minute: "2-digit" } : { dateStyle: "medium", timeStyle: "short" };
  }

  #offerEarlier() {
    const item = document.createElement("li");
    item.className = "earlier";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = "Earlier messages";
    button.onclick = () => this.onearlier(this.#oldest);
    item.append(button);
    this.#list.prepend(item);
  }

  #toEnd() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }
}
