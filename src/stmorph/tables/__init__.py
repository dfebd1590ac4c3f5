"""A paper's table from scores alone: measured here, published, the difference."""

from .gather import gather
from .render import to_html, to_markdown

__all__ = ["gather", "to_html", "to_markdown"]
