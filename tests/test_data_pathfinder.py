"""Pathfinder-style images: geometry, labels and statistics; the published folders."""

import dataclasses
import hashlib

import numpy as np
import pytest
from PIL import Image

from pspike_jax.data import pathfinder, prepared
from pspike_jax.data.pathfinder import PathfinderSettings
from pspike_jax.data.pathfinder_drawing import draw_scenes
from pspike_jax.data.pathfinder_scenes import Scenes, sample_scenes
from pspike_jax.data.source import load_source

SIZES = (32, 64, 128)


@pytest.fixture(scope="module", params=SIZES)
def scenes(request):
    """Settings, 40 scenes and their images, for each size."""
    settings = PathfinderSettings(size=request.param).scene()
    sampled = sample_scenes(np.random.default_rng(request.param), 40, settings)
    return settings, sampled, draw_scenes(sampled, settings)


@pytest.fixture(scope="module")
def many():
    """Settings, 1,000 scenes of 32 pixels in blocks of 500, and their images."""
    settings = PathfinderSettings(size=32).scene()
    parts = [sample_scenes(np.random.default_rng([7, i]), 500, settings) for i in range(2)]
    joined = Scenes(*(
        np.concatenate([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(Scenes)
    ))
    return settings, joined, draw_scenes(joined, settings)


def snakes_of(sampled, image):
    """All snakes of one image, each (dashes, 2, 2)."""
    return [*sampled.targets[image], *sampled.distractors[image]]


def joints(dashes, margin):
    """Where a dash would meet the next one, from its head, and the one before, from its tail."""
    direction = dashes[:, 1] - dashes[:, 0]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return dashes[:, 1] + margin * direction, dashes[:, 0] - margin * direction, direction


def distance_between(dash, other):
    """Smallest distance of two segments, by points 0.05 of their length apart."""
    share = np.linspace(0, 1, 21)[:, None]
    points, others = (d[0] + share * (d[1] - d[0]) for d in (dash, other))
    return np.linalg.norm(points[:, None] - others, axis=-1).min()


def test_sample_scenes_chains_dashes_with_the_gap_and_the_turn(scenes):
    settings, sampled, _ = scenes
    for image in range(40):
        errors = []
        for margin in settings.margins:
            worst = 0.0
            for snake in snakes_of(sampled, image):
                ahead, behind, direction = joints(snake, margin)
                worst = max(worst, np.abs(ahead[:-1] - behind[1:]).max())
                cosines = (direction[:-1] * direction[1:]).sum(axis=1)
                assert cosines.min() > -1e-9, "a turn of more than a right angle"
                lengths = np.linalg.norm(snake[:, 1] - snake[:, 0], axis=1)
                np.testing.assert_allclose(lengths, settings.dash_length, rtol=1e-9)
            errors.append(worst)
        assert min(errors) < 1e-9  # one margin for the whole image; rounding of float64


def test_sample_scenes_keeps_snakes_apart(scenes):
    """Dashes of two snakes never touch: a pixel is reserved around each, and one may be met."""
    settings, sampled, _ = scenes
    for image in range(8):
        snakes = snakes_of(sampled, image)
        for i, snake in enumerate(snakes):
            for other in snakes[i + 1:]:
                for dash in snake:
                    near = np.abs(other.mean(axis=1) - dash.mean(axis=0)).max(axis=1)
                    for rival in other[near < 2 * settings.dash_length]:
                        assert distance_between(dash, rival) > settings.dash_thickness + 0.4


def test_sample_scenes_starts_the_targets_at_the_seed_distance(scenes):
    settings, sampled, _ = scenes
    starts = []
    for image in range(40):
        best = None
        for margin in settings.margins:
            first, second = (
                joints(sampled.targets[image, snake, :1], margin)[1][0] for snake in (0, 1)
            )
            error = abs(np.linalg.norm(first - second) - settings.seed_distance)
            best = error if best is None else min(best, error)
        starts.append(best)
    assert max(starts) < 1e-9  # rounding of float64


def test_sample_scenes_puts_markers_on_one_curve_where_the_label_is_1(scenes):
    _, sampled, _ = scenes
    for image in range(40):
        starts, ends = sampled.targets[image, :, 0, 0], sampled.targets[image, :, -1, 1]
        first, last = sampled.markers[image]
        start = np.flatnonzero((starts == first).all(axis=1))
        end = np.flatnonzero((ends == last).all(axis=1))
        assert start.size == end.size == 1
        assert sampled.labels[image] == (start[0] == end[0])


def test_sample_scenes_labels_follow_from_the_chains_alone(scenes):
    """Dashes are linked by their ends, without looking at which snake they came from."""
    settings, sampled, _ = scenes
    for image in range(40):
        dashes = np.concatenate(snakes_of(sampled, image))
        for margin in settings.margins:
            ahead, behind, _ = joints(dashes, margin)
            linked = np.linalg.norm(ahead[:, None] - behind, axis=-1) < 1e-6
            if linked.sum() > settings.contour_length:  # the margin of this image
                break
        place = int(np.argmin(np.linalg.norm(dashes[:, 0] - sampled.markers[image, 0], axis=1)))
        while linked[place].any():
            place = int(np.argmax(linked[place]))
        joined = np.linalg.norm(dashes[place, 1] - sampled.markers[image, 1]) < 1e-6
        assert joined == sampled.labels[image]


def test_sample_scenes_turns_by_the_squared_cosine():
    """Kolmogorov-Smirnov at alpha 1e-6: 6,000 turns, so a difference of 3.5 points is caught.

    On a large empty image, where nothing is in the way. The density on |D| < pi / (2 c) is
    (2 c / pi) cos^2(c D), its distribution 1/2 + c D / pi + sin(2 c D) / (2 pi).
    """
    base = PathfinderSettings(size=128).scene()
    settings = dataclasses.replace(
        base, size=400, contour_length=4, num_distractors=0, seed_distance=90
    )
    targets = sample_scenes(np.random.default_rng(2), 1000, settings).targets
    along = targets[..., 1, :] - targets[..., 0, :]
    inner = ((targets > 30) & (targets < 370)).all(axis=(2, 3, 4))
    angle = np.arctan2(along[..., 0], along[..., 1])[inner]
    turn = np.sort((np.diff(angle, axis=-1) + np.pi) % (2 * np.pi) - np.pi, axis=None)
    bend = settings.continuity * turn
    assert np.abs(bend).max() < np.pi / 2
    theory = 0.5 + bend / np.pi + np.sin(2 * bend) / (2 * np.pi)
    empirical = (np.arange(turn.size) + 0.5) / turn.size
    assert turn.size > 4000
    assert np.abs(theory - empirical).max() < np.sqrt(np.log(2 / 1e-6) / (2 * turn.size))


def test_sample_scenes_balances_labels_and_distances(many):
    """Two-sample Kolmogorov-Smirnov at alpha 1e-6, 500 a side, would allow 17 points.

    The balance that markers are chosen with keeps it below 5, which fair coins would exceed.
    """
    _, sampled, _ = many
    assert abs(sampled.labels.mean() - 0.5) < 4.9 * 0.5 / np.sqrt(1000)
    distance = np.linalg.norm(sampled.markers[:, 0] - sampled.markers[:, 1], axis=1)
    grid = np.sort(distance)
    shares = [
        np.searchsorted(np.sort(distance[sampled.labels == label]), grid, side="right")
        / (sampled.labels == label).sum()
        for label in (0, 1)
    ]
    assert np.abs(shares[0] - shares[1]).max() < 0.05


def test_draw_scenes_gives_both_labels_the_same_ink(many):
    """Alpha 1e-6 (z = 4.9) for mean and deviation; 0.3 of a deviation would be caught."""
    _, sampled, images = many
    ink = images.mean(axis=(1, 2))
    groups = [ink[sampled.labels == label] for label in (0, 1)]
    spread = ink.std() * np.sqrt(sum(1 / group.size for group in groups))
    assert abs(groups[0].mean() - groups[1].mean()) < 4.9 * spread
    # The deviation of an estimated deviation is s / sqrt(2 n) for a normal, here nearly so.
    assert abs(groups[0].std() - groups[1].std()) < 4.9 * spread


def test_draw_scenes_shows_two_discs(scenes):
    """Nothing but the discs is fully bright, and they lie at the markers."""
    settings, sampled, images = scenes
    for image in range(40):
        pixels = np.argwhere(images[image] == 255)
        distance = np.linalg.norm(pixels[:, None] - sampled.markers[image], axis=-1)
        assert distance.min(axis=1).max() <= settings.marker_radius
        assert distance.min(axis=0).max() <= np.sqrt(0.5)  # the pixel a marker lies on


def test_draw_scenes_covers_pixels_by_their_share():
    """A dash of 5 x 1 pixels along a row, half a pixel low: two rows of half-covered pixels."""
    settings = dataclasses.replace(PathfinderSettings(size=64).scene(), contrast=1.0)
    dash = np.array([[20.5, 27.5], [20.5, 32.5]])
    scene = Scenes(
        np.broadcast_to(dash, (1, 2, 14, 2, 2)), np.broadcast_to(dash, (1, 1, 1, 2, 2)),
        np.array([[[50.0, 50.0], [50.0, 10.0]]]), np.ones(1, np.int32),
    )
    image = draw_scenes(scene, settings)[0]
    expected = np.zeros((40, 64))
    expected[20:22, 28:33] = 128  # rounded half of 255, to the even number
    np.testing.assert_array_equal(image[:40], expected)


def test_pathfinder_source_is_the_same_in_one_process_and_in_two(tmp_path, monkeypatch):
    monkeypatch.setattr(pathfinder, "BLOCK", 15)
    fields = dict(num_train=20, num_validation=5, num_test=5, seed=5)
    digests = []
    for processes in (1, 2):
        source = pathfinder.pathfinder_source(PathfinderSettings(**fields), processes=processes)
        prepared.write_prepared(source, tmp_path / str(processes))
        manifest = prepared.read_manifest(tmp_path / str(processes))
        digests.append([array["sha256"] for array in manifest["arrays"].values()])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("size, digest", [
    (32, "c65586894c2a53b1d65bf812c6b6072fd5ba59861f4546b4e3839240df9a7a5d"),
    (64, "11d0733847ec722b1915b2bc4a19ebea2fa5606b569cd70e5182822f29dfd11a"),
    (128, "c81d562528fc075cc319e8ab3cd9a60f721f91a46ad4aebeb21d542bb7f65bf1"),
    (256, "39bb16913d150c881a994e23c9549fc988e96c5b096aadd24e1f0e0abc7a0c14"),
])
def test_generate_block_gives_the_same_images_everywhere(size, digest):
    """The digests were taken in another process, and for processors without AVX-512 and AVX2."""
    settings = PathfinderSettings(size=size, seed=2)
    inputs, _, labels = pathfinder.generate_block(settings, (1, 6))
    assert hashlib.sha256(inputs.tobytes() + labels.tobytes()).hexdigest() == digest


def test_generate_block_depends_on_the_block_and_the_seed():
    jobs = [(0, 0), (0, 1), (1, 0)]
    images = [
        pathfinder.generate_block(PathfinderSettings(seed=seed), (block, 3))[0]
        for seed, block in jobs
    ]
    assert len({image.tobytes() for part in images for image in part}) == 9


def test_pathfinder_source_reads_pixels_row_by_row_in_the_unit_interval():
    settings = PathfinderSettings(num_train=6, num_validation=2, num_test=2)
    task = load_source(pathfinder.pathfinder_source(settings))
    inputs, _, labels = pathfinder.generate_block(settings, (0, 10))
    assert task.name == "pathfinder-style 32 (reduced)"
    np.testing.assert_array_equal(task.train.inputs[:], inputs[:6] / np.float32(255))
    np.testing.assert_array_equal(task.test.targets, labels[8:])
    assert task.train.inputs.shape == (6, 1024, 1)


def write_published(folder, count=20, size=32):
    """Images of the published form: image k is all k, its label k % 2."""
    level = folder / "pathfinder32" / "curv_contour_length_14"
    (level / "metadata").mkdir(parents=True)
    lines = {0: [], 1: []}
    for k in range(count):
        part = k % 2
        (level / f"imgs/{part}").mkdir(parents=True, exist_ok=True)
        pixels = np.full((size, size), k, np.uint8)
        Image.fromarray(pixels).save(level / f"imgs/{part}/sample_{k}.png")
        lines[part].append(f"imgs/{part} sample_{k}.png {k} {k % 2} 1.0 14 2 1\n")
    for part, text in lines.items():
        (level / f"metadata/{part}.npy").write_text("".join(text))
    return level


def test_pathfinder_source_reads_the_published_folders(tmp_path):
    write_published(tmp_path)
    source = pathfinder.pathfinder_source(PathfinderSettings(), tmp_path)
    assert source.differences == [
        "curv_contour_length_14: 20 examples, 200,000 were published"
    ]
    task = load_source(source)
    assert [len(split.targets) for split in task.splits().values()] == [16, 2, 2]
    seen = []
    for split in task.splits().values():
        number = np.rint(255 * split.inputs[:][:, 0, 0]).astype(int)
        np.testing.assert_array_equal(split.targets, number % 2)
        seen += number.tolist()
    assert sorted(seen) == list(range(20))


@pytest.mark.parametrize("damage, reason", [
    ("truncate", r"sample_3.png: cannot be read as an image"),
    ("remove", r"1.npy, line 2: no image imgs/1/sample_3.png"),
    ("resize", r"sample_3.png: \(16, 16\) pixels, expected \(32, 32\)"),
    ("metadata", r"1.npy, line 1: 'imgs/1 sample_1.png', expected folder, file"),
    ("binary", r"0.npy: not a text file"),
    ("empty", r"1.npy: lists no image"),
    ("no metadata", r"metadata: no .npy files"),
])
def test_pathfinder_source_names_the_damaged_file(tmp_path, damage, reason):
    level = write_published(tmp_path)
    image = level / "imgs/1/sample_3.png"
    if damage == "truncate":
        image.write_bytes(image.read_bytes()[:40])
    elif damage == "remove":
        image.unlink()
    elif damage == "resize":
        Image.new("L", (16, 16)).save(image)
    elif damage == "metadata":
        (level / "metadata/1.npy").write_text("imgs/1 sample_1.png\n")
    elif damage == "binary":
        np.save(level / "metadata/0.npy", np.full(300, -1))
    elif damage == "empty":
        (level / "metadata/1.npy").write_text("")
    else:
        for path in (level / "metadata").iterdir():
            path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        load_source(pathfinder.pathfinder_source(PathfinderSettings(), tmp_path))


@pytest.mark.parametrize("named, reason", [
    ("../../../away", "'../../../away' is not the name of a file in"),
    ("{away}", "'.*/away' is not the name of a file in"),
    ("link", "link is a link that leaves"),
    ("imgs/0", "no image imgs/0/secret.png"),
])
def test_pathfinder_source_reads_no_image_of_another_folder(tmp_path, named, reason):
    level, away = write_published(tmp_path / "published"), tmp_path / "away"
    away.mkdir()
    Image.new("L", (32, 32)).save(away / "secret.png")
    (level / "link").symlink_to(away)
    line = f"{named.format(away=away)} secret.png 0 0 1.0 14 2 1\n"
    (level / "metadata/0.npy").write_text(line)
    with pytest.raises(ValueError, match=f"0.npy, line 1: .*{reason}"):
        pathfinder.pathfinder_source(PathfinderSettings(), tmp_path / "published")


@pytest.mark.parametrize("fields", [{"size": 48}, {"contour_length": 2}, {"num_train": 0}])
def test_pathfinder_settings_refuse_what_cannot_be(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields.values()))}"):
        PathfinderSettings(**fields)
