from dataclasses import dataclass
from typing import Annotated, Literal

from telex import Telex, websocket_listener
from telex.dto import DataclassDTO, DTOConfig


@dataclass
class Cat:
    kind: Literal["cat"]
    lives_left: int


@dataclass
class Dog:
    kind: Literal["dog"]
    barks_at: str


PetDTO = DataclassDTO[Annotated[Cat | Dog, DTOConfig(rename_strategy="camel")]]


@websocket_listener("/pets", dto=PetDTO)
async def meet(data: Cat | Dog) -> Cat | Dog | None:
    return data if isinstance(data, Cat) else None


app = Telex([meet])
