"""Links of README.md and of every page: to files and headings that are there."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_OUTSIDE = ("http://", "https://", "mailto:")


def anchors(page: Path) -> set[str]:
    """Name a page's headings as GitHub does: lower case, no punctuation, hyphens; the second of a name is `-1`."""
    seen = Counter[str]()
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def broken(page: Path) -> list[str]:
    """Give the links of a page that lead nowhere within the repository."""
    text = page.read_text(encoding="utf-8")
    links = _LINK.findall(_CODE.sub("", _FENCE.sub("", text)))
    return [link for link in links if not link.startswith(_OUTSIDE) and not _leads_somewhere(page, link)]


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    """A file that is there, and a heading that it has."""
    assert broken(page) == []


@pytest.mark.parametrize("link", ["none.md", "page.md#none", "#none", "folder/page.md", "other.txt#page"])
def test_broken_links_are_found(tmp_path: Path, link: str) -> None:
    """Each kind of link that the test above is for is one that it finds, and others are none."""
    (tmp_path / "other.txt").touch()
    page = tmp_path / "page.md"
    good = "# A *page*: of `x`\n## Twice\n## Twice\n[a](#a-page-of-x) [b](page.md#twice-1) [c](other.txt) [d](https://x/y)\n"
    page.write_text(f"{good}`[e](code)`\n```\n[f](fenced)\n```\n[g]({link})\n")
    assert broken(page) == [link]


def test_every_page_is_linked() -> None:
    """A page that README.md does not name is one that nobody finds."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for page in PAGES if f"({(name := str(page.relative_to(ROOT)))})" not in readme]
    assert missing == ["README.md"]
