"""``telex run``, as a process: it serves, stops, reloads, and takes its settings."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect, unix_connect

from telex.server import Settings
from tests.support.ports import free_port
from tests.support.programs import TELEX, program

APP = """
import os
from telex import Telex, websocket_listener

ANSWER = "one"

@websocket_listener("/")
def echo(data: str) -> str:
    return f"{ANSWER} {data}"

@websocket_listener("/pid")
def pid(data: str) -> int:
    return os.getpid()

app = Telex([echo, pid])

made = 0

def make() -> Telex:
    global made
    made += 1
    print("made", made)
    return Telex([echo])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "service.py").write_text(APP)
    return tmp_path


def echoes(url: str, expected: str = "one hello") -> None:
    with connect(url, open_timeout=5) as client:
        client.send("hello")
        assert client.recv(timeout=5) == expected


@pytest.mark.program
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_serves_until_a_signal_and_closes_what_is_open(folder: Path, by: signal.Signals) -> None:
    with program(TELEX, "run", "service:app", "--port", "0", cwd=folder) as running:
        with connect(running.url(), open_timeout=5) as client:
            client.send("hello")
            assert client.recv(timeout=5) == "one hello"
            status = running.stop(by)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert status in {0, 130, 143, -by, -signal.SIGTERM}, running.log
        assert "Traceback" not in running.log


@pytest.mark.program
def test_it_serves_on_the_port_it_is_given(folder: Path) -> None:
    port = free_port()
    with program(TELEX, "run", "service:app", "--host", "127.0.0.1", "--port", str(port), cwd=folder) as running:
        assert running.port == port
        echoes(f"ws://127.0.0.1:{port}/")


