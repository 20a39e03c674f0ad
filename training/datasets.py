"""Prompt datasets: JSONL or CSV in, one immutable numbered version out.

The rule: nothing is stored while a row is wrong, unless the user says to keep the good ones; every bad row is named
by line, column and reason. Texts are NFC, so that "ı" typed in two ways is one prompt. Reading is pure and streams;
only `create` and `import_file` touch the database.
"""

from __future__ import annotations

import csv
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import IO, Any

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from attestation import canonical
from tenants.models import Tenant, User
from training.models import Prompt, PromptDataset
from training.problems import Problem, listed

COLUMN = "prompt"
LIMIT = 8_000  # characters in one prompt
LINE_LIMIT = 1 << 20  # bytes in one line of a file
SHOWN = 5  # bad rows named in one sentence; a page shows them all


@dataclass(frozen=True)
class Row:
    line: int  # 1-based, where the row starts
    text: str


@dataclass(frozen=True)
class RowError:
    """Why a row cannot be kept. `column` is the 1-based character in a JSON line, the 1-based field in a CSV row."""

    line: int
    column: int
    reason: str

    def __str__(self) -> str:
        return _("line %(line)d, column %(column)d: %(reason)s") % self.__dict__


@dataclass(frozen=True)
class Duplicate:
    """A row whose text an earlier row has already; it is left out."""

    line: int
    first: int


@dataclass
class Parsed:
    """What a file holds: good rows without repeats, bad rows, repeats. All lists are in the file's order."""

    name: str
    rows: list[Row] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)


class Malformed(Problem):
    """Some rows are wrong and the user did not ask to keep the good ones. `parsed` has them all."""

    def __init__(self, parsed: Parsed) -> None:
        self.parsed = parsed
        shown = "; ".join(str(error) for error in parsed.errors[:SHOWN])
        more = " …" if len(parsed.errors) > SHOWN else ""
        words = {"name": parsed.name, "bad": len(parsed.errors), "good": len(parsed.rows), "shown": shown + more}
        super().__init__(
            _("%(name)s has %(bad)d bad rows beside %(good)d good ones; nothing was stored: %(shown)s") % words
        )


class Empty(Problem):
    def __init__(self, name: str) -> None:
        super().__init__(_("%(name)s is empty: it holds no prompt.") % {"name": name})


class MissingColumn(Problem):
    """No row has the column `prompt`; `found` names what there is instead."""

    def __init__(self, name: str, found: Iterable[str]) -> None:
        self.found = sorted(set(found))
        words = {"name": name, "column": COLUMN, "found": listed(self.found)}
        super().__init__(_("%(name)s has no column “%(column)s”; the columns found are: %(found)s.") % words)


class UnknownFormat(Problem):
    def __init__(self, name: str) -> None:
        super().__init__(_("%(name)s is neither JSONL nor CSV: name it .jsonl or .csv.") % {"name": name})


