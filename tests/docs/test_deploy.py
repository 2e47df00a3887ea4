"""The recipes of the page on deployment, run with the programs that they are for."""

from __future__ import annotations

import configparser
import json
import re
import signal
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from telex.server import Settings
from tests.channels.tls import make_certificate
from tests.docs.pages import EXAMPLES
from tests.support.debian import DebianProgram, find_program
from tests.support.ports import free_port
from tests.support.programs import TELEX, output_of, program

PATIENCE = 30

SERVICE = """
from telex import Telex, WebSocket, websocket_listener

@websocket_listener("/echo")
def echo(data: str, socket: WebSocket) -> str:
    return f"{data} {socket.url.scheme} {socket.client.host} {socket.scope['root_path']}"

app = Telex([echo])
"""

PACKAGES = {
    "nginx": ("nginx", "nginx-common"),
    "haproxy": ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"),
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], DebianProgram]:
    """Finds a program, or makes the test an expected failure where it cannot be had."""

    def find(name: str) -> DebianProgram:
        found = find_program(name, PACKAGES[name], tmp_path_factory.mktemp(name))
        if found is None:
            pytest.xfail(f"{name} is neither installed nor in reach of apt-get")
        return found

    return find


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "service.py").write_text(SERVICE)
    made = make_certificate(tmp_path)
    (tmp_path / "both.pem").write_text(made.path.read_text() + made.key.read_text())
    return tmp_path


def trusting(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "localhost.pem"))
    context.check_hostname = True
    return context


def nginx_config(folder: Path, port: int, app: str) -> str:
    """The pages' configuration, with the ports, certificate and folders of this test."""
    server = (EXAMPLES / "nginx.conf").read_text()
    server = server.replace("127.0.0.1:8000", app).replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    server = server.replace("/etc/ssl/app.example.com.pem", str(folder / "localhost.pem"))
    server = server.replace("/etc/ssl/app.example.com.key", str(folder / "localhost.key"))
    prefix = (EXAMPLES / "nginx_prefix.conf").read_text()
    assert server.rstrip().endswith("}")
    server = server.rstrip()[:-1] + prefix + "}\n"
    paths = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{ access_log off; {paths} {server} }}
"""


def haproxy_config(folder: Path, port: int, app: str) -> str:
    text = (EXAMPLES / "haproxy.cfg").read_text()
    text = text.replace(":443", f"127.0.0.1:{port}").replace("127.0.0.1:8000", app)
    return text.replace("/etc/ssl/app.example.com.pem", str(folder / "both.pem"))


def answers(folder: Path, port: int, path: str) -> httpx.Response:
    """The answer to a GET once the proxy and the app are there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with httpx.Client(verify=trusting(folder), trust_env=False, timeout=10) as client:
                answer = client.get(f"https://localhost:{port}{path}")
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == 200:
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


def echoed(folder: Path, port: int, path: str = "/echo", origin: str | None = None) -> str | bytes:
    options = {"ssl": trusting(folder), "proxy": None, "open_timeout": PATIENCE, "origin": origin}
    with connect(f"wss://localhost:{port}{path}", **options) as client:  # type: ignore[arg-type]
        client.send("hello")
        return client.recv(timeout=PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize("listens_on", ["port", "unix socket"])
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_a_proxy_with_tls_before_the_app(
    proxy: str, listens_on: str, folder: Path, installed: Callable[[str], DebianProgram]
) -> None:
    found, port, app_port, unix = installed(proxy), free_port(), free_port(), folder / "chat.sock"
    listening = ["--uds", str(unix)] if listens_on == "unix socket" else ["--port", str(app_port)]
    upstream = f"127.0.0.1:{app_port}"
    if listens_on == "unix socket":
        upstream = f"unix:{unix}" if proxy == "nginx" else f"unix@{unix}"
    config = folder / "config"
    config.write_text((nginx_config if proxy == "nginx" else haproxy_config)(folder, port, upstream))
    options = ["-p", str(folder), "-c", str(config)] if proxy == "nginx" else ["-db", "-f", str(config)]
    with ExitStack() as stack:
        run = [TELEX, "run", "service:app", *listening, "--ready-path", "/ready"]
        app = stack.enter_context(program(*run, cwd=folder))
        app.accepts(str(unix) if listens_on == "unix socket" else ("127.0.0.1", app_port))
        stack.enter_context(program(found.path, *options, cwd=folder, env=found.env))
        assert answers(folder, port, "/ready").json()["ready"]
        assert echoed(folder, port) == "hello wss 127.0.0.1 "
        assert echoed(folder, port, origin=f"https://localhost:{port}") == "hello wss 127.0.0.1 "
        for origin in ("https://elsewhere.example", "https://localhost"):
            with pytest.raises(InvalidStatus) as refused:
                echoed(folder, port, origin=origin)
            assert refused.value.response.status_code == 403
        app.stop(signal.SIGTERM)


@pytest.mark.slow
def test_nginx_serves_the_app_under_a_prefix(folder: Path, installed: Callable[[str], DebianProgram]) -> None:
    found, port, app_port = installed("nginx"), free_port(), free_port()
    config = folder / "config"
    config.write_text(nginx_config(folder, port, f"127.0.0.1:{app_port}"))
    run = [TELEX, "run", "service:app", "--port", str(app_port), "--root-path", "/live", "--ready-path", "/ready"]
    with (
        program(*run, cwd=folder) as app,
        program(found.path, "-p", str(folder), "-c", str(config), cwd=folder, env=found.env),
    ):
        app.accepts(("127.0.0.1", app_port))
        assert answers(folder, port, "/live/ready").json()["ready"]
        assert echoed(folder, port, "/live/echo") == "hello wss 127.0.0.1 /live"


def used_options(command: list[str]) -> set[str]:
    return {word for word in command if word.startswith("--")}


@pytest.mark.program
def test_units_images_and_pods_use_options_that_exist() -> None:
    help_text = output_of(TELEX, "run", "--help").stdout
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(EXAMPLES / "telex.service")
    service = unit["Service"]
    docker = next(line for line in (EXAMPLES / "Dockerfile").read_text().splitlines() if line.startswith("CMD"))
    pod = (EXAMPLES / "kubernetes.yaml").read_text()
    commands = [
        service["ExecStart"].split(),
        json.loads(docker.removeprefix("CMD ")),
        re.findall(r"[\w./:-]+", next(line for line in pod.splitlines() if "command:" in line)),
    ]
    for command in commands:
        options = used_options(command)
        assert options
        assert [option for option in options if option not in help_text] == []
    timeout = Settings().drain_timeout
    delay = float(service["Environment"].removeprefix("TELEX_DRAIN_DELAY="))
    assert float(service["TimeoutStopSec"]) > delay + timeout
    grace = re.search(r"terminationGracePeriodSeconds: (\d+)", pod)
    pod_delay = re.search(r'TELEX_DRAIN_DELAY, value: "(\d+)"', pod)
    assert grace is not None
    assert pod_delay is not None
    assert float(grace[1]) > float(pod_delay[1]) + timeout
    assert service["Type"] == "notify"
    assert (EXAMPLES / "telex.socket").read_text().startswith("[Socket]\nListenStream=8000")
