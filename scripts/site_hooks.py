"""What MkDocs is told about files outside `docs/`: some are pages of the site, and links between them lead there."""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OUTSIDE = {"ARCHITECTURE.md": "architecture.md", "exported/digits/MODEL_CARD.md": "model-card.md"}  # source: page
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages whose sources lie outside `docs/`, and one for the folder that pages link to."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    names = "".join(f"- [{path.name}]({path.name})\n" for path in sorted((DOCS / "figures").iterdir()))
    files.append(File.generated(config, "figures/index.md", content=f"# Measurements as files\n\n{names}"))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between sources into links between pages."""
    source = Path(page.file.abs_src_path or DOCS / page.file.src_uri)
    here = (DOCS / page.file.src_uri).parent

    def lead(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        name = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
        if name in OUTSIDE:
            target = DOCS / OUTSIDE[name]
        elif target == DOCS / "figures":
            target = DOCS / "figures" / "index.md"
        return f"]({os.path.relpath(target, here)}{match[2] or ''})"

    return LINK.sub(lead, markdown)
