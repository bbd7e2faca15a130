"""Amazon's formats belong together (images-v1.md section 8.1)."""

import pytest

from common import errors
from common.image import Image
from glance_api.formats import apply_amazon_rule, check_formats_set


@pytest.mark.parametrize("name", ["disk_format", "container_format"])
def test_one_amazon_format_is_both(name: str) -> None:
    """V1-IMG-145, V1-IMG-146."""
    fields = {name: "ari"}
    apply_amazon_rule(fields)
    assert fields == {"disk_format": "ari", "container_format": "ari"}


@pytest.mark.parametrize(("disk", "container"), [("ami", "bare"), ("raw", "aki"), ("ami", "aki")])
def test_a_mix_is_refused_in_a_request_and_in_the_record_it_leads_to(
    disk: str, container: str
) -> None:
    """V1-IMG-147."""
    with pytest.raises(errors.Invalid, match="Invalid mix of disk and container formats"):
        apply_amazon_rule({"disk_format": disk, "container_format": container})
    with pytest.raises(errors.Invalid, match="Invalid mix of disk and container formats"):
        check_formats_set(Image(disk_format=disk, container_format=container))


def test_bytes_need_both_formats() -> None:
    """V1-IMG-207, V1-IMG-208."""
    with pytest.raises(errors.Invalid, match="Disk format is not specified"):
        check_formats_set(Image(container_format="bare"))
    with pytest.raises(errors.Invalid, match="Container format is not specified"):
        check_formats_set(Image(disk_format="raw"))
