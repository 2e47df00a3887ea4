function connect(url, onEvent, getToken) {
  let last = 0;
  let failures = 0;
  let refreshed = false;

  function open() {
    const socket = new WebSocket(`${url}?after=${last}`);
    socket.onmessage = (message) => {
      failures = 0;
      refreshed = false;
      const event = JSON.parse(message.data);
      last = event.id;
      onEvent(event);
    };
    socket.onclose = async (closed) => {
      const after = afterClose(closed.code);
      if (after === "refresh" && getToken && !refreshed) {
        refreshed = true;
        await getToken();
        open();
      } else if (after === "back_off" || after === "retry_after") {
        setTimeout(open, 1000 * wait(closed, after));
      } else if (after !== "done") {
        console.error(`closed for good: ${closed.code} ${closed.reason}`);
      }
    };
  }

  function wait(closed, after) {
    const hint = after === "retry_after" && /^retry-after=([0-9.]+)$/.exec(closed.reason);
    if (hint) return Number(hint[1]);
    failures += 1;
    return Math.random() * Math.min(30, 2 ** failures / 4);
  }

  open();
}

// <close-codes> written by `scripts/docs sync`
const CLOSE_CODES = {
  done: [1000],
  back_off: [1001, 1005, 1006, 1011, 4500],
  never: [1002, 1003, 1007, 1008, 1009, 4400, 4403, 4404, 4405, 4409, 4410, 4426],
  retry_after: [1012, 1013, 4408, 4425, 4429, 4503],
  refresh: [4401],
};
const RANGES = [
  [4400, 4499, "never"],
  [4500, 4599, "back_off"],
  [3000, 4999, "application"],
];

function afterClose(code) {
  const known = Object.keys(CLOSE_CODES).find((after) => CLOSE_CODES[after].includes(code));
  return known ?? RANGES.find(([first, last]) => first <= code && code <= last)?.[2] ?? "back_off";
}
// </close-codes>
