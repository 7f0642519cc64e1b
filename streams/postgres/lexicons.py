"""Lexicons as a set: their definitions by name, and what a ref leads to, also into another file. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from streams.protocol.syntax import is_nsid

#: A reference to one version of a record: known by its name, whether its lexicon is given or not.
STRONG_REF: Final = "com.atproto.repo.strongRef"


class LexiconError(ValueError):
    """The JSON is not a lexicon, or not that of a record; the text says why."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A schema, and the NSID of the lexicon in which it stands: there ``#name`` refers to a definition beside it."""

    schema: Mapping[str, Any]
    home: str

    @property
    def type(self) -> object:
        """Return its type; ``ref`` where it leads to nothing that is known."""
        return self.schema.get("type")

    @property
    def is_strong_ref(self) -> bool:
        """Return True for a reference to one version of a record."""
        return self.type == "ref" and self.schema.get("ref") == STRONG_REF


def lexicon_id(lexicon: object) -> str:
    """Return the NSID of a lexicon, of whatever it is. Raises LexiconError where it is none."""
    if not isinstance(lexicon, dict) or lexicon.get("lexicon") != 1:
        raise LexiconError("it is not a lexicon of version 1")
    nsid = lexicon.get("id")
    if not isinstance(nsid, str) or not is_nsid(nsid):
        raise LexiconError("its id is not a valid NSID")
    return nsid


def is_record(lexicon: object) -> bool:
    """Return True where a lexicon's main definition is a record."""
    main = _definitions(lexicon).get("main")
    return isinstance(main, dict) and main.get("type") == "record"


class Lexicons:
    """The lexicons that are known. Of two with one NSID the first counts. Raises LexiconError where one is none."""

    def __init__(self, lexicons: Iterable[object] = ()) -> None:
        self._definitions: dict[str, Mapping[str, Any]] = {}
        for lexicon in lexicons:
            self._definitions.setdefault(lexicon_id(lexicon), _definitions(lexicon))

    def follow(self, schema: object, home: str) -> Definition:
        """Return what a schema of ``home`` is in the end: refs are followed, from file to file.

        A ref that leads to nothing known, or in a circle, and one to a strongRef stay refs, with their full name.
        """
        here = Definition(schema if isinstance(schema, dict) else {}, home)
        seen: set[str] = set()
        while here.type == "ref":
            name = full_name(here.schema.get("ref"), here.home)
            target = None if name in seen or name == STRONG_REF else self._find(name)
            if target is None:
                return Definition({**here.schema, "ref": name}, here.home)
            seen.add(name)
            here = target
        return here

    def _find(self, name: str) -> Definition | None:
        nsid, _, part = name.partition("#")
        found = self._definitions.get(nsid, {}).get(part or "main")
        return Definition(found, nsid) if isinstance(found, dict) else None


def full_name(ref: object, home: str) -> str:
    """Return a ref as NSID, or NSID#name: ``#name`` is of ``home``, ``#main`` is the NSID alone."""
    nsid, _, part = str(ref).removeprefix("lex:").partition("#")
    return f"{nsid or home}#{part}" if part and part != "main" else nsid or home


def _definitions(lexicon: object) -> Mapping[str, Any]:
    found = lexicon.get("defs") if isinstance(lexicon, dict) else None
    return found if isinstance(found, dict) else {}
