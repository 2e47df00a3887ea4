"""Mapped classes in the style of SQLAlchemy's documentation."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import Enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    WriteOnlyMapped,
    column_property,
    composite,
    mapped_column,
    relationship,
)

from telex.dto import dto_field
from tests.dto.kinds import DataclassStreet


class Base(DeclarativeBase):
    pass


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Author(Base):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    first_name: Mapped[str] = mapped_column()
    last_name: Mapped[str | None]
    mood: Mapped[Mood] = mapped_column(default=Mood.GOOD)
    token: Mapped[str] = mapped_column(default="token", info=dto_field("private"))
    password: Mapped[str] = mapped_column(default="", info=dto_field("write-only"))
    joined: Mapped[dt.datetime] = mapped_column(server_default=sa.func.now())
    notes: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)
    initials: Mapped[str] = column_property(sa.func.substr(first_name, 1, 1))
    books: Mapped[list[Book]] = relationship(back_populates="author", order_by="Book.id")
    letters: WriteOnlyMapped[Letter] = relationship()

    @hybrid_property
    def full_name(self) -> str:
        return f"{self.first_name} {self.last_name}"


class Book(Base):
    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    price: Mapped[Decimal] = mapped_column(sa.Numeric(8, 2), default=Decimal("9.99"))
    gross: Mapped[Decimal] = mapped_column(sa.Numeric(8, 2), sa.Computed("price * 2"))
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey("author.id"))
    author: Mapped[Author | None] = relationship(back_populates="books")


class Letter(Base):
    __tablename__ = "letter"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id"))


class Shop(Base):
    """With a primary key that is not generated, and a composite."""

    __tablename__ = "shop"

    code: Mapped[str] = mapped_column(primary_key=True)
    street_name: Mapped[str]
    number: Mapped[int]
    street: Mapped[DataclassStreet] = composite("street_name", "number")


class Vehicle(Base):
    """With inheritance over two tables."""

    __tablename__ = "vehicle"
    __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "vehicle"}  # noqa: RUF012 - so it is written

    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    wheels: Mapped[int]


class Truck(Vehicle):
    __tablename__ = "truck"
    __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012 - so it is written

    id: Mapped[int] = mapped_column(sa.ForeignKey("vehicle.id"), primary_key=True)
    load: Mapped[int]


class Tag(MappedAsDataclass, Base):
    """Mapped as a dataclass: its fields determine the parameters of its constructor."""

    __tablename__ = "tag"

    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    name: Mapped[str]
    color: Mapped[str] = mapped_column(default="red")
    hidden: Mapped[str | None] = mapped_column(init=False, default=None)


class Label(Base):
    """Without annotations: only the mapper knows the fields."""

    __tablename__ = "label"

    id = mapped_column(sa.Integer, primary_key=True)
    text = mapped_column(sa.String, nullable=False)
    size = mapped_column(sa.Integer)
    facts = mapped_column(sa.JSON, nullable=False)
    owner_id = mapped_column(sa.ForeignKey("label.id"))
    owner = relationship("Label", remote_side="Label.id", viewonly=True)
    parts = relationship("Label", collection_class=set)
