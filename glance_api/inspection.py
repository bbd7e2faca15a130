"""Content inspection while an image is uploaded (SEC-046).

oslo.utils' inspectors parse the formats. Here is decided which of them see which bytes, what is
refused, and what they must not be believed about: they are made for honest images read in small
pieces, and the bytes here come from strangers.
"""

import logging
import re
import struct
from collections.abc import Iterable
from typing import Any, Final

from oslo_utils.imageutils import format_inspector

from common import errors
from common.upload import Observer

LOG = logging.getLogger(__name__)

# The inspectors get this much in one piece, whatever the sender's pieces are. A VMDK descriptor
# of up to 1 MiB would else be judged by its first piece, however small that is made.
HEAD: Final = 1024 * 1024

SECTOR: Final = 512

# Formats whose files may name other files, by the bytes they begin with.
REFERRING: Final = {"qcow2": b"QFI\xfb", "vmdk": b"KDMV", "qed": b"QED\x00"}

# Where the inspector stops short of the size when it gets large pieces: it looks for the place
# of the size in one, and for the size in the next.
_PIECE: Final = {"vhdx": 16 * 1024}

# As qemu recognises a descriptor without data, which is nothing but references: comments, blank
# lines, then the version.
_DESCRIPTOR: Final = re.compile(rb"(?:#[^\n]*\n| *\r?\n)*version=[123]\r?\n")

_VHD: Final = b"conectix"
_VHD_DIFFERENCING: Final = 4
_PLOOP: Final = (b"WithoutFreeSpace", b"WithouFreSpacExt")
_TAR: Final = b"ustar"

# A partition table and encryption are what a raw disk holds; kernels and ramdisks are any bytes.
_RAW: Final = frozenset({"raw", "gpt", "luks"})
_EXPECTED: Final = {
    "raw": _RAW,
    "ami": _RAW,
    "ari": _RAW,
    "aki": _RAW,
    "iso": frozenset({"iso"}),
    "qcow2": frozenset({"qcow2"}),
    "vmdk": frozenset({"vmdk"}),
    "vhd": frozenset({"vhd"}),
    "vhdx": frozenset({"vhdx"}),
    "vdi": frozenset({"vdi"}),
    "ploop": frozenset({"ploop"}),
}


class UnsafeImage(errors.Invalid):
    """The content would make whoever uses the image read other files."""

    default = "The image is refused because it refers to other files."


class FormatMismatch(errors.Invalid):
    def __init__(self, found: Iterable[str], declared: str) -> None:
        content = " and ".join(sorted(found))
        super().__init__(f"The content of the image is {content}, not {declared}.")


def inspector_for(
    disk_format: str | None, safety_check: bool, require_match: bool
) -> Observer | None:
    """What watches an upload that declares disk_format, or None if nothing is to be checked."""
    declared = disk_format if require_match else None
    if not safety_check and declared not in _EXPECTED:
        return None
    return FormatObserver(declared, safety_check=safety_check)


