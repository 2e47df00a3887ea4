import attrs

from telex import Telex, websocket_listener


@attrs.define
class Point:
    x: int = attrs.field(validator=attrs.validators.ge(0))
    y: int = 0


@websocket_listener("/points")
async def mirror(data: Point) -> Point:
    return Point(data.y, data.x)


app = Telex([mirror])
