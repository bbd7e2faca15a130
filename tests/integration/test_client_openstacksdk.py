"""openstacksdk with `image_api_version='1'`: what its v1 proxy can do with images.

Its `create_image` and `download_image` use paths and bodies of v2, which no v1 server has.
"""

import uuid
from collections.abc import Iterator

import openstack
import pytest
from keystoneauth1.discover import Discover
from openstack.connection import Connection

from tests.functional.audit import audit
from tests.functional.daemons import OCTETS, RAW, Client, Service, running_service

# Of its own parts, which it is about to remove.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:openstack")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    policy = {"publicize_image": ""}
    home = tmp_path_factory.mktemp("openstacksdk")
    with running_service(home, flavor="", policy=policy) as running:
        yield running
        audit(running)


@pytest.fixture
def api(service: Service) -> Client:
    return service.client()


@pytest.fixture
def cloud(service: Service) -> Iterator[Connection]:
    """A connection that knows the unversioned endpoint, as a catalogue gives it."""
    with openstack.connection.Connection(
        auth_type="none",
        auth={"endpoint": f"http://127.0.0.1:{service.api.port}"},
        image_api_version="1",
    ) as connection:
        yield connection


def create(api: Client, name: str, **properties: str) -> str:
    headers = {**RAW, **OCTETS, "x-image-meta-name": name, "x-image-meta-is_public": "true"}
    headers |= {f"x-image-meta-property-{key}": value for key, value in properties.items()}
    return str(api.post("/v1/images", headers, name.encode()).image["id"])


@pytest.fixture
def name() -> str:
    return f"Bild ü 图像 {uuid.uuid4()}"


def test_the_versions_of_the_endpoint_are_understood(cloud: Connection, service: Service) -> None:
    assert type(cloud.image).__module__ == "openstack.image.v1._proxy"
    assert cloud.image.get_endpoint() == f"http://127.0.0.1:{service.api.port}/v1/"
    found = Discover(cloud.session, f"http://127.0.0.1:{service.api.port}/").version_data()
    assert {(each["version"], each["url"]) for each in found} == {
        ((1, minor), f"http://127.0.0.1:{service.api.port}/v1/") for minor in (0, 1)
    }


def test_images_are_listed_with_filters_and_pages(
    cloud: Connection, api: Client, name: str
) -> None:
    made = {create(api, name, role=str(number)) for number in range(5)}
    other = create(api, f"not {name}")
    assert {image.id for image in cloud.image.images(name=name)} == made
    assert {image.id for image in cloud.image.images(name=name, limit=2)} == made
    every = {image.id: image for image in cloud.image.images()}
    assert made | {other} == every.keys()
    assert every[other].name == f"not {name}"
    assert (every[other].status, every[other].is_public) == ("active", True)
    assert {every[image_id].properties["role"] for image_id in made} == set("01234")
    assert list(cloud.image.images(name=name, status="queued")) == []
    for image_id in every:
        cloud.image.delete_image(image_id)


def test_an_image_is_found_by_its_name(cloud: Connection, api: Client, name: str) -> None:
    image_id = create(api, name)
    found = cloud.image.find_image(name)
    assert found is not None
    assert (found.id, found.name, found.size) == (image_id, name, len(name.encode()))
    assert cloud.image.find_image(f"no {name}") is None
    with pytest.raises(openstack.exceptions.NotFoundException):
        cloud.image.find_image(f"no {name}", ignore_missing=False)
    cloud.image.delete_image(found)
    assert cloud.image.find_image(name) is None
    with pytest.raises(openstack.exceptions.NotFoundException):
        cloud.image.delete_image(found, ignore_missing=False)


def test_properties_and_fields_are_updated(cloud: Connection, api: Client, name: str) -> None:
    """The proxy does not look at the answer: what counts is what the service has then."""
    image_id = create(api, name, os_type="linux")
    found = cloud.image.find_image(name, ignore_missing=False)
    change = {"property-os_type": "linux", "property-flavour": "sweet"}
    assert cloud.image.update_image_properties(found, change, min_ram="512")
    again = cloud.image.find_image(name, ignore_missing=False)
    assert (again.name, again.min_ram, again.checksum) == (name, 512, found.checksum)
    assert (again.properties["os_type"], again.properties["flavour"]) == ("linux", "sweet")
    cloud.image.delete_image(image_id)


def test_a_protected_image_is_not_deleted(cloud: Connection, api: Client, name: str) -> None:
    image_id = create(api, name)
    found = cloud.image.find_image(name, ignore_missing=False)
    cloud.image.update_image_properties(found, protected="True")
    with pytest.raises(openstack.exceptions.ForbiddenException):
        cloud.image.delete_image(image_id)
    cloud.image.update_image_properties(found, protected="False")
    cloud.image.delete_image(image_id)
