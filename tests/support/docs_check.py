"""What the documents tell a reader to type: found in their code blocks, and held against what exists.

It runs nothing but ``--help``; tests/acceptance/test_docs_commands.py runs the rest, by the table in docs_commands.py.
"""

from __future__ import annotations

import ast
import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from streams.environment.names import mistyped
from streams.settings import Settings, setting_names
from tests.support.docs_commands import COMMANDS, NO_COMMANDS, ByTest, Check, Parsed, Run
from tests.support.patience import PATIENCE

PROJECT = Path(__file__).resolve().parents[2]
#: Those at the top, those of docs/ with its decisions, and the examples'.
DOCUMENTS = (
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
    PROJECT / "examples" / "README.md",
)

#: Languages of fenced blocks that a reader types; the others are shown, not typed.
SHELL = frozenset({"", "sh", "bash", "shell", "console"})
FENCE = re.compile(r"^( {0,3})(`{3,}|~{3,})\s*(\w*)")
#: A command in running text, in backticks. It needs no entry in the table, but what it names must exist.
INLINE = re.compile(r"(?<!`)`((?:make|python -m streams|faust -A streams|python examples/)[^`]*)`(?!`)", re.S)
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.S)
#: Programs that are not ours: what they are told is theirs to judge.
OTHERS = frozenset({
    "apt-get", "awk", "cat", "cd", "cp", "createdb", "curl", "diff", "git", "head", "jq", "kcat", "kill", "ls", "mkdir",
    "mv", "pg_dump", "pg_dumpall", "pg_restore", "pip", "psql", "python", "python3", "rm", "sudo", "tail", "time",
    "watch",
})  # fmt: skip
DOCKER = frozenset({
    "build", "config", "cp", "down", "exec", "images", "logs", "port", "ps", "pull", "restart", "rm", "run", "start",
    "stats", "stop", "top", "up",
})  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A code block: its language ("" where none is given) and its lines, without their indentation."""

    document: str
    line: int
    language: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Command:
    """A command as it stands in a document, on one line, blanks and comments aside; SQL as it is."""

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"


# -- finding


def blocks(document: Path) -> Iterator[Block]:
    """The fenced and the indented blocks of a document."""
    lines = document.read_text().splitlines()
    name = str(document.relative_to(PROJECT))
    at, blank_before = 0, True
    while at < len(lines):
        begin = at
        if (fence := FENCE.match(lines[at])) is not None:
            indent, marks, language = fence.groups()
            at += 1
            while at < len(lines) and not lines[at].strip().startswith(marks):
                at += 1
            inner = tuple(line.removeprefix(indent) for line in lines[begin + 1 : at])
            yield Block(name, begin + 2, language.lower(), inner)
        elif blank_before and lines[at].startswith("    ") and lines[at].strip():
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            inner = tuple(line[4:] for line in lines[begin:at])
            at -= 1
            yield Block(name, begin + 1, "", tuple("\n".join(inner).rstrip().split("\n")))
        blank_before = not lines[at].strip()
        at += 1


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block of shell: continued lines and open quotes joined, comments and explanations cut off."""
    whole, quote, began = "", "", 0
    for number, line in enumerate(block.lines):
        if block.language == "console" and not whole:
            if not line.startswith("$ "):
                continue  # output
            line = line[2:]  # noqa: PLW2901
        began = began if whole else number
        part, quote = _scan(line, quote)
        whole += part
        if quote or whole.endswith("\\"):
            whole = whole.removesuffix("\\") + " "
        elif whole.strip():
            yield Command(block.document, block.line + began, " ".join(whole.split()))
            whole = ""
        else:
            whole = ""


def _scan(line: str, quote: str) -> tuple[str, str]:
    """What of the line is command, and the quote that is open at its end."""
    for at, c in enumerate(line):
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif (c == "#" and (at == 0 or line[at - 1] == " ")) or (line[at : at + 3] == "   " and line[:at].strip()):
            return line[:at], ""
    return line, quote


def shell_commands() -> list[Command]:
    """The commands of all documents, in their order, each once."""
    found = {}
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language in SHELL and not block.text.lstrip().startswith(NO_COMMANDS):
                for command in commands(block):
                    found.setdefault(command.text, command)
    return list(found.values())


