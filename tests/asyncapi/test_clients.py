"""What ``telex client`` writes: types that the compilers accept, and that refuse what the server would refuse."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from click.testing import CliRunner

from telex import Telex, websocket_listener
from telex.cli.commands import telex as command
from telex.cli.documents import client_name
from telex.contract.python import write_python
from telex.contract.typescript import write_typescript
from tests.asyncapi.app import app as everything
from tests.asyncapi.generated import types_of
from tests.support.npm import installed, node

ROOT = Path(__file__).parent.parent.parent
RUNTIME = ROOT / "clients" / "typescript" / "src"
TYPESCRIPT = "typescript@5.9.3"

USES = """
import { everything, type Uuid } from "./everything.js";

const socket = everything("ws://localhost/socket", { token: () => "t" });
const room = socket.route("/rooms/{room}/{number}", { room: "a", number: "1" }, { page: "2" });
const moved = await room.call({ type: "move", x: 1, at: [0, "a"] }, { timeout: 5 });
if (moved !== null) {
  const by: Uuid = moved.by;
  const price: string = moved.price;
  const kind: 3 | "jump" | "step" = moved.kind;
  console.log(by, price, kind);
}
room.on("joined", (message) => console.log(message.who.length));
room.answer("confirm", async (question) => ({ yes: question.question === "" }));
for await (const part of socket.route("/table").stream({ type: "say", text: "hi" })) {
  if (Array.isArray(part)) console.log(part[1].toFixed());
  else console.log(part.text, part.to?.length);
}
const bytes: Uint8Array = await socket.route("/v1/bytes").call(new Uint8Array([1]));
for await (const event of socket.channel("/rooms/{room}/events", { room: "a" }, { since: "e:1" })) {
  if (event.type === "event") console.log(event.data.text);
}
const root = socket.route<"/orders">();
console.log(bytes, (await root.call({ kind: "cancel", number: 3 })).total.toFixed());

// @ts-expect-error a field that is not there
await room.call({ type: "say", txt: "hi" });
// @ts-expect-error a message that the route does not take
await room.call({ type: "nope" });
// @ts-expect-error a field too many
await room.call({ type: "say", text: "hi", more: 1 });
// @ts-expect-error an answer in parts is no answer
await socket.route("/table").call({ type: "say", text: "hi" });
// @ts-expect-error a parameter is missing
socket.route("/rooms/{room}/{number}", { room: "a" });
// @ts-expect-error there is no such path
socket.route("/nothing");
// @ts-expect-error text is no UUID
const wrong: Uuid = "ada";
// @ts-expect-error a question that the server does not ask
room.answer("other", () => ({ yes: true }));
// @ts-expect-error an answer that the server does not take
room.answer("confirm", () => ({ no: true }));
// @ts-expect-error null has no fields
console.log(moved.by, wrong);
"""
CONFIG = """
{"compilerOptions": {"target": "es2022", "module": "nodenext", "lib": ["es2023", "dom", "dom.iterable"], "types": [],
 "strict": true, "noUncheckedIndexedAccess": true, "noUnusedLocals": true, "noEmit": true,
 "verbatimModuleSyntax": true}, "files": ["uses.ts", "contract_use.ts"]}
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_typescript_takes_good_uses_and_refuses_wrong_ones(tmp_path: Path) -> None:
    packages = installed(TYPESCRIPT)
    runtime = tmp_path / "node_modules" / "telex-client"
    shutil.copytree(RUNTIME, runtime / "src", ignore=shutil.ignore_patterns("react*"))
    (runtime / "package.json").write_text('{"name": "telex-client", "type": "module", "exports": "./src/index.ts"}')
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "everything.ts").write_text(write_typescript(everything.asyncapi(), "everything"))
    (tmp_path / "uses.ts").write_text(USES)
    for name in ("contract_client.ts", "contract_use.ts"):
        shutil.copy(ROOT / "examples" / "docs" / name, tmp_path)
    (tmp_path / "tsconfig.json").write_text(CONFIG)
    compiler = packages / "node_modules" / "typescript" / "lib" / "tsc.js"
    done = node(compiler, "--project", str(tmp_path), packages=packages)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.slow
