from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from telex import Provide, Telex, websocket_listener
from telex.dto import DTOConfig, SQLAlchemyDTO, dto_field


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    full_name: Mapped[str]
    email: Mapped[str | None] = mapped_column(info=dto_field("write-only"))
    books: Mapped[list[Book]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey("author.id"), info=dto_field("private"))
    author: Mapped[Author | None] = relationship(back_populates="books")


engine = sa.create_engine(os.environ.get("LIBRARY", "sqlite:///library.sqlite3"))


def open_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@websocket_listener("/authors", dto=SQLAlchemyDTO[Annotated[Author, DTOConfig(rename_strategy="camel")]])
def add_author(data: Author, session: Session) -> Author:
    session.add(data)
    session.commit()
    # All that the reply needs is loaded here: the DTO does not use the session.
    query = sa.select(Author).where(Author.id == data.id).options(selectinload(Author.books))
    return session.scalars(query.execution_options(populate_existing=True)).one()


@asynccontextmanager
async def tables(app: Telex) -> AsyncIterator[None]:
    Base.metadata.create_all(engine)
    yield


app = Telex([add_author], dependencies={"session": Provide(open_session, scope="message")}, lifespan=[tables])
