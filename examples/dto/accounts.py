from dataclasses import dataclass
from typing import Annotated

from telex import Telex, websocket_listener
from telex.dto import DataclassDTO, DTOConfig, dto_field


@dataclass
class Account:
    user_name: str
    password: Annotated[str, dto_field("write-only")]
    is_admin: Annotated[bool, dto_field("read-only")] = False
    risk_score: Annotated[float, dto_field("private")] = 0.0


AccountDTO = DataclassDTO[Annotated[Account, DTOConfig(rename_strategy="camel")]]


@websocket_listener("/accounts", dto=AccountDTO)
async def register(data: Account) -> Account:
    data.is_admin = data.user_name == "root"
    return data


app = Telex([register])
