import pytest

from crossloom.report.chart import Axis
from crossloom.report.plots import curves, marks
from crossloom.report.run import Log


def test_curves_share_frames_by_what_they_measure() -> None:
    log = Log("", [1.0, 2.0, 3.0], {
        "train_loss": [2.0, 1.0, 0.5], "train_accuracy": [0.2, 0.5, 0.9], "test_accuracy": [None, 0.6, None],
        "residual": [3.0, 2.0, 1.0], "blank": [None, None, None],
    })  # fmt: skip
    accuracy, loss, residual = curves(log)
    assert [chart.title for chart in (accuracy, loss, residual)] == ["accuracy", "loss", "residual"]
    test, train = accuracy.lines
    assert (test.name, test.dashed, test.last, len(test.points)) == ("test accuracy", False, "60.00 %", 1)
    assert (train.dashed, train.last) == (True, "90.00 %")
    xs, ys = [p[0] for p in train.points], [p[1] for p in train.points]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    assert (ys[0] - ys[1]) / (ys[1] - ys[2]) == pytest.approx(0.3 / 0.4, abs=0.001)
    assert all(0 <= value <= 100 for p in train.points for value in p[:2])
    assert all(0 <= at <= 100 for chart in (accuracy, loss, residual) for at, _ in chart.x_ticks + chart.y_ticks)


def test_a_single_epoch_and_a_flat_curve() -> None:
    (chart,) = curves(Log("", [1.0], {"train_loss": [0.0]}))
    assert chart.lines[0].points[0][0] == 50.0
    assert 0 <= chart.lines[0].points[0][1] <= 100
    assert [text for _, text in chart.x_ticks] == ["1"]


def test_every_axis_has_marks() -> None:
    logarithmic = Axis("", logarithmic=True)
    assert list(marks(logarithmic, (0.5, 20.0))) == [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    assert len(marks(logarithmic, (0.66, 1.0))) >= 2
    assert 2 <= len(marks(logarithmic, (1e-12, 1.0))) <= 7
    assert len(marks(Axis(""), (0.0, 0.1))) >= 2
