"""`glance-manage rewrite-locations`: takes the store's credentials out of old rows (SEC-032).

An older Glance wrote the keys of Swift and S3 into every location. Both forms are read, so this
runs beside the daemons, may be stopped, and goes on when it is run again.
"""

from collections.abc import Iterator
from typing import Any

from common import errors
from common.config import Configuration
from glance_api.identity import service_context
from glance_api.location_cipher import cipher_from
from glance_registry.db import location_urls
from glance_registry.db.engine import Database
from glance_registry.db.location_urls import LocationUrl
from glance_store.loader import Stores

# The exit status where a location is left as it was; 1 is a command that could not run.
_SOME_LEFT = 2


class _Left(Exception):
    """Why a location with credentials stays as it is, in words for the operator."""


class Rewriting:
    """Raises ConfigurationError or BadStoreConfiguration, naming the option, when made."""

    def __init__(self, conf: Configuration, database: Database) -> None:
        self.cipher = cipher_from(conf)
        self.database = database
        self.stores = Stores.configured(conf)
        self.service = service_context(conf)

    def run(self, *, dry_run: bool) -> tuple[int, Iterator[str]]:
        """Rewrite what can be; tell of every location that keeps credentials."""
        lines: list[str] = []
        rewritten = 0
        for found in location_urls.every(self.database):
            try:
                url = self._without_credentials(found)
            except _Left as reason:
                lines.append(f"left {found.image_id}: {reason}")
                continue
            if url is not None:
                rewritten += dry_run or self._change(found, url)
        verb = "would be rewritten" if dry_run else "rewritten"
        summary = f"{rewritten} locations {verb}, {len(lines)} left"
        return _SOME_LEFT if lines else 0, iter([*lines, summary])

    def _without_credentials(self, found: LocationUrl) -> str | None:
        """The location's new URL; None if it holds no credentials. Raises _Left."""
        try:
            url = found.url if self.cipher is None else self.cipher.decrypt(found.url)
            store = self.stores.for_url(url)
            new = store.without_credentials(url)
        except errors.ServiceUnavailable:
            raise _Left("it cannot be decrypted with metadata_encryption_key") from None
        except errors.Invalid:
            raise _Left("no enabled store reads it") from None
        if new == url:
            return None
        if new is None:
            raise _Left("its credentials are not those that the store is configured with")
        if found.has_bytes:
            # Whatever the two URLs have in common, what counts is that the bytes are there.
            try:
                store.size(self.service, new)
            except errors.GlanceError:
                raise _Left("its bytes are not found without the credentials in it") from None
        return new

    def _change(self, found: LocationUrl, url: str) -> bool:
        stored = url if self.cipher is None else self.cipher.encrypt(url)
        return self.database.write(
            lambda connection: location_urls.change(connection, found, stored)
        )


def add_parsers(subparsers: Any) -> None:
    rewrite = subparsers.add_parser(
        "rewrite-locations",
        help="Take the configured stores' credentials out of the locations of an older Glance, "
        "which cannot read those of S3 afterwards.",
    )
    rewrite.add_argument("--dry-run", action="store_true", help="Only say what is found.")
    rewrite.set_defaults(
        report=lambda conf, database, args: Rewriting(conf, database).run(dry_run=args.dry_run)
    )