@pytest.mark.program
def test_a_port_that_is_taken_is_told_of(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with program(TELEX, "run", "service:app", "--port", port, cwd=folder) as running:
            running.wait_for("address already in use")
            assert running.wait(20) == 3


@pytest.mark.program
def test_it_serves_on_a_unix_socket(folder: Path) -> None:
    path = str(folder / "s")
    with program(TELEX, "run", "service:app", "--uds", path, cwd=folder) as running:
        running.wait_for("running on unix socket")
        with unix_connect(path, "ws://localhost/", open_timeout=5) as client:
            client.send("hello")
            assert client.recv(timeout=5) == "one hello"
        running.stop()
    assert not Path(path).exists()


@pytest.mark.program
def test_it_serves_on_a_descriptor(folder: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port, descriptor = listening.getsockname()[1], listening.fileno()
        with program(
            TELEX, "run", "service:app", "--fd", str(descriptor), cwd=folder, descriptors=[descriptor]
        ) as running:
            running.wait_for("running on socket")
            echoes(f"ws://127.0.0.1:{port}/")


@pytest.mark.program
def test_a_factory_is_called_once(folder: Path) -> None:
    with program(TELEX, "run", "service:make", "--factory", "--port", "0", cwd=folder) as running:
        echoes(running.url())
        running.stop()
        assert "made 1" in running.log
        assert "made 2" not in running.log


@pytest.mark.program
def test_several_workers_serve_one_port(folder: Path) -> None:
    with program(TELEX, "run", "service:app", "--workers", "2", "--port", "0", cwd=folder) as running:
        running.wait_for("Application startup complete", times=2)
        running.accepts(("127.0.0.1", running.port))
        with connect(running.url("/pid"), open_timeout=5) as client:
            client.send("")
            assert int(client.recv(timeout=5)) != running.process.pid
        running.stop()
        running.wait_for("Application shutdown complete", times=2)


@pytest.mark.program
def test_workers_that_cannot_be_replaced_go_on(folder: Path) -> None:
    with program(TELEX, "run", "service:app", "--port", "0", "--workers", "2", cwd=folder) as running:
        running.wait_for("Application startup complete", times=2)
        (folder / "service.py").write_text("raise RuntimeError('broken deploy')\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("could not start: keeping the old workers")
        for _ in range(4):
            echoes(running.url())
        assert running.stop() in {0, 143, -signal.SIGTERM}, running.log


@pytest.mark.program
def test_the_environment_gives_settings_and_options_count_more(folder: Path) -> None:
    env = {"TELEX_PORT": "1", "TELEX_LOG_FORMAT": "json"}
    with program(TELEX, "run", "service:app", "--port", "0", cwd=folder, env=env) as running:
        assert running.port > 1
        assert running.log.startswith('{"time"')


@pytest.mark.program
def test_the_log_level_is_heeded(folder: Path) -> None:
    uds = str(folder / "s")
    with program(TELEX, "run", "service:app", "--uds", uds, "--log-level", "error", cwd=folder) as running:
        running.accepts(uds)
        with unix_connect(uds, "ws://localhost/", open_timeout=5) as client:
            client.send("hello")
        running.stop()
        assert running.log == ""


@pytest.mark.program
def test_a_proxy_behind_a_unix_socket_is_believed(folder: Path) -> None:
    (folder / "seen.py").write_text(
        "from telex import Telex, WebSocket, websocket_listener\n"
        "@websocket_listener('/')\n"
        "def seen(data: str, socket: WebSocket) -> str:\n"
        "    return f'{socket.url.scheme} {socket.client.host}'\n"
        "app = Telex([seen])\n"
    )
    path = str(folder / "s")
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.9"}
    for options in ([], ["--forwarded-allow-ips", "10.0.0.1"]):
        with program(TELEX, "run", "seen:app", "--uds", path, *options, cwd=folder) as running:
            running.wait_for("running on unix socket")
            with unix_connect(path, "ws://localhost/", open_timeout=5, additional_headers=headers) as client:
                client.send("")
                assert client.recv(timeout=5) == "wss 198.51.100.9"
            running.stop()


@pytest.mark.program
def test_json_logging_covers_the_applications_own_records(folder: Path) -> None:
    (folder / "logs.py").write_text(
        "import logging\nfrom telex import Telex\n"
        "def start() -> None:\n    logging.getLogger('shop').warning('mine')\n"
        "app = Telex([], on_startup=[start])\n"
    )
    with program(TELEX, "run", "logs:app", "--port", "0", "--log-format", "json", cwd=folder) as running:
        running.wait_for("mine")
        running.stop()
    assert json.loads(next(line for line in running.log.splitlines() if "mine" in line))["logger"] == "shop"


@pytest.mark.program
def test_it_serves_over_tls(folder: Path) -> None:
    key, certificate = str(folder / "key.pem"), str(folder / "cert.pem")
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", key, "-out", certificate]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name, *files]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    trusting = ssl.create_default_context(cafile=certificate)
    arguments = ["--ssl-keyfile", key, "--ssl-certfile", certificate, "--port", "0"]
    with (
        program(TELEX, "run", "service:app", *arguments, cwd=folder) as running,
        connect(running.url(scheme="wss"), ssl=trusting, open_timeout=5) as client,
    ):
        client.send("hello")
        assert client.recv(timeout=5) == "one hello"


@pytest.mark.program
def test_an_app_that_cannot_start_ends_the_command(folder: Path) -> None:
    (folder / "failing.py").write_text(
        "from telex import Telex\ndef fail() -> None: raise OSError('no disk')\napp = Telex(on_startup=[fail])\n"
    )
    with program(TELEX, "run", "failing:app", "--port", "0", cwd=folder) as running:
        running.wait_for("OSError: no disk")
        assert running.wait(20) == 3


@pytest.mark.program
def test_http_is_answered_too(folder: Path) -> None:
    with program(TELEX, "run", "service:app", "--port", "0", cwd=folder) as running:
        assert httpx.get(running.url(scheme="http")).status_code == 426


def save_until_closed(file: Path, text: str, client: ClientConnection) -> None:
    """Save as a person does who sees nothing happen: uvicorn's reloader misses changes before it has begun to watch."""
    for _ in range(8):
        file.write_text(text)
        with contextlib.suppress(TimeoutError), pytest.raises(ConnectionClosed):
            client.recv(timeout=2)
        if client.close_code is not None:
            return
    pytest.fail("the change was not noticed within 16 s")


@pytest.mark.program
def test_a_change_is_served_though_a_socket_is_open(folder: Path) -> None:
    with program(TELEX, "run", "service:app", "--port", "0", "--reload", cwd=folder) as running:
        running.wait_for("Application startup complete")
        running.accepts(("127.0.0.1", running.port))
        with connect(running.url(), open_timeout=5) as client:
            client.send("hello")
            assert client.recv(timeout=5) == "one hello"
            save_until_closed(folder / "service.py", APP.replace('"one"', '"the second"'), client)
        running.wait_for("Application startup complete", times=2)
        running.accepts(("127.0.0.1", running.port))
        echoes(running.url(), "the second hello")
        with connect(running.url(), open_timeout=5):
            running.stop()


@pytest.mark.program
def test_a_broken_app_is_reloaded_once_it_is_mended(folder: Path) -> None:
    (folder / "service.py").write_text("app = telex\n")
    with program(TELEX, "run", "service:app", "--port", "0", "--reload", cwd=folder) as running:
        running.wait_for("NameError: name 'telex' is not defined")
        for _ in range(8):  # see save_until_closed
            (folder / "service.py").write_text(APP)
            with contextlib.suppress(AssertionError):
                running.wait_for("Application startup complete", within=2)
                break
        running.wait_for("Application startup complete", within=1)
        running.accepts(("127.0.0.1", running.port))
        echoes(running.url())
        running.stop()


def test_every_option_is_a_setting_of_the_server() -> None:
    from telex.cli.commands import run

    options = {option.name for option in run.params} - {"target", "app_dir"}
    assert options <= set(Settings.__dataclass_fields__)
