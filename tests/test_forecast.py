"""The bundled series, its baselines and scores, and that the bundled model deserves its place."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

import fastlstm as fl
from fastlstm import forecast as fc


@pytest.fixture(scope="module")
def series():
    return fc.load_series()


@pytest.fixture(scope="module")
def bundled(series):
    """The bundled model's forecasts, streamed once for all tests."""
    model = fl.load(fc.MODEL)
    scaling = fc.Scaling.from_text(model.metadata["scaling"])
    roots = fc.forecast(model, scaling, series[1])
    return SimpleNamespace(model=model, scaling=scaling, roots=roots, numbers=scaling.numbers(roots))


def test_series_is_the_published_one(series):
    months, values = series
    assert len(values) == 2820
    assert (np.diff(months) == np.timedelta64(1, "M")).all()
    known = {"1749-01": 58.0, "1749-12": 85.2, "1957-10": 253.8, "1983-12": 33.4}
    for month, value in known.items():
        assert values[fc.month_index(months, month)] == value
    assert values.min() == 0.0
    assert values.max() == 253.8


def test_month_index_may_lie_past_the_end(series):
    assert fc.month_index(series[0], "1984-01") == 2820


def test_targets_look_ahead():
    ahead = fc.targets(np.arange(20.0))
    assert ahead.shape == (20, 12)
    assert ahead[3, 0] == 4
    assert ahead[3, 11] == 15
    assert np.isnan(ahead[8, 11])
    assert np.isnan(ahead[19]).all()


def test_scaling_by_hand():
    scaling = fc.Scaling.fit(np.array([0.0, 4.0, 16.0]))  # roots 0 2 4
    assert scaling.mean == 2.0
    assert scaling.std == pytest.approx(np.sqrt(8 / 3))
    z = scaling.forward(np.array([4.0, 16.0]))
    np.testing.assert_allclose(z, [0.0, 2 / scaling.std])
    # No change forecast: the present root at every horizon.
    np.testing.assert_allclose(scaling.roots(np.zeros((2, 12)), z), [[2.0] * 12, [4.0] * 12])


def test_numbers_add_the_variance_and_never_go_below_it():
    scaling = fc.Scaling(0.0, 1.0, (2.0,) * 12)
    roots = np.array([[3.0] * 12, [-5.0] * 12])
    np.testing.assert_allclose(scaling.numbers(roots), [[13.0] * 12, [4.0] * 12])
    low, high = scaling.band(np.full((1, 12), 3.0), width=1.0)
    assert (low == 1.0).all()
    assert (high == 25.0).all()


def test_spread_is_the_error_of_the_roots():
    values = np.arange(30.0) ** 2
    roots = np.arange(30.0)[:, None] + np.zeros(12)  # persistence: off by h at horizon h
    spread = fc.Scaling(0.0, 1.0).with_spread(roots, values).spread
    np.testing.assert_allclose(spread, np.arange(1, 13))


def test_scaling_survives_as_text():
    scaling = fc.Scaling(1.5, 2.5, tuple(np.linspace(0, 1, 12).tolist()))
    assert fc.Scaling.from_text(scaling.to_text()) == scaling


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mean": 1}', '{"mean": "a", "std": 1, "spread": []}'])
def test_scaling_refuses_other_text(text):
    with pytest.raises(ValueError, match="metadata 'scaling'"):
        fc.Scaling.from_text(text)


def test_baselines_by_hand():
    values = np.arange(200.0)
    methods = fc.baselines(values, fit_before=150)
    assert methods["persistence"][10].tolist() == [10.0] * 12
    assert methods["11 years ago"][140, 2] == 140 + 3 - fc.CYCLE
    assert np.isnan(methods["11 years ago"][100, 2])
    assert methods["12-month mean"][20, 5] == pytest.approx(np.arange(9, 21).mean())
    assert np.isnan(methods["12-month mean"][10]).all()
    assert all(forecasts.shape == (200, 12) for forecasts in methods.values())


