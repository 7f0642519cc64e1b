"""The lexicons that a person names: files of JSON, and folders of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streams.errors import SettingsError
from streams.postgres.lexicon_views import NAMINGS
from streams.postgres.lexicons import LexiconError, Lexicons, is_record, lexicon_id

#: The lexicons that ship with this program: what others refer to is looked for here at last.
_SHIPPED: Final = Path(__file__).parents[1] / "lexicons"


@dataclass
class Given:
    """``records``: the lexicons of which views are wanted, by file; ``lexicons``: all to which they may refer.

    ``passed_over``: files of a folder that gave neither, by the reason.
    """

    lexicons: Lexicons
    records: list[tuple[Path, Any]] = field(default_factory=list)
    passed_over: dict[str, list[Path]] = field(default_factory=dict)


class _NoLexiconError(Exception):
    """A file that gives no lexicon: ``kind`` in a word or two, and the sentence about it."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


def read_lexicons(paths: Iterable[Path]) -> Given:
    """Return the lexicons in these files and folders.

    Raises SettingsError where a named file is none, two of one name differ, or none is that of a record.
    """
    paths = list(paths)
    found: dict[str, tuple[Path, Any]] = {}
    records: list[tuple[Path, Any]] = []
    passed_over: dict[str, list[Path]] = {}
    for path, is_named in _files(paths):
        try:
            lexicon = _load(path)
        except _NoLexiconError as error:
            if is_named:
                raise SettingsError(str(error)) from None
            passed_over.setdefault(error.kind, []).append(path)
            continue
        nsid = lexicon_id(lexicon)
        before = found.setdefault(nsid, (path, lexicon))
        if before[1] != lexicon:
            raise SettingsError(f"{before[0]} and {path} are both {nsid}, and differ", "give one of them.")
        if before[0] is not path or not is_record(lexicon):
            continue
        if nsid in NAMINGS and not is_named:
            passed_over.setdefault("a view came with the schema", []).append(path)
        else:
            records.append((path, lexicon))
    if not records:
        raise SettingsError(_no_record([lexicon for _, lexicon in found.values()], paths))
    shipped = (json.loads(file.read_text("utf-8")) for file in sorted(_SHIPPED.glob("*.json")))
    return Given(Lexicons([*(lexicon for _, lexicon in found.values()), *shipped]), records, passed_over)


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield each file, and whether it was named itself; of folders those that may hold lexicons."""
    for path in paths:
        if not path.is_dir():
            yield path, True
            continue
        for file in sorted(path.rglob("*.json")):
            inner = file.relative_to(path).parts
            if file.is_file() and not any(part.startswith(".") or part == "node_modules" for part in inner):
                yield file, False


def _load(path: Path) -> Any:  # noqa: ANN401 (JSON)
    """Return the lexicon in a file. Raises _NoLexiconError."""
    try:
        lexicon = json.loads(path.read_text("utf-8-sig"))
        lexicon_id(lexicon)
    except OSError as error:
        raise _NoLexiconError("not readable", f"{path} cannot be read: {error.strerror}.") from None
    except LexiconError as error:
        raise _NoLexiconError("no lexicon", f"{path} gives no view: {error}.") from None
    except (ValueError, RecursionError):
        raise _NoLexiconError("not JSON", f"{path} is not JSON.") from None
    return lexicon


def _no_record(lexicons: list[Any], paths: list[Path]) -> str:
    """Return the sentence that there is nothing to make a view of."""
    names = ", ".join(map(str, paths[:3]))
    if len(paths) == 1 and not paths[0].is_dir():
        return f"{names} gives no view: {lexicon_id(lexicons[0])} is not the lexicon of a record."
    return f"There is no lexicon of a record that needs a view among {len(lexicons)} lexicons in {names}."
