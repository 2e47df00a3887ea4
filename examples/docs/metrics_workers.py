from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prometheus_client import start_http_server

from examples.docs.metrics import say
from telex import Telex
from telex.telemetry.prometheus import Prometheus

PORTS = range(9100, 9132)


@asynccontextmanager
async def scrape_port(app: Telex) -> AsyncGenerator[None, None]:
    """Serve the metrics of this worker on the first free port."""
    for port in PORTS:
        try:
            server, thread = start_http_server(port, addr="127.0.0.1")
            break
        except OSError:
            continue
    else:
        raise RuntimeError(f"no free port among {PORTS}")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


app = Telex([say], lifespan=[scrape_port], plugins=[Prometheus(path=None)])
