"""The page of a report in a real browser: opened from disk, with the network blocked, in both themes."""

import numpy as np
import pytest
from judged import predictions_of

from ggo_lab.evaluation import evaluate

EVIL = '<img src=x onerror="document.title=1">'


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_shows_nothing_runs_and_it_is_photographed(chromium, tmp_path, screenshots, scheme):
    rng = np.random.default_rng(1)
    true = np.repeat([0, 1, 2, 3], [7, 6, 8, 2])
    shares = 0.5 * rng.dirichlet(np.ones(4), len(true))
    shares[np.arange(len(true)), np.clip(true + rng.choice([0, 0, 0, -1, 1], len(true)), 0, 3)] += 0.5
    names = [EVIL, *(f"phantom-{i}" for i in range(1, len(true)))]
    judged = predictions_of(names, [f"patient-{i}" for i in range(len(true))], true, shares, "resnet18")
    path = evaluate(judged, draws=300).to_html(tmp_path / "report.html")
    context = chromium.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
    page.goto(path.as_uri())
    assert page.title() == "Report: resnet18" and page.locator("img, script").count() == 0
    assert page.get_by_role("heading", level=2).count() == 6
    assert page.locator(".found circle").count() == 7 + 12  # every score, three for every grade: drawn, not only said
    box = page.locator(".confusion td.right").first.bounding_box()
    assert box["width"] > 60 and page.locator(".confusion td.right").count() == 4
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in paper[4:-1].split(",")) > 380) == (scheme == "light")
    page.screenshot(path=screenshots / f"report-{scheme}.png", full_page=True)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    hints = page.evaluate(
        """() => [...document.querySelectorAll(".scroll")].filter((table) => table.scrollWidth > table.clientWidth)
            .map((table) => getComputedStyle(table).backgroundAttachment)"""
    )
    assert hints and set(hints) == {"local, local, scroll, scroll"}  # a wide table shows that it scrolls
    assert complaints == []
    context.close()