def read(file: IO[bytes], name: str) -> Parsed:
    """The rows of a JSONL or CSV file opened in binary, by the ending of `name`. Raises Empty, MissingColumn,
    UnknownFormat."""
    readers = {".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".json": _read_jsonl, ".csv": _read_csv}
    reader = readers.get(PurePath(name).suffix.lower())
    if reader is None:
        raise UnknownFormat(name)
    parsed = Parsed(name)
    first_lines: dict[str, int] = {}
    for item in reader(file, name):
        if isinstance(item, RowError):
            parsed.errors.append(item)
        elif (first := first_lines.setdefault(item.text, item.line)) != item.line:
            parsed.duplicates.append(Duplicate(item.line, first))
        else:
            parsed.rows.append(item)
    if not parsed.rows and not parsed.errors:
        raise Empty(name)
    return parsed


def check(parsed: Parsed, keep_good: bool = False) -> list[Row]:
    """The rows to keep. Raises Malformed when there are bad rows and `keep_good` is false, or no row is good."""
    if parsed.errors and not (keep_good and parsed.rows):
        raise Malformed(parsed)
    return parsed.rows


def import_file(
    tenant: Tenant, name: str, file: IO[bytes], filename: str, user: User | None, keep_good: bool = False
) -> tuple[PromptDataset, Parsed]:
    """Reads, checks and stores a file as the next version of the dataset `name`; also returns what was found in it."""
    parsed = read(file, filename)
    return create(tenant, name, check(parsed, keep_good), user), parsed


@transaction.atomic
def create(tenant: Tenant, name: str, rows: Iterable[Row | str], user: User | None) -> PromptDataset:
    """Stores `rows` as the next version of the dataset `name`. Raises Empty when there are none."""
    texts = [normal(row.text if isinstance(row, Row) else row) for row in rows]
    if not texts:
        raise Empty(name)
    Tenant.objects.select_for_update().get(pk=tenant.pk)  # one counter at a time (SQLite's IMMEDIATE does the same)
    newest = PromptDataset.objects.filter(tenant=tenant, name=name).aggregate(Max("version"))["version__max"]
    digests = [canonical.text_digest(text) for text in texts]
    dataset = PromptDataset.objects.create(
        tenant=tenant, name=name, version=(newest or 0) + 1, digest=digest_of(digests), created_by=user
    )
    Prompt.objects.bulk_create(
        (
            Prompt(dataset=dataset, number=number, text=text, digest=digest)
            for number, (text, digest) in enumerate(zip(texts, digests, strict=True), 1)
        ),
        batch_size=1_000,
    )
    return dataset


def digest_of(row_digests: Iterable[str]) -> str:
    """SHA-256, hex, over the row digests, one a line."""
    return hashlib.sha256("\n".join(row_digests).encode()).hexdigest()


def normal(text: str) -> str:
    """NFC without surrounding white space."""
    return unicodedata.normalize("NFC", text).strip()


def _read_jsonl(file: IO[bytes], name: str) -> Iterator[Row | RowError]:
    found: set[str] = set()
    seen_column = seen_row = False
    for number, line in _lines(file):
        row = _json_row(number, line)
        if isinstance(row, dict):
            seen_row, seen_column = True, seen_column or COLUMN in row
            found.update(map(str, row))
            yield _checked(number, row.get(COLUMN), column=1, missing=COLUMN not in row, found=row)
        elif row is not None:
            seen_row = True
            yield row
    if seen_row and found and not seen_column:
        raise MissingColumn(name, found)


def _json_row(number: int, line: str | RowError) -> dict[str, Any] | RowError | None:
    """The object in one line, what is wrong with it, or None for an empty line."""
    if isinstance(line, RowError) or not line.strip():
        return line if isinstance(line, RowError) else None
    try:
        row = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        return RowError(number, error.colno, _("not valid JSON (%(why)s)") % {"why": error.msg})
    except ValueError:  # Python turns no text of more than 4,300 digits into a number
        return RowError(number, 1, _("not valid JSON (%(why)s)") % {"why": "a number of too many digits"})
    except RecursionError:
        return RowError(number, 1, _("not valid JSON (%(why)s)") % {"why": "nesting"})
    return row if isinstance(row, dict) else RowError(number, 1, _("a row must be a JSON object"))


def _read_csv(file: IO[bytes], name: str) -> Iterator[Row | RowError]:
    broken: list[RowError] = []
    rows = csv.reader(_csv_lines(file, broken), delimiter=_delimiter(file), strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield RowError(line, 1, _("not valid CSV (%(why)s)") % {"why": error})
            line = rows.line_num + 1
            continue
        start, line = line, rows.line_num + 1
        if not values:
            continue
        if broken:
            yield from broken
            broken.clear()
        elif header is None:
            header = [value.strip() for value in values]
            if COLUMN not in header:
                raise MissingColumn(name, header)
        elif len(values) != len(header):
            words = {"found": len(values), "wanted": len(header)}
            yield RowError(start, len(values), _("%(found)d fields where the header has %(wanted)d") % words)
        else:
            index = header.index(COLUMN)
            yield _checked(start, values[index], column=index + 1)


def _delimiter(file: IO[bytes]) -> str:
    """Comma, semicolon (what a Turkish Excel writes) or tab: whichever the header line has most of."""
    start = file.tell()
    header = file.readline(LINE_LIMIT)
    file.seek(start)
    return max(",;\t", key=lambda mark: header.count(mark.encode()))


def _csv_lines(file: IO[bytes], broken: list[RowError]) -> Iterator[str]:
    for _number, line in _lines(file):
        if isinstance(line, RowError):
            broken.append(line)
            yield "?\n"  # keeps the reader's line count; the row it belongs to is reported from `broken`
        else:
            yield line


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str | RowError]]:
    """Every line with its number, decoded; a line too long or not UTF-8 is an error in its place."""
    number = 0
    while raw := file.readline(LINE_LIMIT):
        number += 1
        if len(raw) == LINE_LIMIT and not raw.endswith(b"\n"):
            while (rest := file.readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
                pass
            yield number, RowError(number, 1, _("the line is longer than %(limit)d bytes") % {"limit": LINE_LIMIT})
            continue
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield number, RowError(number, error.start + 1, _("not UTF-8 text"))


def _checked(line: int, value: Any, column: int, missing: bool = False, found: Iterable[str] = ()) -> Row | RowError:
    if missing:
        words = {"column": COLUMN, "found": listed(found)}
        return RowError(line, column, _("“%(column)s” is missing; found: %(found)s") % words)
    if not isinstance(value, str):
        return RowError(line, column, _("“%(column)s” must be text") % {"column": COLUMN})
    text = normal(value)
    if not text:
        return RowError(line, column, _("“%(column)s” is empty") % {"column": COLUMN})
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        return RowError(line, column, _("“%(column)s” holds characters that are not text") % {"column": COLUMN})
    if len(text) > LIMIT:
        sizes = {"length": len(text), "limit": LIMIT}
        return RowError(line, column, _("the prompt has %(length)d characters; at most %(limit)d fit") % sizes)
    return Row(line, text)
