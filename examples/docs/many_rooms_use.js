const shared = new SharedSocket("ws://127.0.0.1:8000/socket");

/** Shows a room's messages, and returns the function that says something there. */
async function join(room, show) {
  let last = 0;
  const route = await shared.open(`/rooms/${encodeURIComponent(room)}`, {
    onframe: (frame) => { if (frame.type === "event") show(room, frame.data.text); },
    onclose: (code, reason) => show(room, `closed: ${code} ${reason}`),
  });
  return (text) => route.send({ type: "call", id: ++last, data: { text } });
}
