"""Pictures: the data are read back from what is drawn."""

import errno
import os

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.image import imread

from pspike_jax.analysis import activity, plots
from pspike_jax.analysis.canvas import number

HISTORY = [
    {"step": 10, "train/loss": 2.0, "train/accuracy": 0.25, "train/firing_rate": 0.3},
    {"step": 20, "train/loss": 1.5, "train/accuracy": 0.5, "train/firing_rate": 0.2,
     "validation/accuracy": 0.4},
    {"step": 30, "train/loss": 1.0, "train/accuracy": 0.75, "train/firing_rate": 0.1},
    {"step": 40, "validation/accuracy": 0.6},
]


def lines(ax):
    return {line.get_label(): line.get_xydata().tolist() for line in ax.lines}


def test_learning_curve_draws_each_metric_at_its_steps():
    loss, accuracy, rate = plots.learning_curve(HISTORY).axes
    assert lines(loss) == {"train": [[10, 2.0], [20, 1.5], [30, 1.0]]}
    assert lines(accuracy) == {"train": [[10, 25], [20, 50], [30, 75]],
                               "validation": [[20, 40], [40, 60]]}
    assert lines(rate) == {"train": [[10, 30], [20, 20], [30, 10]]}


def test_learning_curve_has_no_firing_rate_where_nothing_fires():
    history = [{"step": 1, "train/loss": 2.0, "train/accuracy": 0.1}]
    titles = [ax.get_title(loc="left") for ax in plots.learning_curve(history).axes]
    assert titles == ["Cross-entropy (nats)", "Accuracy (%)"]


def test_spike_raster_shows_each_layer_and_site_with_time_along_x(rng):
    spikes = {site: (rng.random((3, 7, 5)) < 0.3) + 0.0 for site in ("input", "output")}
    axes = np.reshape(plots.spike_raster(spikes).axes, (3, 2))
    for layer in range(3):
        for column, site in enumerate(spikes):
            (image,) = axes[layer, column].images
            np.testing.assert_array_equal(image.get_array(), spikes[site][layer].T)
            # Step 1 is centred on 1, the last one on L; neuron 1 is at the bottom.
            assert image.get_extent() == [0.5, 7.5, 0.5, 5.5]
            assert image.origin == "lower"


def test_spike_raster_titles_give_firing_rates():
    spikes = np.zeros((1, 4, 5))
    spikes[0, 1, :2] = 1
    (ax,) = plots.spike_raster({"input_reverse": spikes}).axes
    assert ax.get_title(loc="left") == "input reverse\nrate 10.0 %"


@pytest.mark.parametrize("sites", [1, 4, 7])
def test_spike_raster_titles_stay_inside_the_figure_and_off_each_other(sites):
    names = ["input", "output", "input_reverse", "output_reverse", "second", "third", "fourth"]
    spikes = {f"{name}": np.eye(6)[None].repeat(2, axis=0) for name in names[:sites]}
    fig = plots.spike_raster(spikes, "Test example 1, 64 steps: label 3, answer 5 (61 %)")
    fig.canvas.draw()
    for row in np.reshape(fig.axes, (2, sites)):
        boxes = [ax._left_title.get_window_extent() for ax in row]
        assert all(box.x1 <= fig.bbox.x1 for box in boxes)
        assert all(first.x1 < second.x0 for first, second in zip(boxes, boxes[1:]))
    assert fig.get_suptitle().endswith("answer 5 (61 %)")


@pytest.mark.parametrize("value, text", [
    (1093.4, "1,090"), (4600, "4,600"), (17.04, "17.0"), (0.25, "0.250"), (0, "0"),
    (-0.0012345, "-0.00123"), (999.6, "1,000"), (1.5e6, "1,500,000"), (np.inf, "inf"),
])
def test_number_has_three_digits_and_no_power_of_ten(value, text):
    assert number(value) == text


