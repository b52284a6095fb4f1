"""manifest.csv is read as people and programs write it, or refused with advice."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.searcher.build.source.listing import read_listing
from services.shared.errors import BuildFailed

_EXPECTED = [("a.png", "house", {"by": "Ann"}), ("b/c.png", "sun", {"by": ""})]


def _write(folder: Path, content: bytes | str) -> Path:
    listing = folder / "manifest.csv"
    listing.write_bytes(content.encode() if isinstance(content, str) else content)
    return listing


def _read(folder: Path, content: bytes | str) -> list[tuple[str, str, dict[str, str]]]:
    images = list(read_listing(_write(folder, content)))
    assert [image.fault for image in images] == [None] * len(images)
    return [(image.path, image.label, dict(image.attributes)) for image in images]


def _refusal(folder: Path, content: bytes | str) -> str:
    listing = _write(folder, content)
    with pytest.raises(BuildFailed) as raised:
        list(read_listing(listing))
    assert str(listing) in str(raised.value)
    return str(raised.value)


def _faults(folder: Path, content: str) -> dict[str, tuple[str, str] | None]:
    return {image.path: image.fault for image in read_listing(_write(folder, content))}


@pytest.mark.parametrize(
    "content",
    [
        "path,label,by\na.png,house,Ann\nb/c.png,sun,\n",
        "path;label;by\na.png;house;Ann\nb/c.png;sun;\n",
        "path\tlabel\tby\na.png\thouse\tAnn\nb/c.png\tsun\n",
        "sep=;\npath;label;by\na.png;house;Ann\nb/c.png;sun\n",
        "sep=|\r\npath|label|by\r\na.png|house|Ann\r\nb/c.png|sun\r\n",
        "Path,LABEL,by\na.png,house,Ann\nb/c.png,sun\n",
        "PATH , Label, by\na.png, house, Ann\nb/c.png, sun\n",
        "\ufeffpath,label,by\r\na.png,house,Ann\r\nb/c.png,sun\r\n",
        '\ufeff"path","label","by"\n"a.png","house","Ann"\n./b//c.png,sun\n',
        "path,label,by\ra.png,house,Ann\rb/c.png,sun\r",
        "\n\nby,label,path\nAnn,house,a.png\n\n,,\n,sun,b/c.png\n",
        "path,label,by,,\na.png,house,Ann,,\nb/c.png,sun,,,,,,\n",
    ],
)
def test_every_way_of_writing_it_reads_the_same(tmp_path: Path, content: str) -> None:
    """Separators, cases, marks, line ends, empty rows and cells, and short rows are read alike."""
    assert _read(tmp_path, content) == _EXPECTED


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_read_by_its_mark(tmp_path: Path, encoding: str) -> None:
    """A spreadsheet's Unicode text is UTF-16 with tabs."""
    mark = "" if encoding == "utf-16" else "\ufeff"
    content = f"{mark}path\tlabel\tby\r\na.png\thouse\tAnn\r\nb/c.png\tsun\t\r\n"
    assert _read(tmp_path, content.encode(encoding)) == _EXPECTED


@pytest.mark.parametrize("content", ["path,label\na.png,h\n".encode("utf-16-le"),
                                     "path,label\na.png,h\n".encode("utf-32"),
                                     b"\xff\xfep"])  # fmt: skip
def test_other_unicode_is_refused_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    """UTF-16 without a mark, UTF-32, and half a character are refused with advice."""
    assert "save it as UTF-8" in _refusal(tmp_path, content)


def test_latin1_is_refused_and_the_line_named(tmp_path: Path) -> None:
    """A guessed encoding could name the wrong file, so the error shows the line."""
    refusal = _refusal(tmp_path, "path,label\na.png,x\ncafé.png,bar\n".encode("latin-1"))
    assert r"line 3: caf\xe9.png,bar" in refusal
    assert "save it as UTF-8" in refusal


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    """The error explains the purpose of the first line."""
    assert "is empty" in _refusal(tmp_path, content)


def test_a_listing_without_rows_is_refused(tmp_path: Path) -> None:
    """A header alone names no image."""
    assert "names no image" in _refusal(tmp_path, "path,label\n")


