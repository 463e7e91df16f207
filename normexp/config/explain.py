"""What to say in one line of an error in what was asked for, Hydra's and OmegaConf's among them."""

import io
import re
import traceback
from collections.abc import Iterator

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from normexp.config import checks, plain_texts, schema
from normexp.system.errors import UserError

LAUNCHERS = {"joblib": "joblib", "submitit": "slurm", "ray": "ray"}
"""How their names begin, and the extra that installs them."""


def explain(error: BaseException) -> str:
    """One line that names the key, what was given, and what would work."""
    if isinstance(error, UserError):
        return _one_line(str(error))
    if isinstance(error, UnicodeDecodeError) and (file := _file_being_read(error)):
        return f"{file} is not UTF-8 text; save it as UTF-8, or without accents and symbols"
    links = list(_chain(error))
    text = "\n".join(str(link) for link in links)
    if "failed to map segment" in text:
        return "not enough memory to load torch; allow this process more (ulimit -v)"
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if swept := _first(r"Ambiguous value for argument '(.+)'", text):
        return f"{swept}: to sweep over several values add -m before it; {_written_as(swept)}"
    if choice := re.search(r"Could not find '([\w/]+)/([^'\n]*)'", text):
        return _unknown_choice(choice[1], choice[2], text)
    if folder := _first(r"Additional config directory '(.+)' not found", text):
        return f"--config-dir {folder}: no such folder; give one that holds GROUP/CHOICE.yaml"
    if re.search("primary config", text, re.IGNORECASE):
        return "--config-name, --config-path: leave them out; --config-dir FOLDER adds own choices"
    key = (
        _first(r"full_key: (\S+)", text)
        or _first(r"Could not override '([^']+)'", text)
        or _first(r"No match in the defaults[^']*'?([\w.@/]+)", text)
    )
    if "object_type=PublishedFigure" in text:
        key = "published"  # OmegaConf names the key within the item of the list
    if key and not key.startswith("hydra"):
        try:
            checks.refuse_unknown(key.lstrip("+~").replace("/", "."))
        except UserError as unknown:
            return str(unknown)
    known = (OmegaConfBaseException, HydraException, ValueError)
    if not isinstance(error, known):
        text = f"{type(error).__name__}: {error}"
    reason = next((str(link) for link in links if isinstance(link, OmegaConfBaseException)), text)
    reason = _one_line(re.split(r"\n\s*full_key:", reason)[0])
    reason = re.sub(
        r"Invalid value assigned: (\w+) is not a ListConfig.*", r"must be a list, [a,b]", reason
    )
    if variable := _first(r"Interpolation key '(.+)' not found", reason):
        reason += f"; of the environment it is ${{oc.env:{variable}}}"
    where = _first(r"merging override (\S+)", text) or key
    return f"{where}: {reason}" if where else reason


def _unreadable(setting: str) -> str:
    """What to say of a setting that Hydra's grammar cannot read."""
    if not re.match(r"[+~]*[\w./@-]+=", setting):
        return f"{setting}: not a setting; write key=value"
    return f"{setting}: Hydra cannot read it; {_written_as(setting)}"


def _written_as(setting: str) -> str:
    """How a value that is one list or one text is written; numbers and words need no telling."""
    key, _, value = setting.partition("=")
    known = schema.KEYS.get(key.lstrip("+~"))
    if known is None or known.type in (str, str | None):
        return f"for one text write {plain_texts.line(key, value)}"
    return "write key=value; a list is [a,b]"


def _file_being_read(error: BaseException) -> str | None:
    """The text file that the innermost function was reading: Hydra does not name it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            if isinstance(value, io.TextIOWrapper):
                return str(value.name)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _unknown_choice(group: str, given: str, text: str) -> str:
    listed = re.search(r"Available options in '[^']+':\n((?:\t\S+\n?)+)", text)
    known = listed[1].split() if listed else []
    for begin, extra in LAUNCHERS.items():
        if group == "hydra/launcher" and given.startswith(begin):
            return (
                f"{group}={given}: is not installed; pip install 'normexp[{extra}]', in a checkout "
                f"pip install -e '.[{extra}]'"
            )
    hint = checks.nearest(given, known)
    return f"{group}={given}: no such choice;{hint} choose from {', '.join(known)}"
