// The chat's page. What members write is only ever set as text, never as markup.

import { LastingSocket, address } from "./socket.js";
import { Talk } from "./talk.js";

const find = (selector) => document.querySelector(selector);
const talk = new Talk(find("#messages"), find("#typing"));

let me = localStorage.getItem("name") ?? "";
let room = "";
let connection = null;

function enter(where) {
  room = where;
  connection?.end();
  talk.clear();
  show("#members", []);
  history.replaceState(null, "", `#${room}`);
  localStorage.setItem("name", me);
  find("#room").textContent = room;
  document.title = `${room} – Telex chat`;
  find("#door").hidden = true;
  find("#chat").hidden = false;
  const url = () => address(`/rooms/${encodeURIComponent(room)}?name=${encodeURIComponent(me)}`);
  connection = new LastingSocket(url, { message: receive, state: showState });
  find("#say").text.focus();
}

function leave() {
  connection?.end();
  connection = null;
  find("#chat").hidden = true;
  find("#door").hidden = false;
}

// -- from the server

const on = {
  welcome(message) {
    me = message.you;
    talk.me = me;
    talk.welcome(message.history);
    showMembers(message.members);
  },
  said: (message) => talk.add(message),
  recalled: (message) => talk.prepend(message.history, message.complete),
  typing: (message) => talk.showTyping(message.name),
  presence(message) {
    if (message.what === "renamed" && message.was === me) {
      me = talk.me = message.name;
      localStorage.setItem("name", me);
    }
    const deed = { came: "came in", left: "left", renamed: `is what ${message.was} is called now` }[message.what];
    talk.note(`${message.name} ${deed}`);
    talk.showTyping("");
    showMembers(message.members);
  },
  refused: (message) => talk.note(message.reason),
  error: (message) => talk.note(`Not understood: ${message.error.message}`),
};

function receive(message) {
  on[message.type]?.(message);
}

// -- to the server

find("#join").onsubmit = (event) => {
  event.preventDefault();
  me = event.target.name.value;
  enter(event.target.room.value);
};

find("#open").onsubmit = (event) => {
  event.preventDefault();
  enter(event.target.room.value);
  event.target.reset();
};

const saying = find("#say");
saying.onsubmit = (event) => {
  event.preventDefault();
  const text = saying.text.value.trim();
  if (text && connection.send({ type: "say", text })) saying.text.value = "";
};

let lastTyped = 0;
saying.text.onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    saying.requestSubmit();
  } else if (event.key.length === 1 && Date.now() - lastTyped > 2000) {
    lastTyped = Date.now();
    connection.send({ type: "type" });
  }
};

talk.onearlier = (before) => connection.send({ type: "recall", before });
find("#leave").onclick = leave;
find("#rename").onclick = () => {
  find("#renaming input").value = me;
  find("#renaming").showModal();
};
find("#renaming [type=button]").onclick = () => find("#renaming").close();
find("#renaming").onclose = (event) => {
  const name = find("#renaming input").value;
  if (event.target.returnValue === "rename" && name !== me) connection.send({ type: "rename", name });
  event.target.returnValue = "";
};

// -- what is shown

function showState(state, detail) {
  const status = find("#status");
  status.dataset.state = state;
  const texts = { waiting: `lost, trying again in ${detail} s`, closed: `closed: ${detail}` };
  status.textContent = texts[state] ?? state;
  find("#say button").disabled = state !== "connected";
}

function show(selector, items) {
  find(selector).replaceChildren(...items);
}

function element(tag, className, ...content) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...content);
  return made;
}

function showMembers(names) {
  find("#count").textContent = names.length;
  show("#members", names.map((name) => {
    return element("li", name === me ? "me" : "", talk.avatar(name), element("span", "name", name));
  }));
}

function showStatistics(statistics) {
  show("#rooms", statistics.rooms.map((each) => {
    const figures = element("span", "figures", `${each.members} here, ${count(each.messages, "message")}`);
    const button = element("button", "", element("span", "name", each.room), figures);
    if (each.room === room) button.setAttribute("aria-current", "true");
    button.onclick = () => enter(each.room);
    return element("li", "", button);
  }));
  find("#totals").textContent = `${statistics.members} online, ${count(statistics.messages, "message")}`;
}

function count(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

find("#join").name.value = me;
if (/^#[\w-]+$/.test(location.hash)) find("#join").room.value = location.hash.slice(1);
new LastingSocket(() => address("/statistics"), { message: showStatistics, state() {} });
