"""Mapped classes, with SQLite in a file and with PostgreSQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, selectinload, sessionmaker

from telex import Provide, Telex, websocket_listener
from telex.dto import DTOConfig, DTOData, SQLAlchemyDTO
from telex.exceptions import SerializationException
from tests.channels.brokers import Postgres
from tests.dto.kinds import DataclassStreet
from tests.dto.library import Author, Base, Book, Label, Mood, Shop, Tag, Truck
from tests.dto.support import misconfigured, reader, refused, writer
from tests.support.live import asked_json, talking

Sessions = Callable[[], Session]
AuthorDTO = SQLAlchemyDTO[Annotated[Author, DTOConfig(rename_strategy="camel", exclude={"initials"})]]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server that is started for these tests."""
    server = Postgres()
    try:
        server.start()
        yield server.url.replace("postgresql:", "postgresql+psycopg:")
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.broker)])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sessions]:
    sqlite = f"sqlite:///{tmp_path / 'library.sqlite3'}"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = sa.create_engine(url)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield sessionmaker(engine)
    engine.dispose()


SENT: dict[str, Any] = {
    "id": 77,
    "firstName": "Ada",
    "token": "stolen",
    "password": "secret",
    "fullName": "x",
    "mood": "bad",
    "books": [{"id": 5, "title": "Notes", "gross": "1"}],
}


async def test_a_message_is_stored_and_the_stored_instance_is_written(sessions: Sessions) -> None:
    def session() -> Iterator[Session]:
        with sessions() as opened:
            yield opened

    @websocket_listener("/", dto=AuthorDTO, dependencies={"session": Provide(session, scope="message")})
    def add(data: Author, session: Session) -> Author:
        session.add(data)
        session.commit()
        query = sa.select(Author).options(selectinload(Author.books)).where(Author.id == data.id)
        return session.scalars(query, execution_options={"populate_existing": True}).one()

    async with talking(Telex([add])) as client:
        reply = await asked_json(client, SENT)
        second = await asked_json(client, {"firstName": "Grace", "lastName": "Hopper"})
        wrong = await asked_json(client, {"firstName": "Eve", "books": [{"title": 3}]})
    assert reply.pop("joined").startswith("20")
    assert reply == {
        "id": 1,
        "firstName": "Ada",
        "lastName": None,
        "mood": "bad",
        "notes": {},
        "fullName": "Ada None",
        "books": [{"id": 1, "title": "Notes", "price": "9.99", "gross": "19.98", "authorId": 1}],
    }
    assert second["id"] == 2
    assert second["books"] == []
    assert wrong["error"]["path"] == "$.books[0].title"
    with sessions() as session_:
        stored = session_.scalars(sa.select(Author).order_by(Author.id)).first()
        assert stored is not None
        assert (stored.token, stored.password, stored.mood) == ("token", "secret", Mood.BAD)


def saved(sessions: Sessions) -> None:
    with sessions() as session:
        session.add(Author(first_name="Ada", last_name="Lovelace", books=[Book(title="Notes")]))
        session.commit()


def statements(session: Session) -> list[str]:
    """Collects the SQL that the session's database executes from now on."""
    seen: list[str] = []
    sa.event.listen(session.get_bind(), "before_cursor_execute", lambda *args: seen.append(args[2]))
    return seen


def test_an_attribute_that_is_not_loaded_is_an_error_and_no_session_is_used(sessions: Sessions) -> None:
    saved(sessions)
    write = writer(AuthorDTO)
    with sessions() as session:
        author = session.scalars(sa.select(Author)).one()
        sql = statements(session)
        with pytest.raises(SerializationException, match=r"Author.books is not loaded.*selectinload\(Author.books\)"):
            write(author)
        session.refresh(author, ["books"])
        sql.clear()
        assert write(author)["books"][0]["title"] == "Notes"
        session.expire(author, ["first_name"])
        with pytest.raises(SerializationException, match=r"Author.first_name is not loaded.*expire_on_commit=False"):
            write(author)
        hybrid = writer(SQLAlchemyDTO[Annotated[Author, DTOConfig(include={"full_name"})]])
        with pytest.raises(SerializationException, match=r"Author.full_name needs an attribute that is not loaded"):
            hybrid(author)
        assert sql == []
        assert author in session
        assert author.full_name == "Ada Lovelace"