def test_confusion_shows_shares_of_each_class_and_writes_counts():
    counts = np.array([[3, 1], [0, 1200]])
    ax, bar = plots.confusion(counts, ("left", "right")).axes
    np.testing.assert_array_equal(ax.images[0].get_array(), [[75, 25], [0, 100]])
    assert [text.get_text() for text in ax.texts] == ["3", "1", "0", "1,200"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["left", "right"]
    # 1,203 of 1,204.
    assert ax.get_title(loc="left") == "99.9 % of 1,204 right"
    many = plots.confusion(np.eye(35, dtype=int), [*map(str, range(35))]).axes[0]
    assert not many.texts and len(many.get_xticks()) == 18


def test_predictions_are_drawn_against_targets_with_their_error(rng):
    targets = rng.normal(size=(50, 2))
    first, second = plots.predictions(targets, targets + [0.0, 0.5]).axes
    np.testing.assert_array_equal(second.lines[0].get_ydata(), targets[:, 1] + 0.5)
    assert first.get_title(loc="left").endswith("error 0")
    assert second.get_title(loc="left") == "output 2: root mean square error 0.500"


def test_learning_curve_of_another_merit_names_it():
    history = [{"step": 1, "train/loss": -2.0, "train/bits_per_token": 3.5}]
    loss, bits = plots.learning_curve(history, "bits_per_token").axes
    assert [ax.get_title(loc="left") for ax in (loss, bits)] == ["Loss", "Bits per token"]
    assert lines(bits) == {"train": [[1, 3.5]]}
    assert len(plots.learning_curve(history, "loss").axes) == 1


def test_probability_histogram_draws_the_share_of_each_bin():
    values = {"input": np.array([[0.0, 0.0, 0.3, 1.0], [0.1, 0.6, 0.6, 0.6]])}
    (ax,) = plots.probability_histogram(values, bins=4).axes
    shares = [patch.get_data().values for patch in ax.patches]
    np.testing.assert_array_equal(shares, [[50, 25, 0, 25], [25, 0, 75, 0]])
    np.testing.assert_array_equal(ax.patches[0].get_data().edges, [0, 0.25, 0.5, 0.75, 1])
    # 2 of the 8 lie below 0.05; the title rounds to whole percents.
    assert ax.get_title(loc="left") == "input: 25 % below 0.05"


def test_probability_histogram_scales_the_density_to_shares_of_a_bin(rng):
    values = rng.beta(0.3, 3, (1, 500))
    (ax,) = plots.probability_histogram({"input": values}, bins=20, bandwidth=0.05).axes
    x, share = ax.lines[0].get_data()
    expected = 100 * activity.probability_density(values[0], x, 0.05) / 20
    np.testing.assert_array_equal(share, expected)
    # 500 points at h = 0.05: the shares of 20 bins add up to 100 % but for the grid of 501.
    np.testing.assert_allclose(20 * np.trapezoid(share, x), 100, rtol=1e-3)


def test_active_neurons_draws_percents_from_step_one():
    ratio = np.array([[0.1, 0.2, np.nan], [0.5, 0.25, np.nan]])
    (ax,) = plots.active_neurons({"output": ratio}).axes
    for layer in range(2):
        x, y = ax.lines[layer].get_data()
        np.testing.assert_array_equal(x, [1, 2, 3])
        np.testing.assert_array_equal(y, 100 * ratio[layer])
    assert ax.get_xlabel() == "time step"


def test_active_neurons_draws_long_sequences_as_means_of_windows(rng):
    ratio = rng.uniform(0, 1, (1, 650))
    (ax,) = plots.active_neurons({"input": ratio}).axes
    x, y = ax.lines[0].get_data()
    # ceil(650 / 200) = 4 steps a window, 162 whole windows; the first is centred on 2.5.
    np.testing.assert_array_equal(x, 2.5 + 4 * np.arange(162))
    expected = [100 * sum(ratio[0, i : i + 4]) / 4 for i in range(0, 648, 4)]
    np.testing.assert_allclose(y, expected, rtol=1e-14)  # four sums and two products in float64
    assert ax.get_xlabel() == "time step (means of 4)"


def test_neuron_trace_puts_a_tick_at_each_spike():
    spikes, probability = np.array([0, 1, 0, 0, 1]), np.array([0.1, 0.9, 0.0, 0.2, 0.3])
    (ax,) = plots.neuron_trace(spikes, probability).axes
    assert [segment[0, 0] for segment in ax.collections[0].get_segments()] == [2, 5]
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), probability)
    assert ax.get_title(loc="left") == "One neuron: 2 spikes in 5 steps"


