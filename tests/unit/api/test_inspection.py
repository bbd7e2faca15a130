"""Content inspection (SEC-046), on images made by qemu-img, made by hand and made to hurt."""

import itertools
import random
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import errors
from common.upload import BytesSource, Upload
from glance_api.inspection import (
    HEAD,
    FormatMismatch,
    FormatObserver,
    UnsafeImage,
    inspector_for,
)
from tests.servers.process import find_program, require

SIZE = 4 * 1024 * 1024


def inspected(content, declared=None, *, safety_check=True, step=65_536):
    """The observer after it has seen all of content, in pieces of step bytes."""
    observer = FormatObserver(declared, safety_check=safety_check)
    for start in range(0, len(content), step):
        observer.feed(content[start : start + step])
    observer.finish()
    return observer


def in_every_piece_size(content):
    """The piece sizes worth trying: a sender chooses them."""
    return (7, 512, 65_537, HEAD + 1) if len(content) < 300_000 else (65_537, HEAD + 1)


@pytest.fixture(scope="module")
def qemu_img(tmp_path_factory):
    """Make an image with `qemu-img`; its bytes."""
    program = find_program("qemu-img")
    require("qemu-img", [] if program else ["program qemu-img"], "images")
    directory = tmp_path_factory.mktemp("images")

    def run(*args):
        subprocess.run([program, *args], check=True, capture_output=True, cwd=directory)

    def make(form, *args, convert=False):
        if convert:
            run("create", "-f", "raw", "source.raw", str(SIZE))
            run("convert", "-O", form, *args, "source.raw", "image")
        else:
            run("create", "-f", form, *args, "image", str(SIZE))
        return (directory / "image").read_bytes()

    return make


def qcow2(version=3, backing=0, features=0, size=SIZE, length=196_616):
    """A qcow2 header, and zeros."""
    header = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing, 9, 16, size)
    return (header.ljust(72, b"\0") + struct.pack(">Q", features)).ljust(length, b"\0")


def vmdk(descriptor, *, capacity=8192, offset=1, sectors=20):
    """A sparse VMDK header with its descriptor, and no data."""
    fields = (b"KDMV", 3, 3, capacity, 128, offset, sectors, 512, 0, 0)
    header = struct.pack("<4sIIQQQQIQQ", *fields).ljust(offset * 512, b"\0")
    return (header + descriptor.ljust(sectors * 512, b"\0")).ljust(65_536, b"\0")


def descriptor(create_type="monolithicSparse", extent='RW 8192 SPARSE "disk.vmdk"'):
    return f'# Disk DescriptorFile\nversion=1\ncreateType="{create_type}"\n{extent}\n'.encode()


def iso(first=b""):
    volume = bytearray(2048)
    volume[0:6] = b"\1CD001"
    struct.pack_into("<L", volume, 80, 30)
    struct.pack_into("<H", volume, 128, 2048)
    return first.ljust(32_768, b"\0") + bytes(volume) + bytes(28 * 1024)


def mbr(boot_flag=0x80):
    entry = struct.pack("<B3BB3BII", boot_flag, 0, 2, 0, 0x83, 0, 0, 0, 2048, 8192)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


