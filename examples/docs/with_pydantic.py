from pydantic import BaseModel, Field

from telex import Telex, websocket_listener


class Point(BaseModel):
    x: int = Field(ge=0)
    y: int = 0


@websocket_listener("/points")
async def mirror(data: Point) -> Point:
    return Point(x=data.y, y=data.x)


app = Telex([mirror])
