"""Code of a person's own, named `module:function` in the configuration: a norm or a network.

Nothing is imported but by :func:`load`.
"""

import hashlib
import importlib
import importlib.util
import os
import sysconfig
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from site import getsitepackages, getusersitepackages
from typing import Any

from normexp.system.errors import UserError
from normexp.system.foreign_files import RECORD, read_bytes


def is_own(name: str) -> bool:
    """Whether a name is of the form `module:function`."""
    module, _, function = name.partition(":")
    return bool(module and function)


def own_file(key: str, name: str) -> Path:
    """The file of what a key names by `module:function`; nothing is imported.

    Raises:
        UserError: there is none on the path.
    """
    if not is_own(name):
        raise UserError(f"{key}={name}: name code of your own MODULE:FUNCTION, for MODULE.py")
    module = name.partition(":")[0]
    spec = _spec(module)
    if spec is not None and (spec.origin is None or not Path(spec.origin).is_file()):
        raise UserError(
            f"{key}={name}: {module} is a package or a part of Python and no file; name "
            "the file of your own, MODULE:FUNCTION for MODULE.py"
        )
    if spec is None or spec.origin is None:
        raise UserError(
            f"{key}={name}: no module {module} on the path; run from its folder "
            "or put that folder into PYTHONPATH"
        )
    return Path(spec.origin)


def digest(key: str, name: str) -> str:
    """A hash of that file, so that a change of it is another run.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    file = own_file(key, name)
    try:
        return hashlib.sha256(read_bytes(file, RECORD)).hexdigest()
    except OSError as error:
        raise UserError(
            f"{key}={name}: cannot read {file}: {error.strerror}; make it readable"
        ) from error


def load(key: str, name: str) -> Any:
    """Import what a key names by `module:function`.

    Raises:
        UserError: there is none on the path, or the file has no such function.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(
            f"{key}={name}: {error}; name what is in a file on the path, MODULE:FUNCTION for "
            "MODULE.py"
        ) from error


def installed(file: Path) -> bool:
    """Whether a module is of Python or of a package that was installed, and no file of a person."""
    known = sysconfig.get_paths()
    places = [known[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    places += [*getsitepackages(), getusersitepackages(), str(Path(__file__).parents[1])]
    real = Path(os.path.realpath(file))
    return (
        any(real.is_relative_to(os.path.realpath(place)) for place in places)
        or not {"site-packages", "dist-packages"}.isdisjoint(real.parts)
    )  # fmt: skip


def _spec(module: str) -> ModuleSpec | None:
    """What Python would import by a name; importlib would run the packages before its last dot."""
    parts = module.split(".")
    try:
        spec = importlib.util.find_spec(parts[0])
        for count in range(2, len(parts) + 1):
            inside = None if spec is None else spec.submodule_search_locations
            if inside is None:
                return None
            spec = PathFinder.find_spec(".".join(parts[:count]), inside)
    except (ImportError, ValueError):
        return None
    return spec
