"""Put the pages of the repository together for the site, each at its place, so that links between them hold.

Run by `make docs`: Markdown files of the repository's root, docs/ and experiments/, every file that one of them links
to, and a page for each public name.
"""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "site"
LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)")
PUBLIC = {  # the objects that versions keep (docs/stability.md)
    "Load a model, teach it, ask it": ("api.load", "teach.learner.Learner", "teach.answer.Answer", "teach.pack.Pack"),
    "Data and episodes": ("source.open_data", "api.draw_episodes"),
    "Measure": ("api.evaluate", "report.result.EvaluationResult", "evaluation.compare.compare"),
    "Share": ("api.push_to_hub",),
}


def pages() -> list[Path]:
    """The Markdown files that the site has, relative to the repository."""
    folders = ROOT, ROOT / "docs", ROOT / "experiments"
    return [path.relative_to(ROOT) for folder in folders for path in sorted(folder.glob("*.md"))]


def linked(page: Path) -> set[Path]:
    """The files of the repository that a page links to, relative to it; folders give their README or nothing."""
    found = set()
    for target, _ in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        path = (ROOT / page.parent / target).resolve()
        if path.is_relative_to(ROOT) and path.is_file():
            found.add(path.relative_to(ROOT))
    return found


def without_folders(page: Path) -> str:
    """The text of a page, with its links to folders as plain code, since a site has no page for a folder."""

    def replace(match: re.Match[str]) -> str:
        path = ROOT / page.parent / match[2]
        return f"`{match[1].strip('`')}`" if path.is_dir() else match[0]

    return re.sub(r"\[([^\]]*)\]\(([^)#\s:]+)\)", replace, (ROOT / page).read_text(encoding="utf-8"))


def reference() -> str:
    """The page of the Python reference, which mkdocstrings fills from docstrings."""
    parts = ["# Python reference\n\nThese names are what versions keep ([stability](docs/stability.md)).\n"]
    for heading, names in PUBLIC.items():
        parts.append(f"## {heading}\n")
        parts += [f"::: linkcontext.{name}\n" for name in names]
    return "\n".join(parts)


def main() -> None:
    """Write the pages and the linked files."""
    shutil.rmtree(SITE, ignore_errors=True)
    todo, done = list(pages()), set[Path]()
    while todo:
        path = todo.pop()
        if path in done:
            continue
        done.add(path)
        target = SITE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target.write_text(without_folders(path), encoding="utf-8")
            todo += linked(path)
        else:
            shutil.copyfile(ROOT / path, target)
    (SITE / "reference.md").write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
