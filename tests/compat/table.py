"""docs/compatibility.md: written from what was measured, and read again."""

from collections.abc import Mapping
from pathlib import Path

from tests.compat.measuring import FEATURES, KINDS, SPEAKERS

PATH = Path(__file__).parents[2] / "docs" / "compatibility.md"

Verdicts = Mapping[tuple[str, str, str], str]
"""By dialect, kind of upstream, and feature."""

_HEAD = """# Every model behind every dialect

What a client of each dialect can ask of a model of each kind of provider. "yes" works, whole and streamed; what a model
cannot be told is left out and named in the answer's header `x-gateway-dropped-params`; what would change the meaning is
refused with a 400 that says so. Nothing is dropped in silence. Where the client's dialect is the provider's own, the
request and the answer pass as they are, with every field the gateway does not know.

This page is written by the tests that find it out (`make compatibility`), and `make test` fails where it is not true.
"""


def rendered(verdicts: Verdicts) -> str:
    """The page."""
    sections = [_HEAD]
    for speaker in SPEAKERS:
        rows = [f"| | {' | '.join(kind.name for kind in KINDS)} |", "|---|" + "---|" * len(KINDS)]
        for feature in FEATURES:
            cells = [verdicts[speaker.name, kind.name, feature].replace("|", "\\|") for kind in KINDS]
            rows.append(f"| {feature} | {' | '.join(cells)} |")
        sections.append(f"## {speaker.name}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(sections)


def documented() -> Verdicts:
    """What the page says."""
    found: dict[tuple[str, str, str], str] = {}
    dialect = ""
    for line in PATH.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            dialect = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith("| |"):
            feature, *cells = (cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|"))
            for kind, cell in zip(KINDS, cells, strict=True):
                found[dialect, kind.name, feature] = cell.replace("\0", "|")
    return found