def test_a_missing_column_is_refused_with_the_columns_seen(tmp_path: Path) -> None:
    """The error shows the columns read, and the permitted separators."""
    refusal = _refusal(tmp_path, "file|label\na.png|house\n")
    assert "'file|label'" in refusal
    assert "separate them by commas" in refusal
    assert "'filename', 'label'" in _refusal(tmp_path, "filename,label\na.png,x\n")


@pytest.mark.parametrize("header", ["Path,PATH", "path,path", "path,Label,LABEL", "path,by,by"])
def test_a_column_given_twice_is_refused(tmp_path: Path, header: str) -> None:
    """A repeated column is refused, since one of the two would be lost silently."""
    refusal = _refusal(tmp_path, f"{header}\na.png,b,c\n")
    assert "twice" in refusal or "several columns" in refusal


def test_an_exact_name_wins_over_others_in_case(tmp_path: Path) -> None:
    """A column Path beside path is an attribute."""
    assert _read(tmp_path, "Path,path,label\nx,a.png,b\n") == [("a.png", "b", {"Path": "x"})]


def test_a_quoted_value_may_hold_anything(tmp_path: Path) -> None:
    """Separators, quotes and line breaks are part of the value, and the next row is right."""
    content = 'path,label\na.png,"one, two\nthree ""four"""\nb.png,x\n'
    assert _read(tmp_path, content) == [("a.png", 'one, two\nthree "four"', {}),
                                        ("b.png", "x", {})]  # fmt: skip


def test_a_missing_quote_is_refused_with_its_line(tmp_path: Path) -> None:
    """Without the refusal, the rest of the file would be a single value."""
    refusal = _refusal(tmp_path, 'path,label\na.png,x\nb.png,"y\nc.png,z\n')
    assert "line 3" in refusal
    assert "quote" in refusal


def test_an_endless_value_is_refused_with_its_line(tmp_path: Path) -> None:
    """A label of 200,000 characters is refused."""
    assert "line 2" in _refusal(tmp_path, f"path,label\na.png,{'x' * 200_000}\nb.png,y\n")


def test_rows_with_too_many_cells_are_reported(tmp_path: Path) -> None:
    """A comma without quotes shifts all later values, so the row is left out."""
    faults = _faults(tmp_path, "path,label\na.png,cats, dogs\nb.png,x\n,y\n")
    assert faults["b.png"] is None
    code, why = faults["a.png"] or ("", "")
    assert code == "invalid_row"
    assert "line 2 has 3 cells, the header 2" in why
    assert faults["manifest.csv, line 4"] == ("invalid_row", "the row has no path")


def test_lines_are_counted_past_quoted_breaks(tmp_path: Path) -> None:
    """The line number is the one that an editor shows."""
    faults = _faults(tmp_path, 'sep=,\n\npath,label\na.png,"1\n2"\n,x\n')
    assert "manifest.csv, line 6" in faults


def test_windows_paths_are_found(tmp_path: Path) -> None:
    """Backslashes separate folders, unless a file has them in its name."""
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "a.png").touch()
    (tmp_path / "b\\c.png").touch()
    content = "path\ncats\\a.png\n.\\cats\\a.png\nb\\c.png\nno\\such.png\n"
    assert [path for path, *_ in _read(tmp_path, content)] == [
        "cats/a.png", "cats/a.png", "b\\c.png", "no\\such.png",
    ]  # fmt: skip


def test_accents_are_found_however_they_are_composed(tmp_path: Path) -> None:
    """Composed and decomposed characters match, in the listing and on the disk."""
    (tmp_path / "cafe\u0301.png").touch()
    (tmp_path / "th\u00e9.png").touch()
    found = _read(tmp_path, "path\ncaf\u00e9.png\nthe\u0301.png\n")
    assert [path for path, *_ in found] == ["cafe\u0301.png", "th\u00e9.png"]


def test_a_listing_that_can_not_be_opened_is_refused(tmp_path: Path) -> None:
    """The error says that the listing can't be read."""
    (tmp_path / "manifest.csv").mkdir()
    with pytest.raises(BuildFailed, match="can't be read"):
        list(read_listing(tmp_path / "manifest.csv"))
