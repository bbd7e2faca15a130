"""Policy rules over oslo.policy: read from the operator's files, re-read when they change."""

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from oslo_config import cfg
from oslo_policy import policy

from common import errors
from common.config import Configuration, ConfigurationError
from common.context import RequestContext

LOG = logging.getLogger(__name__)

# What holds where there is no policy file (middleware-and-config.md section 5).
BUILT_IN: Final = {
    "context_is_admin": "role:admin",
    "default": "@",
    "manage_image_cache": "role:admin",
}

# A changed file is noticed within this time, without a look at the disk for every rule.
_LOOK_SECONDS: Final = 0.5

_ADMIN_RULE: Final = "context_is_admin"

_ALWAYS: Final = frozenset({"", "@"})


class PolicyEnforcer:
    """Rules of one or more files, later ones winning.

    A file that is broken keeps the last good rules, and so does one of `files` that is gone, for
    a moment or for good: what it denied stays denied.
    """

    def __init__(self, files: Sequence[str], dirs: Sequence[str], default_rule: str) -> None:
        """files and dirs are absolute; what does not exist is left out.

        Raises ValueError, naming the file, where one cannot be read at start.
        """
        self._files = files
        self._dirs = dirs
        self._default_rule = default_rule
        self._enforcer = policy.Enforcer(cfg.ConfigOpts(), use_conf=False)
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, int]] = {}
        self._loaded: frozenset[str] = frozenset()
        self._looked = 0.0
        self._texts: Mapping[str, str] = {}
        self._load(self._stamps())

    @property
    def is_built_in(self) -> bool:
        """Whether there is no file at all."""
        return not self._loaded

    def check(self, ctx: RequestContext, rule: str, target: dict[str, Any] | None = None) -> None:
        """Raise Forbidden unless rule, or the default rule where it is not defined, accepts."""
        if not self.passes(ctx, rule, target):
            raise errors.Forbidden(f"You are not authorized to complete {rule} action.")

    def passes(self, ctx: RequestContext, rule: str, target: dict[str, Any] | None = None) -> bool:
        self._refresh()
        text = self._texts.get(rule, self._texts.get(self._default_rule))
        if text is None:
            return False
        if text in _ALWAYS:
            return True
        credentials = {"roles": list(ctx.roles), "user": ctx.user, "tenant": ctx.tenant}
        return bool(self._enforcer.enforce(rule, target or {}, credentials))

    def is_admin(self, context: RequestContext) -> bool:
        """By rule context_is_admin alone: the default rule, which is mostly open, makes no admins.

        Glance's made admins of everybody where a file had only the default rule.
        """
        self._refresh()
        return _ADMIN_RULE in self._texts and self.passes(context, _ADMIN_RULE)

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        stamps = self._stamps()
        if stamps != self._seen:
            with self._lock:
                try:
                    self._load(stamps)
                    LOG.info("policy rules were read again")
                except ValueError as error:
                    self._seen = stamps
                    LOG.error("keeping the last good policy rules: %s", error)

    def _load(self, stamps: dict[str, tuple[int, int]]) -> None:
        gone = [path for path in self._files if path in self._loaded and path not in stamps]
        if gone:
            raise ValueError(f"policy file {gone[0]} is gone")
        texts: dict[str, str] = {}
        for path in stamps:
            texts.update(_read(path))
        if not stamps:
            texts = dict(BUILT_IN)
        rules = policy.Rules.from_dict(texts, self._default_rule)
        self._enforcer.set_rules(rules, overwrite=True, use_conf=False)
        self._texts, self._seen = texts, stamps
        self._loaded = frozenset(stamps)

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """Every existing file with its time of change and size, in the order they are read."""
        paths = list(self._files)
        for directory in self._dirs:
            try:
                names = sorted(os.listdir(directory))
            except OSError:
                continue
            paths += [os.path.join(directory, name) for name in names if not name.startswith(".")]
        stamps: dict[str, tuple[int, int]] = {}
        for path in paths:
            try:
                found = os.stat(path)
            except OSError:
                continue
            stamps[path] = (found.st_mtime_ns, found.st_size)
        return stamps


def _read(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            texts = policy.parse_file_contents(file.read())
    except (OSError, ValueError) as error:
        raise ValueError(f"policy file {path} cannot be used: {error}") from None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(f"policy file {path} does not map rule names to texts")
    return texts


def enforcer_from(conf: Configuration) -> PolicyEnforcer:
    """The rules that section [oslo_policy] names. Raises ConfigurationError, naming the file."""
    options = conf.oslo_policy
    found = conf.find_file(options.policy_file)
    # Only directories beside the files in use: an unrelated /etc/policy.d is not ours (M12).
    beside = {os.path.dirname(file) for file in conf.files}
    dirs = [
        os.path.join(parent, name)
        for name in options.policy_dirs
        for parent in ([""] if os.path.isabs(name) else sorted(beside))
    ]
    try:
        return PolicyEnforcer([found] if found else [], dirs, options.policy_default_rule)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
