from collections.abc import AsyncGenerator

from msgspec import Struct, json

from telex import Channels, Telex, websocket_listener, websocket_stream
from telex.channels import Event, conflate


class Reading(Struct):
    machine: str
    load: float


@websocket_listener("/report")
async def report(data: Reading, channels: Channels) -> None:
    await channels.publish(f"machine:{data.machine}", data)


def machine_of(event: Event) -> str:
    return event.channel


@websocket_stream("/dashboard")
async def dashboard(channels: Channels) -> AsyncGenerator[Reading, None]:
    """A slow browser gets the newest reading of each machine, and no outdated one."""
    readings = channels.subscribe("machine:*", pattern=True, backlog_strategy=conflate(machine_of))
    async with readings as events:
        async for data in events.iter_events():
            yield json.decode(data, type=Reading)


channels = Channels("memory://", arbitrary_channels_allowed=True)
app = Telex([report, dashboard], plugins=[channels])
