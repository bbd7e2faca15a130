"""Strict HTTP/1.1 framing of requests and answers (RFC 9112), without any socket.

Two parties that read one request differently let a second request hide in the first
(CVE-2025-58068). So whatever is ambiguous is refused: repeated or signed lengths, a length
beside a transfer coding, folded or bare-LF lines, control characters, loose chunk sizes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from common import errors

_REQUEST_LINE: Final = re.compile(r"([^\x00-\x20\x7f]+) ([^\x00-\x20\x7f]+) ([^\x00-\x20\x7f]+)")
_STATUS_LINE: Final = re.compile(r"HTTP/1\.[01] ([1-9][0-9][0-9])(?: |\Z)")
_FIELD: Final = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_FIELDS: Final = re.compile(f"(?:{_FIELD.pattern})*")
_DECIMAL: Final = re.compile(r"[0-9]{1,19}\Z")
_AUTHORITY: Final = re.compile(r"(?:[\w.~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?\Z", re.A)

_VERSIONS: Final = ("HTTP/1.1", "HTTP/1.0")

# The fields that say where a message ends and what becomes of the connection.
_CONTROLS: Final = frozenset(
    {"connection", "content-length", "expect", "host", "transfer-encoding"}
)

_MAX_REQUEST_LINE: Final = 16384
_MAX_HEAD: Final = 256 * 1024


class BadFraming(errors.Invalid):
    """The bytes on the connection are not one well-formed request; it must be closed."""

    default = "The request is not framed as HTTP/1.1 requires."


class RequestLineTooLong(BadFraming):
    default = "The request line is too long."


class PeekingReader(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def peek(self, size: int, /) -> bytes:
        """What is there, without taking it; waits only where nothing is."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's line and header fields, as they came, and what they mean for the connection."""

    line: str
    method: str
    target: str
    version: str
    fields: tuple[tuple[str, str], ...]
    # Of the body; 0 where there is none and where it is chunked.
    length: int
    chunked: bool
    keeps_alive: bool
    asks_keep_alive: bool
    expects_continue: bool


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """An answer's status, and where its body ends: None where the connection does."""

    status: int
    length: int | None
    chunked: bool
    keeps_alive: bool


def read_head(
    reader: PeekingReader, max_line: int, before_waiting: Callable[[], object] = lambda: None
) -> RequestHead:
    """Take a request up to and including its empty line, and not a byte more.

    before_waiting is called whenever more of it must come. Raises BadFraming as soon as what
    is there cannot become a request.
    """
    return _parse_request(_take_lines(reader, max_line, before_waiting), max_line)


def read_answer_head(reader: PeekingReader, max_line: int) -> AnswerHead:
    """Take the head of an answer, interim ones left out. Raises BadFraming."""
    while (head := _parse_answer(_take_lines(reader, max_line, lambda: None))).status < 200:
        pass
    return head


def _take_lines(reader: PeekingReader, max_line: int, before_waiting: Callable[[], object]) -> str:
    """All lines up to the empty one."""
    head = bytearray()
    while ahead := reader.peek(1):
        known = len(head)
        head += ahead
        end = head.find(b"\r\n\r\n", max(known - 3, 0))
        if end >= 0:
            reader.read(end + 4 - known)
            return head[: end + 2].decode("latin-1")
        reader.read(len(ahead))
        _check_beginning(head, known, max_line)
        before_waiting()
    raise BadFraming()


def _check_beginning(head: bytearray, known: int, max_line: int) -> None:
    """Refuse early what is too long, or has a line feed without its carriage return."""
    start = max(known - 1, 0)
    if head.count(b"\n", start) != head.count(b"\r\n", start) + head.startswith(
        b"\n", start, known
    ):
        raise BadFraming()
    last_line = len(head) - head.rfind(b"\n") - 1
    if last_line == len(head):
        if last_line >= _MAX_REQUEST_LINE:
            raise RequestLineTooLong()
    elif last_line > max_line or len(head) > _MAX_HEAD:
        raise BadFraming("A request header line, or all of them together, is too long.")


def _parse_request(text: str, max_line: int) -> RequestHead:
    line, _, rest = text.partition("\r\n")
    if len(line) >= _MAX_REQUEST_LINE:
        raise RequestLineTooLong()
    if len(rest) > max_line and (
        len(rest) > _MAX_HEAD or max(map(len, rest.split("\r\n"))) + 2 > max_line
    ):
        raise BadFraming("A request header line, or all of them together, is too long.")
    words = _REQUEST_LINE.fullmatch(line)
    if words is None:
        raise BadFraming("The request line is malformed.")
    method, target, version = words.groups()
    if version not in _VERSIONS:
        raise BadFraming("The protocol version is not supported.")
    fields = _fields(rest)
    controls = _controls(fields)
    if version == "HTTP/1.0" and "transfer-encoding" in controls:
        # A peer of that version takes the chunks for what they are in (RFC 9112, 6.1).
        raise BadFraming("HTTP/1.0 has no transfer codings.")
    asked = _asked(controls)
    asks_keep_alive = "keep-alive" in asked
    return RequestHead(
        line=line,
        method=method,
        target=target,
        version=version,
        fields=fields,
        length=int(controls.get("content-length", 0)),
        chunked="transfer-encoding" in controls,
        keeps_alive=asks_keep_alive if version == "HTTP/1.0" else "close" not in asked,
        asks_keep_alive=asks_keep_alive,
        expects_continue=controls.get("expect", "").lower() == "100-continue",
    )


def _parse_answer(text: str) -> AnswerHead:
    line, _, rest = text.partition("\r\n")
    status = _STATUS_LINE.match(line)
    if status is None:
        raise BadFraming("The status line is malformed.")
    controls = _controls(_fields(rest))
    length = controls.get("content-length")
    return AnswerHead(
        status=int(status[1]),
        length=None if length is None else int(length),
        chunked="transfer-encoding" in controls,
        keeps_alive=line.startswith("HTTP/1.1") and "close" not in _asked(controls),
    )


def _fields(text: str) -> tuple[tuple[str, str], ...]:
    # Only the pattern of all fields notices what stands between two of them.
    if _FIELDS.fullmatch(text) is None:
        raise BadFraming()
    return tuple((name, value.rstrip(" \t")) for name, value in _FIELD.findall(text))


def _asked(controls: dict[str, str]) -> list[str]:
    return controls.get("connection", "").lower().replace(" ", "").split(",")


def _controls(fields: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """The control fields by lower-case name. Raises BadFraming where they are ambiguous."""
    controls: dict[str, str] = {}
    for name, value in fields:
        lowered = name.lower()
        if lowered not in _CONTROLS:
            continue
        if lowered in controls:
            if lowered != "connection":
                raise BadFraming(f"Exactly one {name} may be given.")
            value = f"{controls[lowered]},{value}"
        controls[lowered] = value
    length, coding = controls.get("content-length"), controls.get("transfer-encoding")
    if length is not None and coding is not None:
        raise BadFraming("Exactly one of Content-Length and Transfer-Encoding may be given.")
    if length is not None and (not _DECIMAL.match(length) or int(length) >= 2**63):
        raise BadFraming("Content-Length is not a decimal number.")
    if coding is not None and coding.lower() != "chunked":
        raise BadFraming("The only transfer coding understood is chunked.")
    # Links are built from it (SEC-062).
    if not _AUTHORITY.match(controls.get("host", "")):
        raise BadFraming("Host is malformed.")
    return controls
