"""A private RabbitMQ broker with an epmd of its own; guest logs in with guest."""

import os
import signal

from tests.servers.process import HOST, Server, free_port, is_listening

_CONF = """listeners.tcp.1 = {host}:{port}
loopback_users = none
log.console = true
log.file = false
disk_free_limit.absolute = 50MB
"""


class RabbitMQ(Server):
    """`url` is oslo.messaging's transport_url, `amqp_url` kombu's."""

    name = "rabbitmq"
    programs = ("epmd", "/usr/lib/rabbitmq/bin/rabbitmq-server")
    install = "rabbitmq"

    user = "guest"
    password = "guest"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.url = f"rabbit://{self.user}:{self.password}@{HOST}:{self.port}/"
        self.amqp_url = f"amqp://{self.user}:{self.password}@{HOST}:{self.port}//"
        self._epmd = free_port()
        self._distribution = free_port()

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "RABBITMQ_NODENAME": f"r{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": f"{self.directory}/mnesia",
            "RABBITMQ_LOG_BASE": f"{self.directory}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": f"{self.directory}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self.directory}/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{self.directory}/pid",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            # The schedulers of an idle node otherwise spin on every core.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none"
            ),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": HOST,
        }

    def prepare(self) -> None:
        self.write("rabbitmq.conf", _CONF.format(host=HOST, port=self.port))
        self.write("enabled_plugins", "[].\n")

    def launch(self) -> None:
        self.spawn("epmd", "epmd", "-port", str(self._epmd), "-address", HOST)
        self.wait_until(lambda: is_listening(self._epmd), "port mapper")
        self.spawn("rabbitmq", "/usr/lib/rabbitmq/bin/rabbitmq-server", stop_signal=signal.SIGTERM)
        # The port opens before the broker can serve; only then does it write this line.
        log = self.directory / "rabbitmq.log"
        started = log.stat().st_size
        self.wait_until(lambda: b"Server startup complete" in _from(log, started), "startup")


def _from(path: os.PathLike[str], offset: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read()