def test_autoregression_continues_what_is_linear():
    values = 50 + 40 * np.sin(np.arange(400) / 7)  # a sine obeys a linear recurrence
    forecasts = fc.baselines(values, fit_before=300)["AR(36)"]
    np.testing.assert_allclose(forecasts[300, :], values[301:313], atol=1e-6)
    assert np.isnan(forecasts[34]).all()


def test_autoregression_does_not_see_the_held_out_part():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 100, 400)
    changed = values.copy()
    changed[300:] = rng.uniform(0, 100, 100)
    before, after = (fc.baselines(v, fit_before=300)["AR(36)"] for v in (values, changed))
    np.testing.assert_array_equal(before[:300], after[:300])


def test_score_by_hand():
    values = np.array([0.0, 10.0, 20.0, 30.0])
    forecasts = np.zeros((4, 12))
    forecasts[0, 1] = 17.0  # for month 2, made at month 0
    forecasts[1, 1] = 34.0  # for month 3
    result = fc.score(forecasts, values, horizon=2, first=2, last=4)
    assert result.rmse == pytest.approx(np.sqrt((9 + 16) / 2))
    assert result.mae == pytest.approx(3.5)
    assert result.months == 2
    assert fc.skill(fc.Score(1.0, 0, 1), fc.Score(2.0, 0, 1)) == 0.75


def test_score_needs_months_before_the_first():
    with pytest.raises(ValueError, match="at least the horizon 6, got 3"):
        fc.score(np.zeros((9, 12)), np.zeros(9), horizon=6, first=3, last=9)


def test_tables_hold_the_numbers():
    values = np.arange(200.0)
    months = np.datetime64("1900-01", "M") + np.arange(200)
    methods = {"LSTM": fc.targets(values) - 1.0, "persistence": fc.baselines(values, 150)["persistence"]}
    table = fc.score_table(methods, values, 150, 180)
    ours, persistence = table.splitlines()[1:]
    assert ours.split() == ["LSTM"] + ["1.0", "/", "1.0"] * 4
    assert persistence.split()[4] == "(+0%)"
    assert persistence.split()[-4:] == ["12.0", "/", "12.0", "(+99%)"]
    sample = fc.sample_table(months, values, methods, 150)
    assert len(sample.splitlines()) == 2
    assert sample.splitlines()[1].split() == ["1916-08", "199.0", "198.0", "(", "-1.0)", "193.0", "(", "-6.0)"]


def test_streaming_equals_the_whole_sequence(bundled, series):
    z = bundled.scaling.forward(series[1][:300])
    y, _ = bundled.model(z.astype(np.float32)[:, None, None])
    np.testing.assert_array_equal(fc.stream_forecast(bundled.model, z), y[:, 0])


def test_forecast_never_looks_ahead(bundled, series):
    cut = 2000
    alone = fc.forecast(bundled.model, bundled.scaling, series[1][:cut])
    np.testing.assert_array_equal(alone, bundled.roots[:cut])


def test_scaling_comes_from_the_training_part(bundled, series):
    months, values = series
    fitted = fc.Scaling.fit(values[: fc.month_index(months, fc.VALIDATION_FROM)])
    assert bundled.scaling.mean == pytest.approx(fitted.mean)
    assert bundled.scaling.std == pytest.approx(fitted.std)


@pytest.mark.parametrize("horizon", fc.SHOWN)
def test_bundled_model_beats_every_baseline_on_held_out_months(bundled, series, horizon):
    months, values = series
    first = fc.month_index(months, fc.HELD_OUT_FROM)
    ours = fc.score(bundled.numbers, values, horizon, first, len(values))
    assert ours.months == 408
    for name, forecasts in fc.baselines(values, first).items():
        other = fc.score(forecasts, values, horizon, first, len(values))
        assert ours.rmse < other.rmse, name
        assert ours.mae < other.mae, name
        if name in ("persistence", "11 years ago"):
            assert fc.skill(ours, other) > 0.15, name


