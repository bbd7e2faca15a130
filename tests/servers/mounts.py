"""Small filesystems that are full, read-only or simply separate. Root's affair."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers import process, reaper


class Tmpfs:
    """A tmpfs of a given size: `with Tmpfs("16m") as small: small.path`."""

    def __init__(self, size: str = "16m", options: str = "mode=755") -> None:
        self.size = size
        self.options = options
        self._path: Path | None = None

    @classmethod
    def missing(cls) -> list[str]:
        if os.geteuid() != 0:
            return ["root, to mount"]
        return [] if process.find_program("mount") else ["program mount"]

    @classmethod
    def available(cls) -> bool:
        return not cls.missing()

    @classmethod
    def require(cls) -> None:
        process.require("tmpfs", cls.missing(), "")

    @property
    def path(self) -> Path:
        if self._path is None:
            raise process.ServerFailed("the tmpfs is not mounted")
        return self._path

    def __enter__(self) -> "Tmpfs":
        path = Path(tempfile.mkdtemp(prefix="glance-tmpfs-", dir="/tmp"))
        process.watch(path)
        self._path = path
        try:
            options = f"size={self.size},{self.options}"
            process.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        path = self.path
        self._path = None
        reaper.clean(path, set())
        process.unwatch(path)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Every write below fails with EROFS inside the block."""
        process.run(["mount", "-o", "remount,ro", self.path])
        try:
            yield
        finally:
            process.run(["mount", "-o", "remount,rw", self.path])

    def resize(self, size: str) -> None:
        """Give or take space while the filesystem is in use."""
        process.run(["mount", "-o", f"remount,size={size}", self.path])
