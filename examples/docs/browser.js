const socket = new WebSocket("ws://127.0.0.1:8000/echo");
socket.onmessage = (message) => console.log(message.data);
socket.onopen = () => socket.send("hello");
