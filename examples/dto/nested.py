import msgspec

from telex import Telex, websocket_listener
from telex.dto import DTOConfig, MsgspecDTO


class Address(msgspec.Struct):
    street: str
    door_code: str = ""


class Pet(msgspec.Struct):
    name: str
    chip_number: int = 0


class Person(msgspec.Struct):
    name: str
    address: Address
    pets: list[Pet] = []


class PublicPerson(MsgspecDTO[Person]):
    config = DTOConfig(
        exclude={"address.door_code", "pets.0.chip_number"},
        rename_fields={"address.street": "streetName"},
        forbid_unknown_fields=True,
    )


@websocket_listener("/people", return_dto=PublicPerson)
async def introduce(data: Person) -> Person:
    return data


app = Telex([introduce])
