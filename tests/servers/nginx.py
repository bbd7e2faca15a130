"""A private nginx: files over HTTP and HTTPS, and optionally a proxy before another server.

What `http` store and copy-from tests fetch from, and the yardstick for serving a file.
"""

import os
from pathlib import Path

from tests.servers.process import HOST, Server, free_port, is_listening

_CONF = """daemon off;
worker_processes {workers};
pid {directory}/pid;
error_log {directory}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
    access_log {directory}/access.log;
    default_type application/octet-stream;
    sendfile on;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ssl_certificate {directory}/cert.pem;
    ssl_certificate_key {directory}/key.pem;
    server {{
        listen {host}:{port};
        listen {host}:{tls_port} ssl;
        root {root};
        {proxy}
        {statuses}
        location /redirect/ {{ rewrite ^/redirect/(.*)$ /$1 redirect; }}
        location /loop {{ return 302 /loop; }}
    }}
}}
"""

_PROXY = """location /proxied/ {{
            proxy_pass {url}/;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_http_version 1.1;
        }}"""


class Nginx(Server):
    """Serves the directory `root` at `url` and `tls_url` (trust `ca`).

    `/redirect/NAME` answers 302 to the file, `/loop` redirects to itself for ever, and
    `/status/CODE` answers that error. With `Nginx(proxy_to=URL)` everything below
    `/proxied/` goes to that server, so `tls_url + "/proxied"` puts TLS in front of it.
    """

    name = "nginx"
    programs = ("nginx", "openssl")
    install = "nginx"

    def __init__(self, proxy_to: str | None = None, workers: int = 1) -> None:
        super().__init__()
        self.proxy_to = proxy_to
        self.workers = workers
        self.port = free_port()
        self.tls_port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.tls_url = f"https://{HOST}:{self.tls_port}"

    @property
    def root(self) -> Path:
        return self.directory / "files"

    @property
    def ca(self) -> Path:
        """The self-signed certificate, valid for 127.0.0.1 and localhost."""
        return self.directory / "cert.pem"

    def put(self, name: str, content: bytes) -> str:
        """Make a file and return its url."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"{self.url}/{name}"

    def requests(self) -> list[str]:
        """The access log, a line per answered request."""
        return (self.directory / "access.log").read_text().splitlines()

    def prepare(self) -> None:
        self.root.mkdir()
        make_certificate(self)
        statuses = "".join(
            f"location = /status/{code} {{ return {code}; }}\n"
            for code in (*range(400, 418), *range(500, 506))
        )
        conf = _CONF.format(
            directory=self.directory,
            workers=self.workers,
            host=HOST,
            port=self.port,
            tls_port=self.tls_port,
            root=self.root,
            statuses=statuses,
            # The workers stay root so that a test may give its files any mode and owner.
            user="user root;" if os.geteuid() == 0 else "",
            proxy=_PROXY.format(url=self.proxy_to.rstrip("/")) if self.proxy_to else "",
        )
        self.write("nginx.conf", conf)

    def launch(self) -> None:
        log = self.directory / "error.log"
        self.spawn("nginx", "nginx", "-c", self.directory / "nginx.conf", "-e", log)
        self.wait_until(lambda: is_listening(self.tls_port), "listening")


def make_certificate(server: Server) -> tuple[Path, Path]:
    """A self-signed certificate for this machine in the server's directory: cert, key."""
    certificate, key = server.directory / "cert.pem", server.directory / "key.pem"
    server.run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "30", "-subj", f"/CN={HOST}", "-keyout", key, "-out", certificate),
        *("-addext", f"subjectAltName=IP:{HOST},DNS:localhost"),
    )
    return certificate, key
