"""The glossary: every notebook explains words, and docs/glossary.md says the same."""

import json
from pathlib import Path

import pytest

from ggo_lab import ChoiceError
from ggo_lab.cli import main
from ggo_lab.course import glossary

ROOT = Path(__file__).parents[1]


def test_the_file_is_of_these_notebooks(capsys):
    assert main(["glossary", "--notebooks", str(ROOT / "notebooks")]) == 0
    printed = capsys.readouterr().out
    stored = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert stored == printed, "run: ggo-lab glossary > docs/glossary.md"
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(../notebooks/{file.name})" in printed, f"{file.name} explains no word of its own"


def test_words_are_sorted_and_stand_once_where_they_mean_the_same(tmp_path):
    def write(name, *rows):
        table = "\n".join(["## Words", "", "| word | meaning |", "|---|---|", *rows])
        cells = [{"cell_type": "markdown", "metadata": {}, "source": [table + "\n\n## Take away\n| no | word |\n"]}]
        (tmp_path / name).write_text(json.dumps({"cells": cells}), encoding="utf-8")

    write("00_a.ipynb", "| voxel | a cube |", "| Batch | images |")
    write("01_b.ipynb", "| voxel | a cube |", "| padding | zeros |", "| batch | slices |")
    rows = glossary(tmp_path).splitlines()[6:]
    assert [row.split("|")[1].strip() for row in rows] == ["**Batch**", "**batch**", "**padding**", "**voxel**"]
    assert rows[-1] == "| **voxel** | a cube | [00](../notebooks/00_a.ipynb) |"


def test_a_folder_without_words_is_refused(tmp_path):
    with pytest.raises(ChoiceError, match=r"no notebook \(.ipynb\) in it"):
        glossary(tmp_path)
    (tmp_path / "00_silent.ipynb").write_text('{"cells": []}')
    with pytest.raises(ChoiceError, match="no notebook with a table of words"):
        glossary(tmp_path)
    (tmp_path / "01_broken.ipynb").write_text('{"cells": [{}]}')
    with pytest.raises(ChoiceError, match="not a Jupyter notebook"):
        glossary(tmp_path)
