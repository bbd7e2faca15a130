"""What clients were told, to be held against what is there in the end."""

import enum
import hashlib
import random
import threading
from dataclasses import dataclass


class Word(enum.Enum):
    """What the service has said of an image."""

    ACTIVE = "active"  # acknowledged: its bytes must be there from now on
    DELETED = "deleted"  # acknowledged: it must be gone
    UNKNOWN = "unknown"  # the answer never came, or the request was meant to fail


@dataclass
class Known:
    """One image as its clients know it. An image whose bytes were never acknowledged may have
    any of the contents that were sent."""

    tenant: str
    checksums: set[str]
    word: Word = Word.UNKNOWN


class Ledger:
    """Shared by all clients; counts faults and what should not have happened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.images: dict[str, Known] = {}
        self.faults = 0
        self.requests = 0
        self.bad_answers: list[str] = []
        self.lost: list[str] = []

    def fault(self) -> None:
        with self._lock:
            self.faults += 1

    def request(self) -> None:
        with self._lock:
            self.requests += 1

    def complain(self, what: str) -> None:
        with self._lock:
            self.bad_answers.append(what)

    def lose(self, what: str) -> None:
        with self._lock:
            self.lost.append(what)

    def expect(self, image_id: str, tenant: str, content: bytes) -> None:
        with self._lock:
            known = self.images.setdefault(image_id, Known(tenant, set()))
            known.checksums.add(hashlib.md5(content).hexdigest())

    def set(self, image_id: str, word: Word, checksum: str | None = None) -> None:
        with self._lock:
            known = self.images[image_id]
            known.word = word
            if checksum is not None:
                known.checksums = {checksum}

    def pick(self, chance: random.Random, tenant: str, word: Word) -> str | None:
        with self._lock:
            ids = [
                image_id
                for image_id, known in self.images.items()
                if known.tenant == tenant and known.word is word
            ]
        return chance.choice(ids) if ids else None
