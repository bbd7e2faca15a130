"""What is asked of a location or a copy-from before anything is created."""

import pytest

from common import errors
from common.context import RequestContext
from common.image import Image
from glance_api.layers.base import Source
from glance_api.sources import SourceChecks
from glance_store.drivers.memory import MemoryStore
from glance_store.loader import Stores
from glance_store.outbound import Outbound, OutboundRules

ADMIN = RequestContext(is_admin=True)
USER = RequestContext(tenant="t1")
IMAGE = Image(disk_format="raw", container_format="bare")


class Lender(MemoryStore):
    """Reads everything with the service's rights."""

    accepts_external = True

    def lends_rights(self, ctx, url):
        return True

    def size(self, ctx, url):
        return 7


def check(ctx, source, *allowed):
    rules = OutboundRules(allowed_schemes=frozenset(allowed))
    stores = Stores({"lender": Lender({})}, outbound=Outbound(rules))
    SourceChecks(stores, 100).check(ctx, IMAGE, source)


def test_only_administrators_copy_with_the_services_rights():
    """SEC-040."""
    check(ADMIN, Source(copy_from="memory://id"))
    with pytest.raises(errors.Invalid, match="External sources are not supported"):
        check(USER, Source(copy_from="memory://id"))


def test_a_listed_scheme_is_anybodys_to_copy_from():
    check(USER, Source(copy_from="memory://id"), "memory")


def test_a_location_is_a_matter_of_policy():
    check(USER, Source(location="memory://id"))
