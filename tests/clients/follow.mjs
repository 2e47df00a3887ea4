// Follows a channel with the built client, and prints what it gets: node follow.mjs MODULE URL PATH
const [module, url, path] = process.argv.slice(2);
const { connect } = await import(module);
const socket = connect(url);
const print = (value) => console.log(JSON.stringify(value));
socket.on("status", ({ state }) => print({ state }));
for await (const event of path ? socket.channel(path) : socket.channel()) {
  print(event.type === "event" ? event.data : event);
  if (event.data === "end") break;
}
socket.close();
