"""How predictions are written in each file of a submission, and read again.

What is read is a list of (id, prediction) as :class:`~mynah.recipes.kept.Rows` has them, in the
file's order and with what is there twice, and the lines that cannot be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from mynah.tasks.metrics.term_search import decode_scores

THRESHOLD = 2.0  # s3prl's: a detection is YES above it
HEADER = ("utt_id", "hyp", "ref")


@dataclass(kw_only=True)
class Read:
    """What a file says.

    Attributes:
        rows: (id, prediction), in order.
        bad: kind of problem -> what and where, of lines that cannot be read.
        references: id -> reference, where the file has them (translation).
    """

    rows: list[tuple[str, str]] = field(default_factory=list)
    bad: dict[str, list[str]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)

    def complain(self, kind: str, where: str) -> None:
        """Note a problem."""
        self.bad.setdefault(kind, []).append(where)


def write_lines(rows: Iterable[tuple[str, str]], between: str = " ") -> str:
    """Return ``id prediction`` lines.

    Raises:
        ValueError: an id with white space (or the separator), or a prediction of several lines.
    """
    lines = []
    for name, said in rows:
        if name.split() != [name] or (between != " " and between in name):
            raise ValueError(
                f"the id {name!r} cannot stand in this format: it has {between!r} in it"
            )
        if said.splitlines() not in ([], [said]):
            raise ValueError(f"the prediction of {name!r} has several lines")
        lines.append(f"{name}{between}{said}\n")
    return "".join(lines)


def write_intents(rows: Iterable[tuple[str, str]]) -> str:
    """Return ``id,action,object,location`` lines.

    Raises:
        ValueError: a comma within a part, or another number of slots than three.
    """
    out = []
    for name, said in rows:
        parts = said.split("|")
        if len(parts) != 3 or any("," in part for part in parts):
            raise ValueError(
                f"intents are written as action,object,location without commas in them; {name} "
                f"has {said!r}"
            )
        out.append((name, ",".join(parts)))
    return write_lines(out, ",")


def write_terms(rows: Iterable[tuple[str, str]]) -> str:
    """Return an XML list of detections, as NIST's scorer reads it."""
    lines = [
        "<?xml version='1.0' encoding='UTF-8'?>",
        '<stdlist termlist_filename="benchmark.stdlist.xml" indexing_time="1.00" '
        'language="english" index_size="1" system_id="benchmark">',
    ]
    for query, said in rows:
        lines.append(
            f'  <detected_termlist termid={quoteattr(query)} term_search_time="1.0" '
            'oov_term_count="1">'
        )
        for doc, score in decode_scores(said).items():
            decision = "YES" if score > THRESHOLD else "NO"
            lines.append(
                f'    <term file={quoteattr(doc)} channel="1" tbeg="0.000" dur="0.00" '
                f'score="{score!r}" decision="{decision}"/>'
            )
        lines.append("  </detected_termlist>")
    return "\n".join([*lines, "</stdlist>"]) + "\n"


def write_translation(rows: Iterable[tuple[str, str]], references: Mapping[str, str]) -> str:
    """Return a table of id, translation and reference, from which the server scores.

    Raises:
        ValueError: a tab or line break in a text.
    """
    lines = ["\t".join(HEADER)]
    for name, said in rows:
        cells = (name, said, references[name])
        if any("\t" in cell or "\n" in cell or "\r" in cell for cell in cells):
            raise ValueError(f"{name}: tabs and line breaks cannot stand in a table")
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"


def write_means(means: Mapping[str, float]) -> str:
    """Return ``metric mean`` lines."""
    return "".join(f"{name} {value!r}\n" for name, value in means.items())


def decoded(data: bytes, found: Read) -> str | None:
    """Return a file's text; None, and a complaint, where it is not UTF-8 or has zero bytes."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        found.complain("not UTF-8", f"byte {error.start}")
        return None
    if "\0" in text:
        found.complain("zero bytes", f"character {text.index(chr(0))}")
        return None
    if text.startswith("\ufeff"):
        found.complain("byte order mark", "at the start")
    if not text.strip():
        found.complain("empty file", "no lines")
        return None
    return text


def read_lines(text: str, found: Read, *, between: str = " ", empty: bool = False) -> None:
    """Read ``id prediction`` lines.

    Args:
        text: of the file.
        found: gets them.
        between: id and prediction.
        empty: whether there may be nothing after the id: nothing was recognised.
    """
    for number, line in enumerate(text.split("\n")[: -1 if text.endswith("\n") else None], 1):
        if "\r" in line:
            found.complain("carriage return", f"line {number}")
        name, mark, said = line.strip("\r").partition(between)
        if not name.strip() or (not empty and not (mark and said.strip())):
            found.complain("malformed line", f"line {number}: {line[:60]!r}")
            continue
        found.rows.append((name, said))


def read_intents(text: str, found: Read) -> None:
    """Read ``id,action,object,location`` lines."""
    read_lines(text, found, between=",")
    rows, found.rows = found.rows, []
    for name, said in rows:
        if said.count(",") != 2:
            found.complain("malformed line", f"{name}: {said[:60]!r} is not action,object,location")
            continue
        found.rows.append((name, said.replace(",", "|")))


def read_terms(text: str, found: Read) -> None:
    """Read an XML list of detections; a document type or entities are not read at all."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        found.complain("document type in XML", "entities could grow without end")
        return
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        found.complain("no well-formed XML", str(error))
        return
    if root.tag != "stdlist":
        found.complain("no stdlist", f"the root is {root.tag}")
        return
    for query in root:
        name = query.get("termid", "")
        if query.tag != "detected_termlist" or not name:
            found.complain("malformed element", f"{query.tag} {query.attrib}")
            continue
        scores = []
        seen: set[str] = set()
        for term in query:
            doc, score, decision = (term.get(key, "") for key in ("file", "score", "decision"))
            where = f"{name}, {doc}"
            if term.tag != "term" or doc.split() != [doc]:
                found.complain("malformed element", f"{name}: {term.tag} {term.attrib}")
            elif doc in seen:
                found.complain("document twice", where)
            elif not _finite(score):
                found.complain("score is no finite number", f"{where}: {score!r}")
            elif decision not in ("YES", "NO"):
                found.complain("decision is neither YES nor NO", f"{where}: {decision!r}")
            else:
                scores.append(f"{doc}:{float(score)!r}")
            seen.add(doc)
        found.rows.append((name, " ".join(scores)))


def read_translation(text: str, found: Read) -> None:
    """Read a table of id, translation and reference."""
    head, *lines = text.split("\n")[: -1 if text.endswith("\n") else None]
    if tuple(head.rstrip("\r").split("\t")) != HEADER:
        found.complain("wrong header", f"{head[:60]!r}; it must be {' '.join(HEADER)}, with tabs")
        return
    for number, line in enumerate(lines, 2):
        if "\r" in line:
            found.complain("carriage return", f"line {number}")
        cells = line.strip("\r").split("\t")
        if len(cells) != 3 or not cells[0]:
            found.complain("malformed line", f"line {number}: {line[:60]!r}")
            continue
        found.rows.append((cells[0], cells[1]))
        found.references[cells[0]] = cells[2]


def _finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def ids(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return the ids of rows."""
    return [name for name, _ in rows]
