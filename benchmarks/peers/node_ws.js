// A WebSocket echo on Node with the `ws` package: text as it comes, or JSON parsed, worked on and written.
"use strict";
const { createServer } = require("node:http");
const { WebSocketServer } = require("ws");

const [app, descriptor] = process.argv.slice(2);

function moved(data) {
  const move = JSON.parse(data);
  const distance = Math.abs(move.x) + Math.abs(move.y);
  return JSON.stringify({ id: move.id, player: move.player, distance, tags: move.tags.length });
}

const server = createServer();
new WebSocketServer({ server }).on("connection", (socket) => {
  if (app === "json") socket.on("message", (data) => socket.send(moved(data)));
  else socket.on("message", (data, binary) => socket.send(data, { binary }));
});
server.listen({ fd: Number(descriptor) });
