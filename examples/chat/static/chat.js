// The chat's page. What members write is only ever set as text, never as markup.

import { Channel } from "./channel.js";
import { LastingSocket, address } from "./socket.js";
import { Talk } from "./talk.js";

const find = (selector) => document.querySelector(selector);
const talk = new Talk(find("#messages"), find("#typing"));
const tab = Math.random().toString(36).slice(2);

let me = localStorage.getItem("name") ?? "";
let room = "";
let connection = null;
let leaving = null;
let members = new Map();
const renamed = new Set();

function enter(where) {
  room = where;
  connection?.end();
  talk.clear();
  members.clear();
  showMembers();
  history.replaceState(null, "", `#${room}`);
  localStorage.setItem("name", me);
  find("#room").textContent = room;
  document.title = `${room} – Telex chat`;
  find("#door").hidden = true;
  find("#chat").hidden = false;
  connection = connect();
  find("#say").text.focus();
}

function connect({ was = "", since = "" } = {}) {
  const path = `/rooms/${encodeURIComponent(room)}`;
  const url = (position) => {
    const query = new URLSearchParams({ name: me, tab, was });
    if (position) query.set("since", position);
    was = "";
    return address(`${path}?${query}`);
  };
  return new Channel(url, { ...on, load: async () => talk.load(await stored(path)) }, since);
}

async function stored(path, before = "") {
  const answer = await fetch(`${path}/messages?before=${before}`);
  if (!answer.ok) throw new Error(`the messages could not be loaded: ${answer.status}`);
  return answer.json();
}

// With another name the page comes as another member, and goes on where it is.
function rename(name) {
  if (named(name)) {
    talk.note(`${name} is taken`);
    return;
  }
  const was = me;
  me = name;
  leaving = connection;
  leaving.leave();
  connection = connect({ was, since: leaving.position });
}

const named = (name) => [...members.values()].some((member) => member.key === name);

function leave() {
  connection?.end();
  connection = null;
  find("#chat").hidden = true;
  find("#door").hidden = false;
}

// -- from the server

const events = {
  said: (message) => talk.add(message),
  typing: ({ name }) => name !== me && talk.showTyping(name),
};

const on = {
  event: (data) => events[data.type]?.(data),
  present(those) {
    members = new Map(those.map((member) => [member.ref, member]));
    showMembers();
  },
  joined(member) {
    const { was } = member.meta;
    if (named(was)) renamed.add(was);
    members.set(member.ref, member);
    if (member.meta.tab === tab) {
      me = talk.me = member.key;
      localStorage.setItem("name", me);
      leaving?.end();
      leaving = null;
    }
    if (was) talk.note(`${member.key} is what ${was} is called now`);
    else if (member.meta.tab !== tab) talk.note(`${member.key} came in`);
    showMembers();
  },
  left(member) {
    members.delete(member.ref);
    if (!renamed.delete(member.key)) talk.note(`${member.key} left`);
    talk.showTyping("");
    showMembers();
  },
  error: (error) => talk.note(error.message),
  state: showState,
};

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
saying.onsubmit = async (event) => {
  event.preventDefault();
  const text = saying.text.value.trim();
  if (!text || !connection.connected) return;
  saying.text.value = "";
  try {
    await connection.call({ type: "say", text });
  } catch (error) {
    saying.text.value ||= text;
    talk.note(`Not sent: ${error.message}`);
  }
};

let lastTyped = 0;
saying.text.onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    saying.requestSubmit();
  } else if (event.key.length === 1 && Date.now() - lastTyped > 2000) {
    lastTyped = Date.now();
    connection.notify({ type: "type" });
  }
};

talk.onearlier = (before) =>
  stored(`/rooms/${encodeURIComponent(room)}`, before).then((found) => talk.prepend(found), on.error);
find("#leave").onclick = leave;
find("#rename").onclick = () => {
  find("#renaming input").value = me;
  find("#renaming").showModal();
};
find("#renaming [type=button]").onclick = () => find("#renaming").close();
find("#renaming").onclose = (event) => {
  const name = find("#renaming input").value;
  if (event.target.returnValue === "rename" && name !== me) rename(name);
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

function showMembers() {
  const names = [...members.values()].map((member) => member.key);
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