class FormatObserver:
    """Watches one upload, at no cost once it has seen enough.

    Raises UnsafeImage as soon as it is known, FormatMismatch at the end. What an inspector
    cannot parse is not of that inspector's format; if it begins like a format that may refer to
    other files, it is unsafe.
    """

    def __init__(self, declared: str | None = None, *, safety_check: bool = True) -> None:
        self._declared = declared
        self._safety_check = safety_check
        self._head = bytearray()
        self._headed = False
        self._tail = b""
        self._length = 0
        self._watching = [
            _Inspector(name, cls)
            for name, cls in format_inspector.ALL_FORMATS.items()
            if name != "raw"
        ]
        self._inspectors = tuple(self._watching)

    def feed(self, chunk: bytes, /) -> None:
        self._length += len(chunk)
        if self._declared == "vhd":
            self._tail = (self._tail + chunk if len(chunk) < SECTOR else chunk)[-SECTOR:]
        if self._watching:
            self._see(chunk)

    def finish(self) -> None:
        # Whoever opens a file sees whole sectors, the last one filled with zeros.
        self._see(bytes(-self._length % SECTOR))
        self._see_head()
        for inspector in self._inspectors:
            inspector.finish()
        self._judge(self._inspectors)
        if self._declared is not None:
            self._require(self._declared)

    @property
    def formats(self) -> frozenset[str]:
        """What the content is: `raw` if nothing else; several names where it is ambiguous."""
        found = {inspector.name for inspector in self._inspectors if inspector.matches}
        if self._tail.startswith(_VHD):
            found.add("vhd")
        if self._head.startswith(_PLOOP):
            found.add("ploop")
        return frozenset(found or {"raw"})

    @property
    def virtual_size(self) -> int | None:
        """The size of the disk in bytes, as the content tells it; None if it does not."""
        if self.formats <= _RAW:
            return self._length
        matching = [inspector for inspector in self._inspectors if inspector.matches]
        return matching[0].virtual_size if len(matching) == 1 else None

    def _see(self, chunk: bytes) -> None:
        if self._headed:
            self._show(chunk)
            return
        missing = HEAD - len(self._head)
        self._head += chunk[:missing]
        if len(self._head) == HEAD:
            self._see_head()
            self._show(chunk[missing:])

    def _see_head(self) -> None:
        if self._headed:
            return
        self._headed = True
        head = bytes(self._head)
        # The first sector tells what is asked later.
        del self._head[SECTOR:]
        if self._safety_check and _refers_by_itself(head):
            raise UnsafeImage()
        self._show(head)

    def _show(self, chunk: bytes) -> None:
        for inspector in self._watching:
            inspector.eat(chunk)
        done = [inspector for inspector in self._watching if inspector.done]
        self._watching = [inspector for inspector in self._watching if not inspector.done]
        self._judge(done)
        for inspector in done:
            if not self._concerns(inspector):
                inspector.forget()

    def _judge(self, inspectors: Iterable["_Inspector"]) -> None:
        if not self._safety_check:
            return
        for inspector in inspectors:
            if inspector.name not in REFERRING or not self._concerns(inspector):
                continue
            if not inspector.is_safe:
                raise UnsafeImage(
                    f"The image is refused: its {inspector.name} header refers to other files, "
                    "or uses features that are not allowed."
                )

    def _concerns(self, inspector: "_Inspector") -> bool:
        """Whether the content is, or begins as if it were, of the inspector's format."""
        magic = REFERRING.get(inspector.name)
        return inspector.matches or (magic is not None and self._head.startswith(magic))

    def _require(self, declared: str) -> None:
        found = self.formats
        # An archive holds the disk; which kind of disk is not looked into.
        if self._head[257:262] == _TAR:
            return
        # A disc image with a partition table can be used as either, and is meant to be.
        expected = _EXPECTED[declared]
        if found == {"iso", "gpt"} and expected & {"iso", "gpt"}:
            return
        if not found <= expected:
            raise FormatMismatch(found, declared)


class _Inspector:
    """One of oslo.utils' inspectors; whatever it raises makes it one that has failed."""

    def __init__(self, name: str, cls: Any) -> None:
        self.name = name
        self.failed = False
        self._inner: Any = cls()

    def eat(self, chunk: bytes) -> None:
        step = _PIECE.get(self.name, len(chunk) or 1)
        for start in range(0, len(chunk), step):
            if not self.done:
                self._ask(self._inner.eat_chunk, chunk[start : start + step])

    def finish(self) -> None:
        self._inner.finish()

    def forget(self) -> None:
        """Let go of what it kept of the content, up to 1 MiB: it will not match any more."""
        self.failed = True
        self._inner = type(self._inner)()

    @property
    def done(self) -> bool:
        """No further byte changes what it says."""
        if self.failed:
            return True
        if self.name == "vhdx" and self.matches and not self._inner.has_region("vds"):
            return False
        return bool(self._inner.complete)

    @property
    def matches(self) -> bool:
        return not self.failed and bool(self._ask(lambda: self._inner.format_match))

    @property
    def is_safe(self) -> bool:
        self._ask(self._inner.safety_check)
        if self.name == "vmdk" and not self.failed:
            return self._ask(lambda: _has_one_plain_type(self._inner)) is True
        return not self.failed

    @property
    def virtual_size(self) -> int | None:
        return self._ask(lambda: self._inner.virtual_size) or None

    def _ask(self, question: Any, *args: Any) -> Any:
        try:
            return question(*args)
        except Exception as error:
            # Parsers of hostile bytes fail in every way there is.
            LOG.debug("The %s inspector gives up: %s", self.name, type(error).__name__)
            self.failed = True
            return None


def _refers_by_itself(head: bytes) -> bool:
    """References that the inspectors do not look for. The head is empty or whole sectors."""
    if _DESCRIPTOR.match(head[: 8 * SECTOR]):
        return True
    if head.startswith(_VHD):
        return _number(">I", head, 60) == _VHD_DIFFERENCING
    # A VMDK without sectors of its own is opened by its descriptor, wherever that is.
    return head.startswith(REFERRING["vmdk"]) and _number("<Q", head, 12) == 0


def _number(form: str, head: bytes, offset: int) -> int:
    [number] = struct.unpack_from(form, head, offset)
    return int(number)


def _has_one_plain_type(vmdk: Any) -> bool:
    # The inspector reads the first createType in any case, qemu the first in that case.
    return str(vmdk.desc_text).count("createtype") == 1
