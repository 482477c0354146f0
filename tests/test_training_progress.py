"""What a training shows while it runs, and what it leaves when it ends: a row an epoch, and no bar."""

import re

import pytest
from IPython.core.interactiveshell import InteractiveShell

from ggo_lab.cohort import parallel
from ggo_lab.progress import bar
from ggo_lab.training import TrainConfig, history
from ggo_lab.training.history import Progress, progress_bar


def run(config: TrainConfig, losses: list[float], monkeypatch) -> None:
    """Go through epochs with these validation losses as `fit` does."""
    monkeypatch.setattr(history, "SILENT_S", 0)
    so_far = Progress()
    with progress_bar(config, True) as advance:
        for epoch, loss in enumerate(losses, 1):
            so_far.rows.append((epoch, 1.0, 0.5, loss, 0.5, 0.1))
            so_far.waited += 1
            if loss < so_far.least_loss:
                so_far.best, so_far.best_epoch, so_far.least_loss, so_far.waited = (0.5, -loss), epoch, loss, 0
            advance(so_far)


@pytest.fixture(params=["terminal", "notebook"])
def shown(request, monkeypatch, capsys):
    """Gives what stands in the end where a terminal, or a cell, shows its lines: each as it was last written."""
    if request.param == "notebook":
        shell = InteractiveShell()
        shell.kernel = "as in JupyterLab"
        monkeypatch.setattr("IPython.get_ipython", lambda: shell)

    def read() -> list[str]:
        written = capsys.readouterr()
        text, other = (written.out, written.err) if request.param == "notebook" else (written.err, written.out)
        assert other == ""
        return [line.rpartition("\r")[2] for line in text.split("\n")]

    return read


def test_every_epoch_has_a_row_and_an_early_end_says_why(shown, monkeypatch):
    run(TrainConfig(max_epochs=30, patience=2), [1.2, 0.9, 1.1, 1.0], monkeypatch)
    head, *rows, end, after = shown()
    assert head.split()[0] == "epoch" and [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
    assert [row.endswith("*") for row in rows] == [True, True, False, False]
    assert "stopped at epoch 4: no lower validation loss for 2 epochs; kept epoch 2 *" in end
    assert after == "", "the bar is gone"


def test_a_stopped_run_says_so(shown, monkeypatch):
    run(TrainConfig(max_epochs=30), [1.2, 0.9], monkeypatch)
    assert "stopped at epoch 2: interrupted; kept epoch 2 *" in shown()[-2]


def test_of_long_runs_only_the_best_epochs_so_far_have_a_row(shown, monkeypatch):
    run(TrainConfig(max_epochs=250, patience=100), [1.2, 1.3, 1.4, 0.9, 1.1], monkeypatch)
    assert [line.split()[0] for line in shown()[1:-2]] == ["1", "4"]


def test_what_is_over_soon_shows_nothing_and_a_bar_without_delay_shows_at_once(shown, capsys):
    with bar(3, "scans", delay=60) as done:
        done.update(3)
    with bar(3, "scans", disable=True) as done:
        done.update(3)
    assert shown() == [""]
    with bar(3, "scans") as done:
        assert re.search("scans: +0%.*0/3", "".join(capsys.readouterr()))
        done.update(3)
    assert shown() == [""]


def test_a_bar_that_is_drawn_within_its_delay_is_taken_away_all_the_same(shown):
    with bar(3, "scans", delay=60) as done:
        done.set_postfix_str("the first")
        done.update(3)
    assert shown() == [""]


def test_a_run_that_is_over_soon_shows_nothing(capsys):
    so_far = Progress()
    with progress_bar(TrainConfig(max_epochs=2), True) as advance:
        for epoch in (1, 2):
            so_far.rows.append((epoch, 1.0, 0.5, 1.0, 0.5, 0.1))
            advance(so_far)
    assert capsys.readouterr() == ("", "")


def test_where_processes_have_to_start_the_bar_shows_before_the_first_result(monkeypatch, capsys):
    before = []

    def noted(*args, **kwargs):
        made = bar(*args, **kwargs)
        before.append(capsys.readouterr().err)
        return made

    monkeypatch.setattr(parallel, "bar", noted)
    assert list(parallel.for_each(abs, [(-i,) for i in range(5)], "scans", 2, True)) == list(range(5))
    assert len(before) == 1 and "0/5" in before[0]
