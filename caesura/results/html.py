"""The HTML pages that results are shown on: their templates filled in, and images inside them."""

from __future__ import annotations

import base64
from typing import Any

from caesura.config.units import format_seconds
from caesura.results.text_table import STANDS_OUT


def render_html(template: str, **values: Any) -> str:
    """A page from one of the templates; a name that it needs and does not get is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("caesura", "templates"), autoescape=True, undefined=StrictUndefined)
    environment.filters["seconds"] = format_seconds
    environment.globals["MARK"] = STANDS_OUT
    return environment.get_template(template).render(values)


def embed_image(image: bytes) -> str:
    """An image as a page holds it."""
    return base64.b64encode(image).decode("ascii")