@pytest.mark.parametrize(
    ("make", "declared"),
    [
        (("raw",), "raw"),
        (("qcow2",), "qcow2"),
        (("qcow2", "-o", "compat=0.10"), "qcow2"),
        (("vdi",), "vdi"),
        (("vpc",), "vhd"),
        (("vhdx",), "vhdx"),
        (("vmdk",), "vmdk"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_honest_images_are_accepted_and_their_size_is_found(qemu_img, make, declared):
    content = qemu_img(*make)
    for step in in_every_piece_size(content):
        observer = inspected(content, declared, step=step)
        # A VHD's size is that of a geometry of cylinders, heads and sectors.
        assert SIZE <= observer.virtual_size < SIZE + 64 * 1024
        assert observer.formats == {declared}


def test_honest_images_of_the_rarer_forms_are_accepted(qemu_img):
    inspected(qemu_img("vmdk", "-o", "subformat=streamOptimized", convert=True), "vmdk")
    inspected(qemu_img("vpc", "-o", "subformat=fixed"), "vhd")
    inspected(qemu_img("vpc", "-o", "subformat=fixed"), "vhd", step=100)
    inspected(qemu_img("parallels"), "ploop")


@pytest.mark.parametrize(
    "make",
    [
        ("qcow2", "-u", "-b", "/etc/passwd", "-F", "raw"),
        ("qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", "-o", "compat=0.10"),
        ("qcow2", "-o", "data_file=secrets.raw"),
        ("qcow2", "-o", "data_file=secrets.raw,data_file_raw=on"),
        ("qed",),
        ("qed", "-u", "-b", "/etc/passwd", "-F", "raw"),
        ("vmdk", "-o", "subformat=monolithicFlat"),
        ("vmdk", "-o", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "-o", "subformat=twoGbMaxExtentFlat"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("declared", ["raw", "qcow2", "iso", None])
def test_images_that_read_other_files_are_refused_whatever_they_claim_to_be(
    qemu_img, make, declared
):
    """CVE-2015-5163, CVE-2022-47951, CVE-2024-32498."""
    content = qemu_img(*make)
    for step in in_every_piece_size(content):
        with pytest.raises(UnsafeImage):
            inspected(content, declared, step=step)


UNSAFE = {
    "qcow2 with a backing file": qcow2(backing=0x100),
    "qcow2 of version 2 with a backing file": qcow2(version=2, backing=0x100),
    "qcow of version 1": qcow2(version=1),
    "qcow2 of an unknown version": qcow2(version=4),
    "qcow2 with a data file": qcow2(features=1 << 2),
    "qcow2 with an unknown feature": qcow2(features=1 << 40),
    "qcow2 shorter than a sector": qcow2(backing=0x100, length=200),
    "qcow2 of a few bytes": b"QFI\xfb\0\0\0\3\0\0\0\0\0\0\1\0",
    "qcow2 behind which is an ISO": iso(qcow2(backing=0x100, length=512)),
    "qed": b"QED\0".ljust(65_536, b"\0"),
    "VMDK with another type": vmdk(descriptor("monolithicFlat")),
    "VMDK with a path as extent": vmdk(descriptor(extent='RW 1 FLAT "/etc/passwd" 0')),
    "VMDK with two types": vmdk(descriptor() + b'createType="monolithicFlat"\n'),
    "VMDK with two types, one in small letters": vmdk(
        descriptor().replace(b"createType", b"createtype") + b'createType="monolithicFlat"\n'
    ),
    "VMDK without sectors of its own": vmdk(descriptor("monolithicFlat"), capacity=0),
    "VMDK with its descriptor elsewhere": vmdk(descriptor("monolithicFlat"), offset=64),
    "VMDK without descriptor": vmdk(b""),
    "VMDK with a descriptor that is no text": vmdk(descriptor() + b"\xff\xfe"),
    "VMDK of an unknown version": vmdk(descriptor()).replace(b"\3", b"\x09", 1),
    "VMDK cut off": vmdk(descriptor())[:600],
    "VMDK of a few bytes": b"KDMV",
    "VMDK descriptor alone": descriptor("monolithicFlat", 'RW 9 FLAT "/etc/passwd" 0'),
    "VMDK descriptor alone, self-contained by its type": descriptor(),
    "VMDK descriptor alone, no text": b"# \xc3\xa9\n" + descriptor("monolithicFlat"),
    "VMDK descriptor alone, after blanks": b"   \n# x\r\n  \r\nversion=2\r\ncreateType=",
    "VHD that is a difference to another": b"conectix".ljust(60, b"\0") + b"\0\0\0\4" + bytes(448),
}


@pytest.mark.parametrize("content", UNSAFE.values(), ids=UNSAFE.keys())
def test_crafted_images_are_refused_in_pieces_of_any_size(content):
    for step in (1, 5, 64, 511, 4096, HEAD):
        with pytest.raises(UnsafeImage):
            inspected(content, step=step)


def test_refusal_comes_before_the_rest_is_sent():
    observer = FormatObserver()
    with pytest.raises(UnsafeImage):
        observer.feed(qcow2(backing=0x100, length=HEAD))


def test_refused_upload_is_never_committed():
    """A driver that has read everything is told by the last read."""
    upload = Upload(
        BytesSource(qcow2(backing=0x100)), observers=[inspector_for("raw", True, False)]
    )
    with pytest.raises(UnsafeImage):
        b"".join(iter(upload.read, b""))
    assert issubclass(UnsafeImage, errors.Invalid)


def test_streamed_vmdk_whose_footer_says_something_else_is_refused():
    """The footer wins over the header, and comes when everything else has been stored."""
    header = bytearray(vmdk(descriptor()))
    struct.pack_into("<Q", header, 56, 0xFFFFFFFFFFFFFFFF)

    def ending(**changes):
        footer = bytearray(header[:512])
        struct.pack_into("<Q", footer, 56, 0)
        for offset, value in changes.values():
            struct.pack_into("<Q", footer, offset, value)
        marker = struct.pack("<QII", 1, 0, 3).ljust(512, b"\0")
        return marker + bytes(footer) + bytes(512)

    data = random.Random(1).randbytes(2 * HEAD)
    for step in (65_536, 100_003):
        inspected(bytes(header) + data + ending(), "vmdk", step=step)
        with pytest.raises(UnsafeImage):
            inspected(bytes(header) + data + ending(descriptor=(28, 77)), step=step)
        with pytest.raises(UnsafeImage):
            inspected(bytes(header) + data, step=step)


ODD = {
    "nothing": b"",
    "one byte": b"x",
    "zeros": bytes(100_000),
    "noise": random.Random(2).randbytes(3 * HEAD + 5),
    "a partition table": mbr() + bytes(8192),
    "a partition table that is none": mbr(boot_flag=0x17) + bytes(8192),
    "a boot sector without partitions": bytes(510) + b"\x55\xaa" + bytes(8192),
    "LUKS of version 2": b"LUKS\xba\xbe\0\2".ljust(65_536, b"\0"),
    "text": b"#!/bin/sh\necho this is a script\n" * 50_000,
    "a name that begins like another": b"QFI is not a magic".ljust(1000),
    "a comment": b"# nothing but a comment\n" * 100,
    "something that says version": b"\nversion of mine\n" * 100,
    "a gzip": b"\x1f\x8b\x08\0" + random.Random(3).randbytes(5000),
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD.keys())
def test_raw_images_may_begin_with_anything(content):
    for step in (1000, HEAD):
        observer = inspected(content, "raw", step=step)
        assert observer.virtual_size == len(content)


def test_hybrid_iso_is_accepted_as_what_it_is_meant_to_be():
    """The inspector alone calls it ambiguous."""
    hybrid = iso(mbr())
    for declared in ("iso", "raw"):
        assert inspected(hybrid, declared).formats == {"iso", "gpt"}
    assert inspected(iso(), "iso").virtual_size == 30 * 2048
    with pytest.raises(FormatMismatch):
        inspected(hybrid, "qcow2")


@pytest.mark.parametrize(
    ("content", "declared", "found"),
    [
        (qcow2(), "raw", "qcow2"),
        (qcow2(), "vmdk", "qcow2"),
        (bytes(4096), "qcow2", "raw"),
        (mbr() + bytes(4096), "qcow2", "gpt"),
        (iso(), "raw", "iso"),
        (iso(qcow2(length=512)), "iso", "iso and qcow2"),
        (iso(qcow2(length=512)), "qcow2", "iso and qcow2"),
        (bytes(4096), "vhd", "raw"),
        (b"", "iso", "raw"),
    ],
)
def test_content_of_another_format_is_refused_where_a_match_is_required(content, declared, found):
    with pytest.raises(FormatMismatch) as caught:
        inspected(content, declared)
    assert caught.value.message == f"The content of the image is {found}, not {declared}."
    assert isinstance(caught.value, errors.Invalid)
    inspected(content)


def test_what_an_archive_holds_is_not_judged():
    """An OVA is a tar archive, and declares the format of the disk within."""
    archive = b"disk.ovf".ljust(257, b"\0") + b"ustar\x0000" + bytes(10_000)
    inspected(archive, "vmdk")


def test_format_that_is_not_known_here_is_not_judged():
    assert inspector_for("floppy", False, True) is None
    inspected_as = inspector_for("floppy", True, True)
    assert isinstance(inspected_as, FormatObserver)


@pytest.mark.parametrize("disk_format", ["raw", "qcow2", None])
def test_nothing_watches_where_nothing_is_checked(disk_format):
    assert inspector_for(disk_format, False, False) is None


def test_safety_check_can_be_off_while_a_match_is_required():
    content = qcow2(backing=0x100)
    observer = inspector_for("qcow2", False, True)
    observer.feed(content)
    observer.finish()
    observer = inspector_for("raw", False, True)
    observer.feed(content)
    with pytest.raises(FormatMismatch):
        observer.finish()


def test_match_is_not_required_unless_asked_for():
    observer = inspector_for("raw", True, False)
    observer.feed(qcow2())
    observer.finish()
    assert observer.virtual_size == SIZE


class Untouchable(bytes):
    """Bytes that nobody may look into."""

    def __getitem__(self, key):
        raise AssertionError("the chunk was looked at")

    def __radd__(self, other):
        raise AssertionError("the chunk was copied")

    def __iter__(self):
        raise AssertionError("the chunk was looked at")


@pytest.mark.parametrize("first", [b"", qcow2(length=SIZE)], ids=["raw", "qcow2"])
def test_bytes_after_the_first_mebibyte_are_not_looked_at(first):
    observer = FormatObserver()
    observer.feed(first.ljust(HEAD, b"\xaa"))
    observer.feed(Untouchable(b"x" * 512))
    observer.finish()


def test_memory_is_bounded_by_the_head():
    """I-6: what is kept of an upload does not grow with it; of one that is no disk, little is."""
    observer = FormatObserver()
    for _ in range(64):
        observer.feed(b"# text only\n" * 40_000)
    kept = sum(
        sum(inspector._inner.context_info.values()) for inspector in observer._inspectors
    ) + len(observer._head)
    assert kept < 64 * 1024


MAGICS = [
    b"QFI\xfb", b"QFI\xfb\0\0\0\2", b"QFI\xfb\0\0\0\3", b"KDMV", b"KDMV\1\0\0\0", b"COWD", b"QED\0",
    b"conectix", b"vhdxfile", b"LUKS\xba\xbe\0\1", b"# Disk DescriptorFile\n", b"version=1\n",
    b'createType="', b"WithoutFreeSpace", bytes(64) + b"\x7f\x10\xda\xbe", b"",
]  # fmt: skip
PLACES = [0, 64, 192 * 1024, 196_608, 32_768, 512, 510, 0x200, 446]
HOSTILE = [b"regi", b"metadata", b"\1CD001", b"\x55\xaa", b"\xff" * 64, b"version=3\n", b"/"]


@st.composite
def hostile_images(draw):
    """Something that begins like a format, and goes on as it likes."""
    content = bytearray(draw(st.sampled_from(MAGICS)) + draw(st.binary(max_size=2048)))
    for place in draw(st.lists(st.sampled_from(PLACES), max_size=3)):
        piece = draw(st.sampled_from(HOSTILE)) + draw(st.binary(max_size=200))
        content = content.ljust(place, b"\0")
        content[place : place + len(piece)] = piece
    return bytes(content)


@settings(max_examples=300, deadline=None)
@given(
    content=hostile_images(),
    declared=st.sampled_from([None, "raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "ploop"]),
    step=st.sampled_from([13, 512, 65_536]),
)
def test_hostile_bytes_are_accepted_or_refused_and_nothing_else(content, declared, step):
    """Whatever a parser trips over is never an error of the service's own."""
    observer = FormatObserver(declared)
    try:
        for start in range(0, len(content), step):
            observer.feed(content[start : start + step])
        observer.finish()
    except (UnsafeImage, FormatMismatch):
        return
    assert observer.virtual_size is None or observer.virtual_size >= 0
    # What was let pass is not what qemu would take for a qcow2 with a reference.
    if content.startswith(b"QFI\xfb"):
        assert content.ljust(16, b"\0")[8:16] == bytes(8)
        assert content[4:8] in (b"\0\0\0\2", b"\0\0\0\3")


def test_ten_thousand_mutilated_headers_do_no_harm():
    """SEC-046."""
    chance = random.Random(46)
    honest = [qcow2(length=1024), vmdk(descriptor())[:4096], iso(mbr())[:36_864], mbr()]
    outcomes = set()
    for _ in range(10_000):
        content = bytearray(chance.choice(honest))
        for _ in range(chance.randrange(1, 4)):
            content[min(int(chance.expovariate(1 / 60)), len(content) - 1)] = chance.randrange(256)
        try:
            inspected(bytes(content), chance.choice([None, "raw", "qcow2", "vmdk", "iso"]))
        except (UnsafeImage, FormatMismatch) as refusal:
            outcomes.add(type(refusal))
        else:
            outcomes.add(None)
    assert outcomes == {UnsafeImage, FormatMismatch, None}


@settings(max_examples=50, deadline=None)
@given(content=hostile_images(), cuts=st.lists(st.integers(1, 300_000), max_size=5))
def test_verdict_does_not_depend_on_how_the_bytes_arrive(content, cuts):
    def verdict(pieces):
        observer = FormatObserver()
        try:
            for piece in pieces:
                observer.feed(piece)
            observer.finish()
        except UnsafeImage:
            return "unsafe"
        return observer.formats, observer.virtual_size

    places = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    pieces = [content[a:b] for a, b in itertools.pairwise(places)]
    assert verdict(pieces) == verdict([content])
