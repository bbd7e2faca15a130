"""Images in the accounts of those who upload them, readable as the containers' ACLs say."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, TypeVar

from common import errors
from common.context import RequestContext
from glance_store.driver import Capability, Stored
from glance_store.drivers import swift_locations
from glance_store.drivers.swift import Place, SwiftStore
from glance_store.drivers.swift_account import Account, CredentialsRefused
from glance_store.drivers.swift_locations import SwiftLocation
from glance_store.errors import BackendUnavailable, StorageWriteDenied

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class MultiTenantSwiftStore(SwiftStore):
    """Each image in a container of its own, `<swift_store_container>_<image id>`.

    URLs name the storage account and hold no credentials: an image is read with the token of
    whoever asks. The configured account, if it has a reseller's role, finishes what a caller
    has been granted but whose token has died: deletes, clean-up and ACLs.
    """

    capabilities: ClassVar[Capability] = (
        Capability.READ | Capability.WRITE | Capability.DELETE | Capability.ACL
    )

    def set_acls(
        self,
        ctx: RequestContext,
        url: str,
        *,
        public: bool,
        read: Sequence[str] = (),
        write: Sequence[str] = (),
    ) -> None:
        if not _in_an_uploaders_account(url):
            return
        place = self._place(ctx, url)
        if ctx.token is None and not self._is_own(ctx, _storage_url(place)):
            raise errors.Forbidden("The store does not let you use the image.")
        headers = self._acls(["*"] if public else read, write)
        self._with_rights(
            ctx, place, lambda account, at: account.post_container(at.container, headers)
        )

    def contents(self) -> Iterator[Stored]:
        return iter(())

    def _acls(self, read: Sequence[str], write: Sequence[str]) -> dict[str, str]:
        """Container headers. Everyone is `*:*`, whoever has a token, never `.r:*` (SEC-035)."""
        admins = self.conf["swift_store_admin_tenants"]

        def listed(tenants: Sequence[str]) -> str:
            return ",".join(f"{tenant}:*" for tenant in dict.fromkeys([*tenants, *admins]))

        everyone = "*" in read
        return {
            "X-Container-Read": "*:*" if everyone else listed(read),
            "X-Container-Write": listed(write),
        }

    def _new_place(self, ctx: RequestContext, image_id: str) -> tuple[Place, str]:
        storage_url = self._accounts.storage_urls(ctx)[0]
        container = f"{self.conf['swift_store_container']}_{image_id}"
        if ctx.token is None:
            account = self._accounts.of_service(storage_url)
        else:
            account = self._accounts.of_caller(ctx, storage_url)
        url = SwiftLocation(container, image_id, base=storage_url).url
        return Place(account, container, image_id), url

    def _require_container(self, place: Place) -> None:
        place.account.put_container(place.container, self._acls((), ()))

    @contextlib.contextmanager
    def _lasting(self, ctx: RequestContext, place: Place) -> Iterator[Account]:
        account = place.account
        with contextlib.ExitStack() as stack:
            storage_url = account.credentials.session().storage_url
            trust = self._accounts.trusted(ctx, storage_url)
            if trust is not None and self.conf["swift_store_use_trusts"]:
                try:
                    account = self._accounts.account(stack.enter_context(trust))
                except BackendUnavailable:
                    LOG.warning("No Keystone trust was granted: the upload ends with its token.")
            yield account

    def _with_rights(
        self, ctx: RequestContext, place: Place, work: Callable[[Account, Place], T]
    ) -> T:
        try:
            return work(place.account, place)
        except (errors.Forbidden, StorageWriteDenied) as refusal:
            storage_url = _storage_url(place)
            if not place.account.credentials.as_caller or not self._is_own(ctx, storage_url):
                raise
            LOG.info("The caller's token was refused; the store uses its own.")
            try:
                return work(self._accounts.of_service(storage_url), place)
            except (errors.Forbidden, StorageWriteDenied, CredentialsRefused):
                raise refusal from None

    def _is_own(self, ctx: RequestContext, storage_url: str) -> bool:
        """Is the account the caller's, so that a location of someone else's gains nothing?"""
        if ctx.is_admin:
            return True
        return storage_url.rstrip("/") in {
            url.rstrip("/") for url in self._accounts.storage_urls(ctx)
        }

    def _delete(self, account: Account, place: Place) -> None:
        super()._delete(account, place)
        self._delete_container(account, place)

    def _discard(self, account: Account, place: Place) -> None:
        super()._discard(account, place)
        self._delete_container(account, place)

    def _removed(self, account: Account, place: Place) -> None:
        super()._removed(account, place)
        self._delete_container(account, place)

    def _delete_container(self, account: Account, place: Place) -> None:
        """An image's own container goes with it, unless something else was put there."""
        if place.container != f"{self.conf['swift_store_container']}_{place.name}":
            return
        with contextlib.suppress(errors.NotFound, BackendUnavailable):
            account.delete_container(place.container)


def _storage_url(place: Place) -> str:
    return place.account.credentials.session().storage_url


def _in_an_uploaders_account(url: str) -> bool:
    location = swift_locations.parse(url)
    return location.reference is None and location.user is None
