"""A private MariaDB server; root logs in without a password."""

from pathlib import Path

from tests.servers.process import HOST, Server, free_port, is_listening


class MariaDB(Server):
    """`url(database)` is SQLAlchemy's; `create()` makes a fresh, empty database."""

    name = "mariadb"
    programs = ("mariadbd", "mariadb-install-db", "mariadb")
    install = "mariadb"

    host = HOST
    user = "root"
    password = ""

    def __init__(self, buffer_pool_mib: int = 64) -> None:
        super().__init__()
        self.buffer_pool_mib = buffer_pool_mib
        self.port = free_port()
        self._databases = 0

    @property
    def socket(self) -> Path:
        return self.directory / "s.sock"

    def url(self, database: str = "glance") -> str:
        return f"mysql+pymysql://{self.user}@{HOST}:{self.port}/{database}?charset=utf8mb4"

    def create(self, database: str | None = None, charset: str = "utf8mb4") -> str:
        """Make a database, dropping one of that name, and return its url."""
        self._databases += 1
        database = database or f"glance_{self._databases}"
        self.execute(
            f"DROP DATABASE IF EXISTS `{database}`;"
            f" CREATE DATABASE `{database}` CHARACTER SET {charset}"
        )
        return self.url(database)

    def drop(self, database: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS `{database}`")

    def execute(self, sql: str) -> str:
        """Run statements with the command line client; rows come back tab separated."""
        return self.run("mariadb", "--no-defaults", "-S", self.socket, "-u", "root", "-NBe", sql)

    def prepare(self) -> None:
        self.run(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={self.directory}/data",
            "--user=root",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        )

    def launch(self) -> None:
        self.spawn(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            f"--datadir={self.directory}/data",
            "--user=root",
            f"--port={self.port}",
            f"--bind-address={HOST}",
            f"--socket={self.socket}",
            f"--pid-file={self.directory}/pid",
            "--skip-name-resolve",
            "--skip-log-bin",
            # Committed data survives SIGKILL in the page cache; nobody cuts the power.
            "--innodb-flush-log-at-trx-commit=2",
            f"--innodb-buffer-pool-size={self.buffer_pool_mib}M",
            "--character-set-server=utf8mb4",
        )
        self.wait_until(lambda: is_listening(self.port), "listening")
