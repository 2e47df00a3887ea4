from collections.abc import AsyncGenerator
from typing import Annotated

from pydantic import BaseModel, Field

from telex import Telex, websocket_stream
from telex.dto import DTOConfig, PydanticDTO


class Price(BaseModel):
    symbol: str
    last_price: float = Field(ge=0)
    supplier: str = ""


PriceDTO = PydanticDTO[Annotated[Price, DTOConfig(exclude={"supplier"}, rename_strategy="camel")]]


@websocket_stream("/prices", return_dto=PriceDTO)
async def prices() -> AsyncGenerator[Price, None]:
    yield Price(symbol="ADA", last_price=36.5, supplier="secret")


app = Telex([prices])
