"""The page of a report: every number of the report is in it, names cannot do harm, and the reading fits the numbers."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from judged import predictions_of

from ggo_lab.errors import GgoLabError
from ggo_lab.evaluation import Predictions, evaluate
from ggo_lab.evaluation.report_page import reading, report_html

EVIL = "</script><img src=x onerror=alert(1)>"


def predictions(true: list[int], said: list[int], sure: float = 0.7, name: str = "net") -> Predictions:
    shares = np.full((len(true), 4), (1 - sure) / 3)
    shares[np.arange(len(true)), said] = sure
    return predictions_of(
        [f"scan-{i}" for i in range(len(true))], [f"p{i}" for i in range(len(true))], np.array(true), shares, name
    )


@pytest.fixture(scope="module")
def report():
    return evaluate(predictions([0, 0, 0, 1, 1, 2, 2, 2, 3], [0, 0, 1, 1, 3, 2, 2, 1, 3]), draws=200)


class Tables(HTMLParser):
    """The text of every table row, and every tag and attribute seen."""

    def __init__(self, text: str):
        super().__init__()
        self.rows, self.tags, self.attributes = [], set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def row_of(report, begin: str) -> list[str]:
    (row,) = [row for row in Tables(report_html(report)).rows if row and row[0].startswith(begin)]
    return row


def test_the_page_holds_the_scores_with_their_intervals_and_baselines(report):
    for name in report.scores.index:
        value, low, high = report.scores.loc[name, ["value", "low", "high"]]
        row = row_of(report, name)
        assert row[1] == f"{value:.2f}" and row[2] == f"{low:.2f} to {high:.2f}"
        assert float(row[4]) == pytest.approx(report.scores.loc[name, "majority"], abs=0.006)


def test_the_page_holds_the_confusion_matrix_and_every_grade(report):
    assert row_of(report, "mild (3)")[1:] == ["267%", "133%", "0", "0"]
    assert row_of(report, "severe (3)")[1:] == ["0", "133%", "267%", "0"]
    recall = report.per_class.loc["moderate"]
    row = next(row for row in Tables(report_html(report)).rows if row and row[0] == "moderate")
    assert row[1] == "2"
    assert row[3] == f"{recall['recall']:.2f} {recall['recall_low']:.2f} to {recall['recall_high']:.2f}"
    for caution in report.cautions:
        assert caution in report_html(report)


def test_mistakes_are_listed_the_surest_first():
    judged = predictions([0, 1, 2, 3], [1, 1, 3, 2])
    judged.probabilities[2] = [0.02, 0.03, 0.05, 0.9]
    rows = [row for row in Tables(report_html(evaluate(judged, draws=50))).rows if row and row[0].startswith("scan-")]
    assert [row[0] for row in rows] == ["scan-2", "scan-0", "scan-3"]
    assert rows[0][1:] == ["severe", "critical", "90%"]


def test_the_reading_says_what_the_numbers_are(report):
    said = list(reading(report))
    assert said[0] == "Of 9 scans 6 were graded right, 2 one grade off, and 1 two or more grades off."
    assert said[2] == "Its mistakes: 1 too mild, 2 too severe."
    assert (
        "nothing shows that it learnt" in list(reading(evaluate(predictions([0, 1, 2, 3], [3, 2, 1, 0]), draws=50)))[1]
    )
    perfect = evaluate(predictions([0, 1, 2, 3] * 10, [0, 1, 2, 3] * 10), draws=50)
    assert "so something was learnt" in list(reading(perfect))[1]


def test_names_are_escaped_and_nothing_can_run_or_be_fetched():
    judged = predictions([0, 1, 2, 3], [1, 1, 3, 2], name=EVIL)
    judged.names[0] = EVIL
    text = report_html(evaluate(judged, baselines={EVIL: judged}, draws=50))
    seen = Tables(text)
    assert (
        not seen.tags & {"script", "img", "iframe", "link", "object"}
        and not {"onerror", "src", "href", "style"} & seen.attributes
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert "http" not in text.split("</head>")[1]


def test_the_file_is_written_whole_and_its_path_given(report, tmp_path):
    path = report.to_html(tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8") == report_html(report) and path.stat().st_size < 50_000
    (tmp_path / "file").write_text("")
    with pytest.raises(GgoLabError, match="cannot be written"):
        report.to_html(tmp_path / "file" / "report.html")
