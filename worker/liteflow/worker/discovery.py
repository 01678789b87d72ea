"""Which providers are installed, by entry points that anyone can add to, and what each of them needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

from liteflow.core.errors import SettingsError
from liteflow.core.providers import Provider

KINDS = {"persistence": "--store", "queue": "--queue", "lock": "--lock"}
"""Each kind of provider, and the option that takes its URL. Entry points are in ``liteflow.<kind>``."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?([^;]*)(?:;(.*))?")
_EXTRA = re.compile(r"""extra *== *['"]([^'"]+)['"]""")


@dataclass(frozen=True)
class Entry:
    """One scheme of URLs and the provider for it. Nothing of the provider is imported before `load`.

    ``scheme = package.module:Provider [extra]`` is how the entry point looks; the extra is that of the
    package that brings the driver.
    """

    kind: str
    scheme: str
    point: EntryPoint

    @property
    def package(self) -> str:
        """What to install for it, as pip takes it, like ``liteflow.core[redis]``."""
        name = self.point.dist.name if self.point.dist is not None else self.point.module.partition(".")[0]
        return f"{name}[{','.join(self.point.extras)}]" if self.point.extras else name

    def needs(self) -> dict[str, str | None]:
        """The packages that the extra brings, and the version that is installed of each, if any."""
        found: dict[str, str | None] = {}
        for text in (self.point.dist.requires if self.point.dist is not None else None) or ():
            requirement = _REQUIREMENT.match(text)
            extra = _EXTRA.search(requirement[3] or "") if requirement else None
            if requirement and extra and extra[1] in self.point.extras:
                try:
                    found[requirement[1]] = version(requirement[1])
                except PackageNotFoundError:
                    found[requirement[1]] = None
        return found

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name, installed in self.needs().items() if installed is None]

    def load(self) -> Callable[..., Provider]:
        """What makes the provider from a URL. `SettingsError` if its package or driver is not whole."""
        missing = self.missing()
        try:
            if not missing:
                factory: Callable[..., Provider] = self.point.load()
                return factory
        except ImportError as exc:
            # Not a missing distribution, so one that is damaged, or of a release that does not fit.
            raise SettingsError(
                f"the provider for {self.scheme}:// can't be imported ({exc}); install it anew:"
                f" pip install --force-reinstall '{self.package}'"
            ) from exc
        except AttributeError as exc:
            raise SettingsError(
                f"the entry point for {self.scheme}:// names {self.point.value}, which is not there;"
                f" upgrade {self.package} or tell its authors"
            ) from exc
        raise SettingsError(
            f"the driver for {self.scheme}:// is not installed ({', '.join(missing)} is missing);"
            f" pip install '{self.package}'"
        )


def entries(kind: str) -> dict[str, Entry]:
    """The installed providers of a kind by scheme, in order."""
    found = {point.name.lower(): Entry(kind, point.name.lower(), point) for point in _points(kind)}
    return dict(sorted(found.items()))


def _points(kind: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"liteflow.{kind}"))


def scheme_of(url: str) -> str:
    """What stands before the colon. `SettingsError` if that is no scheme."""
    scheme, colon, _ = url.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        # Not repeated: it may be a password that was given without its URL.
        raise SettingsError("this is no URL: it should begin with a scheme, like redis://host:6379/0")
    return scheme.lower()


def make(kind: str, url: str, prefix: str, **options: Any) -> Provider:
    """The provider of a kind for a URL; nothing is connected yet. `SettingsError` says what is wrong."""
    scheme, found = scheme_of(url), entries(kind)
    if scheme not in found:
        raise SettingsError(f"no {kind} provider for {scheme}:// is installed (known: {_names(found)})")
    factory = found[scheme].load()
    try:
        return factory(url, prefix=prefix, **options)
    except ValueError as exc:
        # The driver's words may repeat the URL, and with it a password.
        raise SettingsError("the URL is not valid") from exc


def _names(found: dict[str, Entry]) -> str:
    return ", ".join(f"{name}://" for name in found) or "none"
