"""Images as JSON, there and back (registry-v1.md section 3)."""

from datetime import datetime

import orjson
import pytest

from common.documents import image_document, image_fields, image_from_document
from common.image import CORE_FIELDS, Image, Location

MOMENTS = (datetime(2010, 2, 3, 9, 34, 1), datetime(2010, 2, 3, 9, 34, 1, 20))


def image(moment: datetime) -> Image:
    return Image(
        id="71c675ab-d94f-49cd-a114-e12490b328d9",
        name="Zoë",
        size=5,
        created_at=moment,
        updated_at=moment,
        properties={"distro": "Ubuntu", "empty": None},
        locations=[Location("file:///a/b", {"id": "mount"}, id=7), Location("http://c")],
    )


def test_an_image_shows_every_core_field_and_no_location() -> None:
    assert list(image_fields(image(MOMENTS[0]))) == [*CORE_FIELDS, "properties"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_times_always_have_six_digits_of_fraction(moment: datetime) -> None:
    found = orjson.loads(orjson.dumps(image_fields(image(moment))))
    assert found["created_at"] == f"2010-02-03T09:34:01.{moment.microsecond:06}"
    assert found["deleted_at"] is None


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_image_comes_back_as_it_was(moment: datetime) -> None:
    sent = image(moment)
    assert image_from_document(orjson.loads(orjson.dumps(image_document(sent)))) == sent
