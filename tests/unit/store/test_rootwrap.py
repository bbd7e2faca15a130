"""What etc/rootwrap.d lets the cinder store run as root."""

from pathlib import Path

import pytest

wrapper = pytest.importorskip("oslo_rootwrap.wrapper")

FILTERS = Path(__file__).resolve().parents[3] / "etc/rootwrap.d"
HELPER = ["privsep-helper", "--privsep_context", "os_brick.privileged.default"]


def is_allowed(words, tmp_path):
    for program in ("privsep-helper", "chown", "cat"):
        (tmp_path / program).touch(mode=0o755)
    filters = wrapper.load_filters([str(FILTERS)])
    try:
        wrapper.match_filter(filters, words, exec_dirs=[str(tmp_path)])
    except wrapper.NoFilterMatched:
        return False
    return True


@pytest.mark.parametrize(
    "words",
    [
        [*HELPER, "--privsep_sock_path", "/tmp/tmp3hq9x_vt/privsep.sock"],
        ["chown", "1000", "/dev/sdb"],
        ["chown", "1000", "/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-iqn.2010-10.org:a-lun-1"],
    ],
)
def test_what_attaching_needs_is_allowed(words, tmp_path):
    assert is_allowed(words, tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["chown", "1000", "/etc/shadow"],
        ["chown", "1000", "/dev/../etc/shadow"],
        ["chown", "1000:1000", "/dev/sdb"],
        ["chown", "-R", "1000", "/dev/sdb"],
        ["cat", "/etc/shadow"],
    ],
)
def test_nothing_else_is_allowed(words, tmp_path):
    assert not is_allowed(words, tmp_path)
