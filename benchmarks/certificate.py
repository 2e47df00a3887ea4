"""A self-signed certificate for 127.0.0.1, made anew for each run."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """Where a server finds its certificate and key, both PEM."""

    certificate: Path
    key: Path

    def for_server(self) -> ssl.SSLContext:
        """What servers take that want a context."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def for_client(self) -> ssl.SSLContext:
        """Trusts this certificate and no other."""
        return ssl.create_default_context(cafile=self.certificate)


@contextlib.contextmanager
def made() -> Iterator[Certificate]:
    """A new certificate; its files live as long as the block."""
    with tempfile.TemporaryDirectory() as folder:
        found = Certificate(Path(folder, "certificate.pem"), Path(folder, "key.pem"))
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        files = ["-keyout", str(found.key), "-out", str(found.certificate)]
        subprocess.run([*command, *names, *files], check=True, capture_output=True)
        yield found
