"""The property-protection file: read once, at start; any fault in it keeps the service down."""

import configparser
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from common.context import RequestContext

OPERATIONS: Final = ("create", "read", "update", "delete")

# Whether a caller passes a policy rule of this name.
RuleCheck = Callable[[RequestContext, str], bool]


class BadProtectionFile(Exception):
    """The file cannot be used; names the section and what is wrong."""


@dataclass(frozen=True)
class _Section:
    pattern: re.Pattern[str]
    allowed: dict[str, frozenset[str]]


class PropertyRules:
    """First section whose pattern is found in the name decides; no section: denied."""

    def __init__(
        self,
        path: str,
        rule_format: Literal["roles", "policies"],
        passes_rule: RuleCheck,
    ) -> None:
        """Raises BadProtectionFile."""
        self._passes_rule = passes_rule
        self._by_roles = rule_format == "roles"
        if rule_format not in ("roles", "policies"):
            raise BadProtectionFile("property_protection_rule_format: must be roles or policies")
        self._sections = [self._section(name, values) for name, values in _read(path).items()]

    def allows(self, ctx: RequestContext, operation: str, name: str) -> bool:
        if not self._sections:
            return True
        section = next((each for each in self._sections if each.pattern.search(name)), None)
        if section is None:
            return False
        allowed = section.allowed[operation]
        if "@" in allowed:
            return True
        if self._by_roles:
            return not allowed.isdisjoint(role.lower() for role in ctx.roles)
        return any(rule != "!" and self._passes_rule(ctx, rule) for rule in allowed)

    def _section(self, name: str, values: dict[str, str]) -> _Section:
        try:
            pattern = re.compile(name)
        except re.error:
            raise BadProtectionFile(f"[{name}] is not a regular expression") from None
        return _Section(pattern, {each: self._words(name, each, values) for each in OPERATIONS})

    def _words(self, section: str, operation: str, values: dict[str, str]) -> frozenset[str]:
        if operation not in values:
            raise BadProtectionFile(f"[{section}] lacks {operation}")
        words = frozenset(
            word.strip().lower() if self._by_roles else word.strip()
            for word in values[operation].split(",")
            if word.strip()
        )
        if {"@", "!"} <= words:
            raise BadProtectionFile(f"[{section}] {operation}: @ and ! exclude each other")
        if not self._by_roles and len(words) > 1:
            raise BadProtectionFile(f"[{section}] {operation}: only one policy may be named")
        return words


def _read(path: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=True, default_section="")
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeError, configparser.Error) as error:
        raise BadProtectionFile(f"property_protection_file cannot be read: {error}") from None
    return {section: dict(parser.items(section)) for section in parser.sections()}