def test_mypy_accepts_the_types_in_python(tmp_path: Path) -> None:
    file = tmp_path / "everything.py"
    file.write_text(write_python(everything.asyncapi(), "everything"))
    check = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def module(app: Telex) -> dict[str, Any]:
    return types_of(app.asyncapi())


def test_the_types_in_python_read_and_write_what_the_server_does() -> None:
    types = module(everything)
    move = types["Move"](x=3)
    assert msgspec.json.encode(move) == b'{"type":"move","x":3}'
    with pytest.raises(msgspec.ValidationError, match="Expected `int` <= 7"):
        msgspec.convert({"type": "move", "x": 8}, types["Move"])
    tree = msgspec.convert({"name": "a", "children": [{"name": "b", "children": []}]}, types["Tree"])
    assert tree.children[0].name == "b"
    assert types["CONTRACT"] == everything.contract()
    calls = types["APP_ROUTES"]["/rooms/{room}/{number}"]["calls"]
    assert calls == {types["Move"]: types["Moved"] | None, types["Say"]: types["Moved"] | None}
    assert types["APP_ROUTES"]["/table"]["streams"] == {types["Say"]: types["SaySent"] | types["Point"]}


def with_type(kind: Any) -> Telex:
    @websocket_listener("/")
    def listen(data: Any) -> None: ...

    listen.fn.__annotations__["data"] = kind
    return Telex([listen])


def test_names_that_languages_keep_for_themselves() -> None:
    fields = {"class": "a", "from": "b", "a-b": "c", "type": "d", "1st": "e"}
    renamed = {f"f{index}": name for index, name in enumerate(fields)}
    kind = msgspec.defstruct("Promise", [(name, str) for name in renamed], rename=renamed)
    text = write_typescript(with_type(kind).asyncapi(), "names")
    assert "export interface Promise_ {" in text
    assert '  "a-b": string;' in text
    types = module(with_type(kind))
    (found,) = (each for each in types["APP_ROUTES"]["/"]["calls"])
    assert msgspec.to_builtins(msgspec.convert(fields, found)) == fields


def test_unions_that_msgspec_does_not_read_are_open() -> None:
    one, two = (msgspec.defstruct(name, [("x", kind)]) for name, kind in (("One", int), ("Two", str)))
    app = with_type(dict[str, Any])

    @websocket_listener("/both")
    def both(data: str) -> Any: ...

    both.fn.__annotations__["return"] = one | two
    types = module(Telex([*(plan.handler for plan in app.plans), both]))  # type: ignore[list-item]
    assert types["APP_ROUTES"]["/both"]["calls"] == {str: Any}


def test_a_function_has_no_name_that_the_language_or_the_module_has() -> None:
    for name in ("contract", "function"):
        assert f"export function {name}Client(url: string" in write_typescript(with_type(int).asyncapi(), name)


def test_comments_do_not_end_early() -> None:
    kind = Annotated[int, msgspec.Meta(description="a */ b")]
    text = write_typescript(with_type(msgspec.defstruct("Type", [("x", kind)])).asyncapi(), "app")
    assert "  /** a * / b */\n  x: number;" in text


@pytest.mark.parametrize("lang", ["ts", "py"])
def test_the_command_writes_and_checks(tmp_path: Path, lang: str) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(command, ["client", "tests.asyncapi.app:app", "--lang", lang, *arguments])

    file = tmp_path / "client"
    assert run("--out", str(file)).exit_code == 0
    assert file.read_text() == run().output
    assert run("--check", str(file)).exit_code == 0
    file.write_text("old")
    stale = run("--check", str(file))
    assert stale.exit_code == 1
    assert f"write it with telex client tests.asyncapi.app:app --lang {lang} --out {file}" in stale.output


@pytest.mark.parametrize(
    ("target", "name"),
    [("chat:app", "chat"), ("desk.app:app", "desk"), ("app:app", "app"), ("a.my_chat:make", "my_chat")],
)
def test_the_function_is_named_after_the_app(target: str, name: str) -> None:
    assert client_name(target) == name
