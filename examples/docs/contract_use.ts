import { contractClient } from "./contract_client.js";

const socket = contractClient("wss://example.org/rooms/7");
const room = socket.route<"/rooms/{room}">();

room.on("joined", (message) => console.log(message.name, "is here"));
room.answer("confirm", (question) => ({ yes: confirm(question.question) }));

const said = await room.call({ type: "say", text: "good morning" });
console.log(said.number);
