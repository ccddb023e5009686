"""Check the documentation: every relative link, every file named in `code`, and the README's map of the files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def documents() -> list[Path]:
    """Return every Markdown file that is checked."""
    own = [ROOT / "README.md", ROOT / "benchmarks" / "GPU.md", ROOT / "CHANGELOG.md"]
    return [*own, *sorted((ROOT / "docs").rglob("*.md"))]


def without_fences(text: str) -> str:
    """Return the text with fenced blocks emptied, line numbers kept."""
    return re.sub(r"^```.*?^```", lambda block: "\n" * block.group().count("\n"), text, flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_fences(path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def bad_links(path: Path) -> Iterator[str]:
    """Yield each relative link whose file or heading is not there."""
    text = without_fences(path.read_text(encoding="utf-8"))
    for match in re.finditer(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = match.group(1).partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (path.parent / target) if target else path
        at = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
        if not file.exists():
            yield f"{at}: the link {match.group(1)} leads nowhere"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield f"{at}: {target or path.name} has no heading #{anchor}"


def names_of_code() -> set[str]:
    """Return the bare names of all Python files of the project."""
    folders = ("src", "tests", "docs", "benchmarks")
    return {file.name for folder in folders for file in (ROOT / folder).rglob("*.py")}


def bad_names(path: Path, known: set[str]) -> Iterator[str]:
    """Yield each file or folder that is named in `code` and is not there; names are from the root, src/alter or the page."""
    text = without_fences(path.read_text(encoding="utf-8"))
    for match in re.finditer(r"`([\w.\-/]+)`", text):
        name = match.group(1)
        is_path = "/" in name and re.search(r"\.(py|md|yaml|toml)$|^(src|tests|docs|recipes|benchmarks)/", name) is not None
        found = any((folder / name).exists() for folder in (ROOT, ROOT / "src" / "alter", path.parent))
        if (is_path and not found) or (name.endswith(".py") and "/" not in name and name not in known):
            yield f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: there is no {name}"


def problems_in(path: Path) -> list[str]:
    """Return everything wrong with one document's links and names."""
    return [*bad_links(path), *bad_names(path, names_of_code())]


def tree_entries() -> list[str]:
    """Return the paths (or patterns) of the annotated tree in the README, from the root."""
    block = re.search(r"<!-- tree -->\n```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    entries, folders = [], [""]
    for line in block.group(1).splitlines() if block else []:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        entries.append(folders[depth] + name)
        if name.endswith("/"):
            folders[depth + 1 :] = [folders[depth] + name]
    return entries


def tree_problems() -> list[str]:
    """Return entries of the README's tree that match no file, and files of the package that no entry matches."""
    covered: set[Path] = set()
    problems = []
    for entry in tree_entries():
        found = set(ROOT.glob(entry.rstrip("/")))
        covered |= found
        if not found:
            problems.append(f"README.md: the tree names {entry}, which is not there")
    code = {file for file in (ROOT / "src" / "alter").rglob("*.py") if file.name != "__init__.py"}
    return problems + [f"README.md: the tree leaves out {file.relative_to(ROOT)}" for file in sorted(code - covered)]
