from collections.abc import AsyncGenerator

import msgspec

from telex import Telex, WebSocket, websocket


class Job(msgspec.Struct):
    name: str
    steps: int = 3


async def steps(job: Job) -> AsyncGenerator[str, None]:
    for number in range(1, job.steps + 1):
        yield f"{job.name}: step {number}"


@websocket("/jobs", protocol="telex.v1")
async def jobs(socket: WebSocket) -> None:
    await socket.accept()
    async for message in socket.incoming(Job):
        if message.data.steps > 10:
            await message.error("too_long", "at most 10 steps")
        else:
            await message.stream(steps(message.data))


app = Telex([jobs])
