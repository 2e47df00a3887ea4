function connect(url, onEvent) {
  let last = 0;
  let failures = 0;

  function open() {
    const socket = new WebSocket(`${url}?after=${last}`);
    socket.onmessage = (message) => {
      failures = 0;
      const event = JSON.parse(message.data);
      last = event.id;
      onEvent(event);
    };
    socket.onclose = (closed) => {
      const given_up = closed.code >= 4400 && closed.code < 4500;
      if (given_up || closed.code === 1008) return;
      setTimeout(open, 1000 * wait(closed));
    };
  }

  function wait(closed) {
    const hint = /^retry-after=([0-9.]+)$/.exec(closed.reason);
    if (hint) return Number(hint[1]);
    failures += 1;
    return Math.random() * Math.min(30, 2 ** failures / 4);
  }

  open();
}
