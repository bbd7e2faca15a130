"""Location URLs encrypted for the registry (`metadata_encryption_key`, registry-v1.md section 9).

The format is the one existing databases hold: AES-CBC under a random IV, the text followed by a
NUL and random padding, all in URL-safe base64. It carries no authentication, so what decrypts to
something that is not a URL is reported and never used.
"""

import base64
import binascii
import os
import secrets
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from common import errors
from common.config import Configuration, ConfigurationError

_BLOCK: Final = 64
_IV: Final = 16


def cipher_from(conf: Configuration) -> "LocationCipher | None":
    """The cipher that metadata_encryption_key asks for. Raises ConfigurationError."""
    key = conf.metadata_encryption_key
    try:
        return LocationCipher(key) if key else None
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


class LocationUnreadable(errors.ServiceUnavailable):
    default = "The image's location cannot be decrypted."


class LocationCipher:
    def __init__(self, key: str) -> None:
        """Raises ValueError, naming the option, for a key that is not 16, 24 or 32 bytes."""
        self._key = key.encode()
        if len(self._key) not in (16, 24, 32):
            raise ValueError("metadata_encryption_key: must be 16, 24 or 32 bytes long")

    def encrypt(self, url: str) -> str:
        text = url.encode() + b"\0"
        padding = bytes(1 + secrets.randbelow(255) for _ in range(-len(text) % _BLOCK))
        iv = os.urandom(_IV)
        encryptor = Cipher(algorithms.AES(self._key), modes.CBC(iv)).encryptor()
        sealed = iv + encryptor.update(text + padding) + encryptor.finalize()
        return base64.urlsafe_b64encode(sealed).decode("ascii")

    def decrypt(self, sealed: str) -> str:
        """Raises LocationUnreadable for anything that was not encrypted with this key."""
        try:
            raw = base64.urlsafe_b64decode(sealed.encode("ascii"))
            cipher = Cipher(algorithms.AES(self._key), modes.CBC(raw[:_IV]))
            decryptor = cipher.decryptor()
            text = decryptor.update(raw[_IV:]) + decryptor.finalize()
            url = text[: text.rindex(b"\0")].decode("utf-8")
        except (ValueError, binascii.Error):
            raise LocationUnreadable() from None
        if "://" not in url:
            raise LocationUnreadable()
        return url
