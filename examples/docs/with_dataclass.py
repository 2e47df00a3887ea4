from dataclasses import dataclass
from typing import Annotated

import msgspec

from telex import Telex, websocket_listener


@dataclass
class Point:
    x: Annotated[int, msgspec.Meta(ge=0)]
    y: int = 0


@websocket_listener("/points")
async def mirror(data: Point) -> Point:
    return Point(data.y, data.x)


app = Telex([mirror])
