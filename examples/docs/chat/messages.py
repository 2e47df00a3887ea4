from typing import Annotated, TypeAlias

import msgspec

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


# What clients send.


class Say(msgspec.Struct, tag="say"):
    text: Text


class Who(msgspec.Struct, tag="who"):
    pass


# What they get.


class Said(msgspec.Struct, tag="said"):
    author: str
    text: str


class Joined(msgspec.Struct, tag="joined"):
    name: str


class Left(msgspec.Struct, tag="left"):
    name: str


class Present(msgspec.Struct, tag="present"):
    names: list[str]


class Statistics(msgspec.Struct, tag="statistics"):
    members: int
    lines: int


Event: TypeAlias = Said | Joined | Left