def test_poles_are_drawn_in_the_upper_half_plane(rng):
    modulus, angle = rng.uniform(0.1, 0.99, (3, 4, 2)), rng.uniform(-3, 3, (3, 4, 2))
    Lambda_bar = modulus * np.exp(1j * angle)
    panels = plots.poles(Lambda_bar).axes[:3]
    for layer, ax in enumerate(panels):
        points = ax.collections[0].get_offsets()
        np.testing.assert_array_equal(points[:, 0], Lambda_bar[layer].real.ravel())
        np.testing.assert_array_equal(points[:, 1], np.abs(Lambda_bar[layer].imag).ravel())


def test_poles_are_coloured_by_the_steps_in_which_they_decay_by_e():
    # |pole| = exp(-1 / 50) falls by e in 50 steps.
    Lambda_bar = np.exp([[[-1 / 50 + 1j, -1 / 4 + 2j]]])
    memory = plots.poles(Lambda_bar).axes[0].collections[0].get_array()
    # log(exp(-1 / 50)) keeps 16 - log10(50) digits.
    np.testing.assert_allclose(memory, [50, 4], rtol=1e-13)


@pytest.mark.parametrize("pole", [0, 1, 1j])
def test_poles_at_zero_and_on_the_circle_have_a_colour(pole, tmp_path):
    fig = plots.poles(np.full((1, 2, 1), pole))
    plots.save_figure(fig, tmp_path / "poles.png")
    assert np.isfinite(fig.axes[0].collections[0].get_array()).all()


def test_poles_draw_the_unit_circle():
    ax = plots.poles(np.full((1, 1, 1), 0.5j)).axes[0]
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(np.hypot(x, y), 1, rtol=1e-15)  # cos^2 + sin^2 in float64
    assert ax.get_aspect() == 1


def test_accuracy_against_neurons_draws_means_and_bars():
    fig = plots.accuracy_against_neurons([16, 64], {"sampled": ([0.5, 0.75], [0.125, 0.25])})
    (ax,) = fig.axes
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[16, 50], [64, 75]])
    bars = ax.collections[0].get_segments()
    np.testing.assert_array_equal(bars, [[[16, 37.5], [16, 62.5]], [[64, 50], [64, 100]]])


def test_accuracy_against_neurons_refuses_more_labels_than_colours():
    with pytest.raises(ValueError, match="7 labels, expected at most 6"):
        plots.accuracy_against_neurons([1], {str(i): ([0], [0]) for i in range(7)})


def test_save_figure_writes_a_picture_and_nothing_else(tmp_path):
    plots.save_figure(plots.learning_curve(HISTORY), tmp_path / "curve.png")
    picture = imread(tmp_path / "curve.png")
    assert picture.shape[1] == plots.WIDTH * plots.DPI
    assert picture[..., :3].min() < 0.1  # ink
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_save_figure_keeps_the_old_file_when_drawing_fails(tmp_path):
    class Broken:
        def savefig(self, path, **_):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "curve.png").write_bytes(b"old")
    with pytest.raises(OSError, match="could not write .*curve.png, is the disk full"):
        plots.save_figure(Broken(), tmp_path / "curve.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_figures_leave_the_global_state_of_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    plots.learning_curve(HISTORY)
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
