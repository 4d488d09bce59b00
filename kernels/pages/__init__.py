"""The types of pages that keys and values are stored in, by llama.cpp's names. A new one is a file and a line here."""

from . import f16, q8_0
from .page_type import POSITIONS, PageType

PAGES: dict[str, PageType] = {module.PAGES.name: module.PAGES for module in (f16, q8_0)}

__all__ = ["PAGES", "POSITIONS", "PageType"]
