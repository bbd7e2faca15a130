"""A simulated MongoDB: real pymongo and gridfs talk to it over TCP.

There is no MongoDB package to install, so this proves the client's side only: no
authentication, no write concern, no replica set. The data is in the process's memory.
"""

from tests.servers.process import HOST, PROGRAMS, Server, free_port, is_listening, servers_directory


class Mongo(Server):
    """`url` is pymongo's; a `restart` starts empty."""

    name = "mongo"
    venv = "mongo"
    install = "mongo"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.url = f"mongodb://{HOST}:{self.port}"

    def prepare(self) -> None:
        pass

    def launch(self) -> None:
        python = servers_directory() / "mongo/bin/python"
        self.spawn("mongo", python, PROGRAMS / "mongo_sim.py", str(self.port))
        self.wait_until(lambda: is_listening(self.port), "listening")
