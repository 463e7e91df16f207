"""Completion in shells: what they are to evaluate, and which words may stand at the cursor.

Asked at each press of the key: no configuration is composed, and torch is not imported.
"""

import os
from collections.abc import Iterable
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, get_type_hints

from normexp.config import schema
from normexp.config.one_line import one_line_errors
from normexp.config.schema import Config
from normexp.help.commands import COMMANDS
from normexp.norms.catalogue import CATALOGUE
from normexp.system.errors import UserError

# Where nothing is found the shells complete the names of files, such as run directories.
INSTALL = {
    "bash": """\
_normexp() {
    local IFS=$'\\n'
    COMPREPLY=($(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        "$1" train -sc query=bash 2>/dev/null))
    [[ ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _normexp normexp""",
    "zsh": """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_normexp() {
    local -a found=(${(f)"$(COMP_LINE="${words[1,CURRENT]}" \\
        ${(Q)~words[1]} train -sc query=zsh 2>/dev/null)"})
    if (( $#found )); then
        compadd -S '' -- ${(M)found:#*[=.]}
        compadd -- ${found:#*[=.]}
    else
        compset -P '*='
        _files
    fi
}
compdef _normexp normexp""",
    "fish": """\
complete -c normexp -a '(COMP_LINE=(commandline -cp) normexp train -sc query=fish 2>/dev/null)'""",
}
REMOVE = {"bash": "complete -r normexp", "zsh": "compdef -d normexp", "fish": "complete -e normexp"}


def main(arguments: list[str]) -> bool:
    """Print what a shell asks for with `-sc install=SHELL`, `uninstall=` or `query=`.

    Returns:
        Whether the arguments of `normexp train` ask for that.
    """
    if arguments[:1] not in (["-sc"], ["--shell-completion"]):
        return False
    with one_line_errors():
        wanted, _, shell = "".join(arguments[1:]).partition("=")
        scripts = {"install": INSTALL, "uninstall": REMOVE}
        if wanted not in (*scripts, "query") or shell not in INSTALL:
            shells = ", ".join(INSTALL)
            raise UserError(f"{' '.join(arguments)}: write -sc install=SHELL, one of {shells}")
        if wanted == "query":
            _answer(os.environ.get("COMP_LINE", ""), os.environ.get("COMP_WORDBREAKS", ""))
        else:
            print(scripts[wanted][shell])
    return True


def _answer(line: str, breaks: str) -> None:
    """Print a line for each word that may stand at the end of a command line.

    Args:
        breaks: characters of which the last in a word, and what is before, is not to be printed.
    """
    *before, word = line.split() if line.strip() == line else [*line.split(), ""]
    start = 1 + max(map(word.rfind, breaks), default=-1)
    for found in words(before[1:], word):
        print(found[start:])


def words(before: list[str], word: str) -> list[str]:
    """What may take the place of a word of `normexp`'s command line; empty where that is a file.

    Args:
        before: the words before it, without `normexp`.
    """
    command, *given = before or [""]
    first = {
        "": [*COMMANDS, "--help", "--version"],
        "norms": [*CATALOGUE],
        "data": ["fetch"],
        "bench": ["norms", "growth", "batch_size", "seeds", "runs", "images"],
    }
    found = [] if given else _beginning(word, first.get(command, []))
    if command in ("train", "compare", "bench") or (command == "data" and given):
        found += _settings(word, _keys())
    elif command == "evaluate" and word:
        from normexp.finished.evaluation_settings import READ  # takes a fifth of a second

        found += _settings(word, ["data", *READ])
    return found


def _beginning(word: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith(word)]


def _settings(word: str, keys: list[str]) -> list[str]:
    """Keys up to their next dot or `=`, or values of a key; of `norm=bn,g` the last in the list."""
    key, sign, value = word.partition("=")
    if not sign:
        found = (one[: one.find(".", len(word)) + 1] or f"{one}=" for one in _beginning(word, keys))
        return list(dict.fromkeys(found))
    listed = value.split(",")[:-1]
    choices = _choices(key) if key in keys else []
    start = ",".join([*listed, ""])
    return _beginning(word, (f"{key}={start}{one}" for one in choices if one not in listed))


def _keys(level: Any = Config, prefix: str = "") -> list[str]:
    """The groups and all dotted keys."""
    keys = [path.name for path in schema.conf_dir().iterdir() if path.is_dir()]
    keys = [] if prefix else sorted(set(keys) - {"hydra"})
    for name, kind in get_type_hints(level).items():
        keys += _keys(kind, f"{prefix}{name}.") if is_dataclass(kind) else [prefix + name]
    return keys


def _choices(key: str) -> list[str]:
    folder = schema.conf_dir() / key
    if folder.is_dir():
        return sorted(path.stem for path in folder.glob("*.yaml"))
    if key.endswith(".name"):
        return []  # names of choices are given to their groups
    kind: Any = Config
    for part in key.split("."):
        kind = get_type_hints(kind)[part]
    if kind is bool:
        return ["true", "false"]
    return [one.value for one in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []
