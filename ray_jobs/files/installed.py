"""Documentation that the Python environment carries: modules with docstrings, and botocore's service models.

What is read here is text in files whose content is decided by the versions of Python and of the packages. Nothing is
imported: that would run the modules' code and print addresses and paths.
"""

import hashlib
import importlib.metadata
import importlib.util
import platform
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from ray_jobs.cluster.fan_out import UserError

# Jokes, an editor, converters and tests of the standard library are not documentation.
_LEFT_OUT = frozenset({"antigravity", "this", "idlelib", "lib2to3", "turtledemo", "test", "tests", "testing", "vendor"})


class NotInstalled(ValueError, ModuleNotFoundError):
    """A package whose files are read is not here, so what is made of them has no version and no key."""


def python_version() -> str:
    return platform.python_version()


def versions_of(packages: Iterable[str], reader: str) -> dict[str, str]:
    """The packages' versions.

    Args:
        reader: what reads them, for the error.

    Raises:
        NotInstalled: of those that are not, all are named.
    """
    versions, missing = {}, []
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)  # of its metadata: nothing is imported
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise NotInstalled(f"{reader} reads {', '.join(missing)}, not installed here: pip install {' '.join(missing)}")
    return versions


def check_versions(pinned: Mapping[str, str], here: Mapping[str, str], what: str) -> None:
    """What is made out of an environment is made in the one that was pinned, or not at all.

    Raises:
        UserError: this worker's is another one.
    """
    differing = [f"{name} {pinned.get(name)} (here {here[name]})" for name in here if here[name] != pinned.get(name)]
    if differing:
        raise UserError(
            f"{what} was pinned with {', '.join(differing)}, which {platform.node()} does not have: "
            "pin it again with --refresh, or install the pinned versions"
        )


def scattered(name: str) -> bytes:
    """A sort key that puts names in an order without pattern, the same everywhere."""
    return hashlib.sha256(name.encode()).digest()


def service_models() -> list[tuple[str, Path]]:
    """(service, its newest model) of botocore, in an order that mixes small services with large ones.

    The models are data files (`data/<service>/<version>/service-2.json.gz`); their documentation is HTML.
    """
    data = package_folder("botocore") / "data"
    newest = {path.parts[-3]: path for path in sorted(data.glob("*/*/service-2.json.gz"))}
    return sorted(newest.items(), key=lambda item: scattered(item[0]))


def package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations, f"{package} is pinned, so it is installed"
    return Path(spec.submodule_search_locations[0])


@cache
def documented_modules(packages: tuple[str, ...]) -> tuple[tuple[str, str, Path], ...]:
    """(package, module, source) of the packages' public modules, mixed, in an order that is the same everywhere.

    Args:
        packages: by the name under which they are installed and imported; "python" is the standard library.
    """
    found = []
    for package in packages:
        if package == "python":
            library = Path(sysconfig.get_path("stdlib"))
            for name in sys.stdlib_module_names:
                if not name.startswith("_") and name not in _LEFT_OUT:
                    found += _modules("python", name, library)
        else:
            found += _modules(package, package, package_folder(package).parent)
    return tuple(sorted(found, key=lambda module: scattered(module[1])))


def _modules(package: str, name: str, folder: Path) -> list[tuple[str, str, Path]]:
    """The public modules at and below `name` in `folder`."""
    if (folder / f"{name}.py").is_file():
        return [(package, name, folder / f"{name}.py")]
    modules = []
    for path in (folder / name).rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not any(part.startswith("_") or part in _LEFT_OUT for part in parts):
            modules.append((package, ".".join(parts), path))
    return modules
