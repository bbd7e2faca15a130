"""Limits per image and per owner.

The storage quota itself is kept by the registry, which reserves bytes in the statement that
admits an upload; this layer says how much the owner may hold (SEC-071). The number of members is
the registry's affair too, since a caller does not see all of them (D45).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from common import errors
from common.context import RequestContext
from common.image import Change, Image
from glance_api.layers.base import ImageLayer, ImageRepo, Source


@dataclass(frozen=True)
class Quotas:
    """`properties` of one image, negative for any number; `storage` in bytes, 0 for any."""

    properties: int = 128
    storage: int = 0


class QuotaLayer(ImageLayer):
    def __init__(self, inner: ImageRepo, quotas: Quotas) -> None:
        super().__init__(inner)
        self.quotas = quotas

    def add(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        self._check_properties(image.properties, existing=0)
        source.quota = self.quotas.storage
        return self.inner.add(ctx, image, source)

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        if change.properties is not None:
            kept = {} if change.purge else image.properties
            self._check_properties({**kept, **change.properties}, len(image.properties))
        source.quota = self.quotas.storage
        return self.inner.save(ctx, image, change, source)

    def _check_properties(self, properties: Mapping[str, str | None], existing: int) -> None:
        count, limit = len(properties), self.quotas.properties
        # Whoever is over a lowered limit may still go down (SEC-075).
        if count > existing and 0 <= limit < count:
            raise errors.LimitExceeded(
                "The limit of image properties has been exceeded. "
                f"Attempted: {count}, Maximum: {limit}"
            )