def setting_blocks() -> list[Block]:
    """The blocks that hold nothing but settings, as an .env file does."""
    return [
        block
        for document in DOCUMENTS
        for block in blocks(document)
        if block.language in SHELL and all(ASSIGNMENT.fullmatch(line.strip()) for line in block.lines if line.strip())
    ]


def sql_blocks() -> list[Command]:
    """The fenced blocks of SQL."""
    return [
        Command(block.document, block.line, block.text)
        for document in DOCUMENTS
        for block in blocks(document)
        if block.language == "sql"
    ]


def inline_commands() -> list[Command]:
    """The commands in running text."""
    found = {}
    for document in DOCUMENTS:
        text = document.read_text()
        for match in INLINE.finditer(text):
            command = " ".join(match[1].split())
            place = str(document.relative_to(PROJECT)), text.count("\n", 0, match.start()) + 1
            found.setdefault(command, Command(*place, command))
    return list(found.values())


def docstring_commands() -> list[Command]:
    """The commands in the docstrings of the examples, which are their help."""
    found = []
    for example in sorted((PROJECT / "examples").glob("*.py")):
        name = str(example.relative_to(PROJECT))
        lines = (ast.get_docstring(ast.parse(example.read_text())) or "").splitlines()
        typed = tuple(line[4:] if line.startswith("    ") else "" for line in lines)
        found.extend(commands(Block(name, 1, "", typed)))
    return found


# -- the table


def check_of(text: str) -> Check | None:
    """The table's entry for a command."""
    for key, check in COMMANDS.items():
        pattern = ".*".join(re.escape(" ".join(part.split())) for part in key.split("…"))
        pattern = pattern if "…" not in key else pattern.replace(r"\ .*", r"\s.*")
        if re.fullmatch(pattern, text, re.S):
            return check
    return None


def missing_tests() -> list[str]:
    """Tests that the table names and that do not exist."""
    named = {check.test for check in COMMANDS.values() if isinstance(check, ByTest)}
    return sorted(test for test in named if not _is_test(*test.split("::")))


def _is_test(path: str, name: str) -> bool:
    file = PROJECT / path
    return file.is_file() and re.search(rf"^(?:async )?def {name}\(", file.read_text(), re.M) is not None


def not_run() -> list[Command]:
    """The commands that are not executed by this check, those in running text among them."""
    listed = [command for command in shell_commands() if isinstance(check_of(command.text), Parsed | ByTest)]
    return listed + inline_commands() + docstring_commands()


def executed() -> list[tuple[Command, Run]]:
    """The commands that are."""
    checks = ((command, check_of(command.text)) for command in shell_commands())
    return [(command, check) for command, check in checks if isinstance(check, Run)]


# -- holding against what exists


