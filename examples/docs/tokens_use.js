const assistant = new Calls("ws://127.0.0.1:8000/ask");
let asked = new AbortController();

/** Shows the answer as it comes. A new question cancels the one before. */
async function ask(text, show) {
  asked.abort();
  asked = new AbortController();
  try {
    for await (const token of assistant.stream({ text }, { signal: asked.signal })) show(token);
  } catch (error) {
    if (error.code !== "cancelled") throw error;
  }
}