def test_band_holds_about_as_much_as_it_says(bundled, series):
    months, values = series
    first = fc.month_index(months, fc.HELD_OUT_FROM)
    low, high = (edge[first - 6 : -6, 5] for edge in bundled.scaling.band(bundled.roots))
    inside = np.mean((low <= values[first:]) & (values[first:] <= high))
    assert 0.65 < inside < 0.9


def test_the_band_says_where_it_comes_from(bundled, series):
    months, values = series
    first = fc.month_index(months, fc.HELD_OUT_FROM)
    text = fc.band_text(months, values, bundled.scaling.band(bundled.roots), first)
    for words in ("80 % band", "1.28 standard deviations", "6 months ahead", "before 1910-01", "trained on"):
        assert words in text
    low, high = (edge[first - 6 : -6, 5] for edge in bundled.scaling.band(bundled.roots))
    inside = np.mean((low <= values[first:]) & (values[first:] <= high))
    assert f"{100 * inside:.0f} % of the months 1950-01 to 1983-12 lie in it." in text
    whole = fc.notes(months, values, bundled.scaling.band(bundled.roots), first)
    assert whole.startswith(text) and "AR(36) is an autoregression" in whole
    assert max(map(len, whole.splitlines())) <= 120


def test_the_best_rival_is_the_one_with_the_least_error(bundled, series):
    months, values = series
    first = fc.month_index(months, fc.HELD_OUT_FROM)
    methods = {"LSTM": bundled.numbers, **fc.baselines(values, first)}
    assert fc.best_rival(methods, values, 6, first) == "AR(36)" == list(methods)[1]
    perfect = {"ours": bundled.numbers, "AR(36)": methods["AR(36)"], "it knows": fc.targets(values)}
    assert fc.best_rival(perfect, values, 6, first) == "it knows"


def test_csv_holds_the_forecasts(tmp_path, bundled, series):
    months, values = series
    path = tmp_path / "forecast.csv"
    fc.write_csv(path, months, values, bundled.numbers)
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["month", "truth", "forecast_1_months_before"]
    assert len(rows) == 2820
    assert rows[0] == ["1749-01", "58.0"] + [""] * 12
    assert [bool(cell) for cell in rows[1][2:]] == [True] + [False] * 11
    row = rows[2000]
    assert row[0] == str(months[2000])
    assert float(row[1 + 6]) == pytest.approx(bundled.numbers[1994, 5], abs=0.005)


def texts(artist):
    """All words of a picture, or of one of its axes."""
    from matplotlib.text import Text

    return [found.get_text() for found in artist.findobj(Text)]


def test_png_is_a_picture(tmp_path, bundled, series, monkeypatch):
    pytest.importorskip("matplotlib")
    months, values = series
    first = fc.month_index(months, fc.HELD_OUT_FROM)
    methods = {"LSTM": bundled.numbers, **fc.baselines(values, first)}
    path = tmp_path / "forecast.png"
    drawn = {}
    monkeypatch.setattr(fc, "write_figure", lambda path, figure, kind: drawn.update(figure=figure))
    fc.write_png(path, months, values, methods, bundled.scaling.band(bundled.roots), first)
    told = texts(drawn["figure"])
    series_told, errors, rmse = (texts(axis) for axis in drawn["figure"].axes)
    for name in ("LSTM", "AR(36)"):  # the rival that is named is drawn, wherever the model is
        assert f"forecast, {name}" in series_told and name in errors and name in rmse
    assert set(methods) <= set(rmse)
    assert fc.notes(months, values, bundled.scaling.band(bundled.roots), first) in told
    monkeypatch.undo()
    fc.write_png(path, months, values, methods, bundled.scaling.band(bundled.roots), first)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.stat().st_size > 50_000
