"""What mkdocs.yml adds to the pages of docs/, so that they read the same here and in a repository:
README.md as front page, the API from docstrings, and each file of the repository that a page links
to, as a page of its own.
"""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

import slam_potsa

ROOT = Path(__file__).resolve().parents[1]
FRONT = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md"}  # here -> in the site
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)")
CODE = {".py": "python", ".yaml": "yaml", ".json": "json", ".txt": "text"}
ROOMS = ("config", "data", "objective", "model", "engine", "evaluation")


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    def page(place: str, text: str) -> None:
        files.append(File.generated(config, place, content=text))

    for name, place in FRONT.items():
        page(place, (ROOT / name).read_text(encoding="utf-8"))
    written = [*FRONT, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    for path in sorted({link for name in written for link in _links(name)}):
        kind = CODE.get(Path(path).suffix)
        if kind:
            text = (ROOT / path).read_text(encoding="utf-8")
            hidden = "---\nsearch: {exclude: true}\n---\n"
            page(f"{path}.md", f"{hidden}# {path}\n\n````{kind}\n{text}\n````\n")
        elif not path.startswith("docs/") and path not in FRONT:
            files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    page(
        "api/index.md",
        "# What `import slam_potsa` offers\n\n"
        + _public()
        + "\n"
        + _documented(["slam_potsa.errors.InputError"]),
    )
    for room in ROOMS:
        modules = [".".join(p.parts) for p in _modules(room)]
        page(f"api/{room}.md", f"# slam_potsa.{room}\n\n" + _documented(modules))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the site has them."""
    own = page.file.src_uri
    here = {place: name for name, place in FRONT.items()}.get(own, f"docs/{own}")
    if not (ROOT / here).is_file():
        return markdown
    return LINK.sub(
        lambda m: f"{m[1]}{relpath(_placed(_target(here, m[2])), dirname(own))}", markdown
    )


def on_page_content(html: str, **_: Any) -> str:
    """Roles of docstrings (`:func:`) are names like any other."""
    return re.sub(r":(?:func|class|meth|mod):(?=<code>)", "", html)


def _links(name: str) -> list[str]:
    if not (ROOT / name).is_file():
        return []
    return [_target(name, m[2]) for m in LINK.finditer((ROOT / name).read_text(encoding="utf-8"))]


def _target(page: str, link: str) -> str:
    """A link of a page as a path of the repository."""
    return normpath(os.path.join(dirname(page), link))


def _placed(path: str) -> str:
    """A file of the repository in the site."""
    if Path(path).suffix in CODE:
        return f"{path}.md"
    return FRONT.get(path, path.removeprefix("docs/"))


def _modules(room: str) -> list[Path]:
    """A folder of the package and its modules; packages that hold nothing are left out."""
    found = (ROOT / "slam_potsa" / room).rglob("*.py")
    paths = [path.relative_to(ROOT).with_suffix("") for path in found if path.stat().st_size]
    return sorted(path.parent if path.name == "__init__" else path for path in paths)


def _public() -> str:
    """The names that the package offers, each with its first sentence and its place below."""
    lines = []
    for name, module in slam_potsa._PUBLIC.items():
        told = (inspect.getdoc(getattr(slam_potsa, name)) or "").split("\n\n")[0]
        lines.append(f"- [`slam_potsa.{name}`][{module}.{name}]: {' '.join(told.split())}\n")
    return "".join(lines)


def _documented(names: list[str]) -> str:
    return "".join(f"::: {name}\n\n" for name in names)
