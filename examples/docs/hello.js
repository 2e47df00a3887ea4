const socket = new WebSocket("ws://127.0.0.1:8000/hello");
socket.onmessage = (message) => console.log(message.data);
socket.onopen = () => socket.send(JSON.stringify({ name: "Ada" }));
