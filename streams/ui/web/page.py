"""The page's HTML, made of a PageView. Everything is escaped: by Jinja2, and by ``bind``."""

from __future__ import annotations

from functools import reduce
from importlib import resources
from typing import Final

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from streams.ui.web.history import MINUTES
from streams.ui.web.view import PageView

_FILES: Final = resources.files("streams.ui.web")
#: The page's other files, with their types.
FILES: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml; charset=utf-8",
}


def read_file(name: str) -> str:
    """Return the text of one of this package's files."""
    return (_FILES / name).read_text(encoding="utf-8")


def get(scope: object, path: str) -> str:
    """Return the text at a path of a PageView; nothing in a template for rows to come."""
    if scope is None:
        return ""
    return str(reduce(getattr, path.split("."), scope))


def bind(scope: object, pairs: str) -> Markup:
    """Return attributes with their values, and what page.js needs to update them: ``"d=line x=place.x"``."""
    if scope is None:  # a row to come
        return Markup(f'data-bind="{escape(pairs)}"')  # noqa: S704
    made = [f'{name}="{escape(get(scope, path))}"' for name, path in (pair.split("=") for pair in pairs.split(" "))]
    return Markup(f'data-bind="{escape(pairs)}" {" ".join(made)}')  # noqa: S704 (both parts are escaped)


def _row_header(cell: Markup) -> Markup:
    """Return a cell that names its row."""
    return Markup(cell.replace("<th", Markup('<th scope="row"'), 1))  # noqa: S704 (Markup replaced by Markup)


def _environment() -> Environment:
    made = Environment(autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(read_file))
    made.globals.update(get=get, bind=bind, minutes=MINUTES)
    made.filters["row_header"] = _row_header
    return made


_PAGE: Final = _environment().get_template("page.html")


def render(view: PageView) -> str:
    """Return the whole page."""
    # Macros read `view` from the template's globals where it is not handed to them.
    return _PAGE.render(view=view)