def test_a_stored_instance_is_updated(sessions: Sessions) -> None:
    saved(sessions)
    dto = SQLAlchemyDTO[Annotated[Author, DTOConfig(partial=True, exclude={"initials"})]]
    data = reader(dto, DTOData[Author])({"last_name": "King", "id": 9, "token": "x"})
    assert data.as_builtins() == {"last_name": "King"}
    with sessions() as session:
        author = session.scalars(sa.select(Author)).one()
        data.update_instance(author, mood=Mood.BAD)
        session.commit()
    with sessions() as session:
        author = session.scalars(sa.select(Author)).one()
        assert (author.first_name, author.last_name, author.mood) == ("Ada", "King", Mood.BAD)
        assert (author.id, author.token) == (1, "token")


def test_missing_attributes_of_a_new_instance_are_left_out() -> None:
    written = writer(SQLAlchemyDTO[Author])(Author(first_name="Ada"))
    assert written["id"] is None
    assert written["books"] == []
    assert "letters" not in written


def test_generated_columns_are_optional_or_read_only() -> None:
    read = reader(SQLAlchemyDTO[Author])
    author = read({"first_name": "Ada", "initials": "X", "joined": "2001-02-03T04:05:06"})
    assert author.__dict__.keys() == {"_sa_instance_state", "first_name", "joined"}
    assert author.joined == dt.datetime(2001, 2, 3, 4, 5, 6)
    assert "first_name" in refused(read, {}).detail
    book = reader(SQLAlchemyDTO[Book])({"title": "Notes", "price": "1.50", "gross": "9"})
    assert book.price == Decimal("1.50")
    assert "gross" not in book.__dict__


def test_a_primary_key_that_is_not_generated_comes_from_the_client() -> None:
    dto = SQLAlchemyDTO[Annotated[Shop, DTOConfig(exclude={"street_name", "number"})]]
    shop = reader(dto)({"code": "A1", "street": {"street_name": "Main", "number": 2}})
    assert shop.street == DataclassStreet("Main", 2)
    assert writer(dto)(shop) == {"code": "A1", "street": {"street_name": "Main", "number": 2}}
    assert "code" in refused(reader(dto), {}).detail


def test_inherited_columns_and_the_discriminator() -> None:
    truck = reader(SQLAlchemyDTO[Truck])({"id": 4, "type": "car", "wheels": 6, "load": 7})
    assert (truck.wheels, truck.load, truck.type, truck.id) == (6, 7, "truck", None)


def test_a_class_mapped_as_a_dataclass() -> None:
    read = reader(SQLAlchemyDTO[Tag])
    tag = read({"name": "new", "id": 3, "hidden": "shown"})
    assert (tag.name, tag.color, tag.hidden, tag.id) == ("new", "red", "shown", None)
    assert "name" in refused(read, {"color": "blue"}).detail
    assert "requires 'name'" in misconfigured(
        lambda: reader(SQLAlchemyDTO[Annotated[Tag, DTOConfig(exclude={"name"})]])
    )


def test_circular_relationships_end_at_max_nested_depth() -> None:
    author = Author(first_name="Ada", books=[Book(title="Notes")])
    one: Any = writer(SQLAlchemyDTO[Author])(author)
    assert "author" not in one["books"][0]
    two: Any = writer(SQLAlchemyDTO[Annotated[Author, DTOConfig(max_nested_depth=2)]])(author)
    assert two["books"][0]["author"]["first_name"] == "Ada"
    assert "books" not in two["books"][0]["author"]


def test_a_class_without_annotations() -> None:
    dto = SQLAlchemyDTO[Label]
    label = reader(dto)({"text": "a", "facts": [1, {"b": None}], "parts": [{"text": "c", "facts": 2}], "owner": 5})
    assert (label.text, label.facts, label.size) == ("a", [1, {"b": None}], None)
    assert {part.text for part in label.parts} == {"c"}
    part = {"id": None, "text": "c", "size": None, "facts": 2, "owner_id": None}
    whole = {"id": None, "text": "a", "size": None, "facts": [1, {"b": None}], "owner_id": None, "owner": None}
    assert writer(dto)(label) == {**whole, "parts": [part]}
    assert refused(reader(dto), {"text": 5, "facts": 1}).path == "$.text"
    assert refused(reader(dto), {"text": "a", "facts": 1, "size": "x"}).path == "$.size"


def test_a_class_that_is_not_mapped_is_an_error() -> None:
    assert "int is not a model of the kind" in misconfigured(lambda: SQLAlchemyDTO[int])
    assert "Base is not a model of the kind" in misconfigured(lambda: SQLAlchemyDTO[Base])
