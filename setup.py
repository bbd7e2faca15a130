"""Packaging: four packages, their programs and the drivers as entry points."""

from glob import glob
from os.path import isfile

from setuptools import find_packages, setup

EXTRAS = {
    "swift": ["keystoneauth1>=5.6", "python-swiftclient>=4.4"],
    "s3": ["boto3>=1.34"],
    # librados and librbd come from the operating system: python3-rados, python3-rbd.
    "rbd": [],
    "cinder": ["os-brick>=6.5", "oslo.rootwrap>=7.2", "python-cinderclient>=9.4"],
    "gridfs": ["pymongo>=4.6"],
    "vmware": ["oslo.vmware>=4.3"],
    "postgresql": ["pg8000>=1.31"],
    "messaging": ["oslo.messaging>=14.6"],
    "profiler": ["osprofiler>=4.1"],
    # The middleware keeps tokens in memcached, where memcached_servers names some, through a
    # library that it does not ask for itself.
    "keystone": ["keystonemiddleware>=10.6", "python-memcached>=1.60"],
}

setup(
    name="glance-v1",
    version="1.0.0",
    description="The OpenStack Images API v1, as two modern daemons",
    license="Apache-2.0",
    python_requires=">=3.11",
    # Said explicitly, an editable installation is one line in a .pth file.
    package_dir={"": "."},
    packages=find_packages(include=["common*", "glance_api*", "glance_registry*", "glance_store*"]),
    package_data={
        "glance_registry.db": ["migrations/*.mako", "migrations/versions/*.py"],
        "glance_store.drivers": ["*.wsdl"],
    },
    data_files=[
        ("etc/glance", sorted(filter(isfile, glob("etc/*")))),
        ("etc/glance/rootwrap.d", sorted(glob("etc/rootwrap.d/*"))),
    ],
    install_requires=[
        "alembic>=1.13",
        "cryptography>=42",
        "eventlet>=0.41",
        "orjson>=3.9",
        "oslo.config>=9.4",
        "oslo.log>=5.5",
        "oslo.middleware>=6.1",
        "oslo.policy>=4.3",
        "oslo.utils>=8.2",
        "PasteDeploy>=3.1",
        "PyMySQL>=1.1",
        "requests>=2.32",
        "Routes>=2.5.1",
        "SQLAlchemy>=2.0.30",
        # Reads that another thread can end: HTTPResponse.shutdown.
        "urllib3>=2.3",
        "WebOb>=1.8.11",
    ],
    extras_require={
        **EXTRAS,
        "all": sorted({package for extra in EXTRAS.values() for package in extra}),
        "test": [
            "hypothesis>=6.100",
            "mypy>=1.11",
            "openstacksdk==4.22.0",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "python-glanceclient==4.13.0",
            "ruff>=0.6",
            "types-requests",
        ],
    },
    entry_points={
        "console_scripts": [
            "glance-api = glance_api.cmd.api:main",
            "glance-control = glance_api.cmd.control:main",
            "glance-manage = glance_api.cmd.manage:main",
            "glance-replicator = glance_api.cmd.replicator:main",
            # What Glance's operators have in their sudoers for attaching volumes.
            "glance-rootwrap = oslo_rootwrap.cmd:main [cinder]",
            "glance-scrubber = glance_api.cmd.scrubber:main",
            "glance-registry = glance_registry.cmd.registry:main",
        ],
        "glance_store.drivers": [
            "cinder = glance_store.drivers.cinder:CinderStore",
            "file = glance_store.drivers.filesystem:FilesystemStore",
            "gridfs = glance_store.drivers.gridfs:GridFSStore",
            "http = glance_store.drivers.http:HttpStore",
            "memory = glance_store.drivers.memory:MemoryStore",
            "rbd = glance_store.drivers.rbd:RBDStore",
            "s3 = glance_store.drivers.s3:S3Store",
            "sheepdog = glance_store.drivers.sheepdog:SheepdogStore",
            "swift = glance_store.drivers.swift:SwiftStore",
            "vmware = glance_store.drivers.vmware:VMwareStore",
        ],
    },
)