def problems(text: str) -> list[str]:
    """A sentence for each thing in the command that is not: a setting, a target, an option, a service, a file."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    found: list[str] = []
    for word in [*lexer, ";"]:
        if word and set(word) <= set("|&;"):
            found.extend(_simple_problems(words))
            words = []
        else:
            words.append(word)
    return found


def _simple_problems(words: Sequence[str]) -> list[str]:
    """The same of one simple command."""
    rest = list(words)
    found: list[str] = []
    while rest and (rest[0] == "export" or ASSIGNMENT.fullmatch(rest[0])):
        word = rest.pop(0)
        found.extend([] if word == "export" else _setting_problems(word))
    if not rest or rest[0].startswith("$("):
        return found
    return found + _program_problems(Path(rest[0]).name, rest[1:])


def _program_problems(program: str, arguments: list[str]) -> list[str]:
    match [program, *arguments]:
        case ["make", *rest]:
            found = _make_problems(rest)
        case ["docker", "compose", *rest] | ["docker-compose", *rest]:
            found = _compose_problems(rest)
        case ["python" | "python3", "-m", module, *rest] if module.startswith("streams"):
            found = _option_problems([sys.executable, "-m", module], rest)
        case ["python" | "python3", script, *rest] if script.endswith(".py"):
            found = _option_problems([sys.executable, str(PROJECT / script)], rest)
        case ["faust", "-A", app, *rest]:
            found = _option_problems([str(Path(sys.executable).with_name("faust")), "-A", app], rest)
        case _ if program in OTHERS:
            found = []
        case _:
            found = [f"{program!r} is no program that the documents use (tests/support/docs_check.py: OTHERS)"]
    return found


def _setting_problems(assignment: str) -> list[str]:
    name, value = assignment.split("=", 1)
    if name.lower() not in Settings.model_fields:
        return mistyped({name: value}, setting_names())
    if not value or any(mark in value for mark in "$…<"):
        return []  # a placeholder
    try:
        Settings(_env_file=None, **{name.lower(): value})  # type: ignore[arg-type, call-arg]
    except ValidationError as error:
        # What it asks for besides has no place: that is for the block as a whole (see setting_blocks).
        return [f"{assignment}: {own['msg']}" for own in error.errors() if own["loc"]]
    return []


def block_problems(block: Block) -> list[str]:
    """A sentence for each thing in which the settings of a block do not go together."""
    assignments = [line.strip().split("=", 1) for line in block.lines if line.strip()]
    try:
        Settings(_env_file=None, **{name.lower(): value for name, value in assignments})  # type: ignore[arg-type, call-arg]
    except ValidationError as error:
        return [f"{block.document}:{block.line}: {each['msg']}" for each in error.errors()]
    return []


def _make_problems(arguments: Sequence[str]) -> list[str]:
    makefile = (PROJECT / "Makefile").read_text()
    found = []
    for argument in arguments:
        if argument.startswith(("-", "…")):
            continue
        if (assignment := ASSIGNMENT.fullmatch(argument)) is None:
            if re.search(rf"^{re.escape(argument)}:", makefile, re.M) is None:
                found.append(f"make has no target {argument}")
        elif assignment[1].lower() in Settings.model_fields:
            found.extend(_setting_problems(argument))
        elif re.search(rf"^{assignment[1]} \?=", makefile, re.M) is None:
            found.append(f"make has no variable {assignment[1]}, and it is no setting")
    return found


def _compose_problems(arguments: Sequence[str]) -> list[str]:
    """Options go unseen but `-f FILE`; then comes the subcommand, then services."""
    files, rest = ["docker-compose.yml"], list(arguments)
    found = []
    if "-f" in rest[:1]:
        files = [file for flag, file in zip(rest[::2], rest[1::2], strict=False) if flag == "-f"]
        rest = rest[2 * len(files) :]
    missing = [file for file in files if not (PROJECT / file).is_file()]
    if missing:
        return [f"there is no {file}" for file in missing]
    if rest[:1] == ["--profile"]:
        if not any(f"profiles: [{rest[1]}]" in (PROJECT / file).read_text() for file in files):
            found.append(f"no service has the profile {rest[1]}")
        rest = rest[2:]
    if not rest or rest[0] not in DOCKER:
        found.append(f"docker-compose has no command {' '.join(rest[:1])!r}")
    text = "\n".join((PROJECT / file).read_text() for file in files)
    services = set(re.findall(r"^  ([\w-]+):", text, re.M))
    named = [word for word in rest[1:] if not word.startswith("-") and "=" not in word]
    if rest[:1] in (["exec"], ["run"]):
        named = named[:1]
    return found + [f"{files} have no service {word}" for word in named if word not in services and not word.isdigit()]


def _option_problems(program: list[str], arguments: Sequence[str]) -> list[str]:
    """Options that the command's help does not name; or that there is no such command."""
    positional: list[str] = []
    for argument in arguments:
        if not re.fullmatch(r"[a-z][\w.:-]*", argument):
            break
        positional.append(argument)
    code, text = _help(*program, *positional)
    if code:
        return [f"{' '.join([*program, *positional])} --help ends with {code}: {text.strip()[-300:]}"]
    options = re.findall(r"(?<![\w-])--?[a-z][\w-]*", " ".join(a.split("=")[0] for a in arguments if "-" in a[:2]))
    return [f"{option} is no option of {' '.join(positional) or program[-1]}" for option in options
            if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text)]  # fmt: skip


@functools.cache
def _help(*program: str) -> tuple[int, str]:
    done = subprocess.run(
        [*program, "--help"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
