"""Batches: every image once, the right label beside it, augmentation and normalisation equal to plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import transforms

from crossloom.errors import InputError
from crossloom.training import Augment, DataSet, Loader, Normalisation, Split, derive, load_dataset
from crossloom.training.augment import augmented, crop

PLAIN = Normalisation((0.0,), (1.0,))


def numbered(count: int, channels: int = 1, side: int = 4) -> Split:
    """Image n is filled with n, and so is its label."""
    labels = torch.arange(count)
    return Split(labels.to(torch.uint8)[:, None, None, None].repeat(1, channels, side, side), labels)


def own(train: Split, **changes) -> DataSet:
    parts = {"train": train, "test": numbered(3), "normalisation": PLAIN} | changes
    return DataSet("own", tuple(map(str, range(200))), **parts)


@given(st.integers(1, 120), st.integers(1, 40), st.integers(0, 5), st.integers(0, 3))
def test_a_shuffled_pass_gives_every_image_once_with_its_label(count, batch, seed, epoch):
    loader = Loader(numbered(count), PLAIN, batch, shuffle=True, seed=seed, epoch=epoch)
    batches = list(loader)
    labels = torch.cat([labels for _, labels in batches])
    values = torch.cat([images[:, 0, 0, 0] for images, _ in batches])
    assert len(batches) == len(loader)
    assert sorted(labels.tolist()) == list(range(count))
    assert torch.equal((values * 255).round().long(), labels)
    assert all(images.dtype == torch.float32 for images, _ in batches)


def test_order_depends_on_seed_and_epoch_alone_and_a_pass_advances_the_epoch():
    def orders(loader, passes):
        return [torch.cat([labels for _, labels in loader]).tolist() for _ in range(passes)]

    first, second, third = orders(Loader(numbered(50), PLAIN, 7, shuffle=True, seed=1), 3)
    assert first != second != third != first
    assert orders(Loader(numbered(50), PLAIN, 10, shuffle=True, seed=1, epoch=2), 1) == [third]
    assert orders(Loader(numbered(50), PLAIN, 7, shuffle=True, seed=2), 1) != [first]
    assert orders(Loader(numbered(50), PLAIN, 7), 2) == [list(range(50))] * 2


@given(st.integers(4, 100), st.integers(1, 4))
def test_processes_share_a_pass_in_equal_disjoint_parts(count, world):
    def seen(**options):
        parts = [
            [
                int(label)
                for _, labels in Loader(numbered(count), PLAIN, 5, rank=r, world_size=world, **options)
                for label in labels
            ]
            for r in range(world)
        ]
        return parts, [label for part in parts for label in part]

    parts, together = seen(shuffle=True, seed=3)
    assert len({len(part) for part in parts}) == 1
    assert len(set(together)) == len(together) == count - count % world
    _, together = seen()
    assert sorted(together) == list(range(count))


@given(st.integers(0, 3), st.integers(1, 5), st.integers(2, 6), st.integers(2, 6), st.integers(0, 2**31))
def test_crop_equals_padding_and_slicing_one_image_at_a_time(padding, count, height, width, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 2, height, width), dtype=np.uint8)
    tops, lefts = rng.integers(0, 2 * padding + 1, (2, count))
    padded = np.pad(images, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    expected = np.stack([padded[b, :, tops[b] : tops[b] + height, lefts[b] : lefts[b] + width] for b in range(count)])
    got = crop(torch.from_numpy(images), padding, torch.from_numpy(tops), torch.from_numpy(lefts))
    assert np.array_equal(got.numpy(), expected)


def test_augmentation_mirrors_about_half_and_shifts_within_the_padding():
    image = torch.arange(1, 26, dtype=torch.uint8).reshape(1, 1, 5, 5)
    batch = image.repeat(2000, 1, 1, 1)
    mirrored = augmented(batch, Augment(flip=True), torch.Generator().manual_seed(0))
    kept = (mirrored == image).flatten(1).all(1)
    assert torch.equal(mirrored[~kept], image.flip(-1).expand_as(mirrored[~kept]))
    assert abs(kept.float().mean() - 0.5) < 4 * 0.5 / 2000**0.5

    shifted = augmented(batch, Augment(padding=1), torch.Generator().manual_seed(0))
    middle = shifted[:, 0, 2, 2]
    neighbours = image[0, 0, 1:4, 1:4].flatten()
    assert set(middle.tolist()) == set(neighbours.tolist())
    assert torch.equal(batch, image.expand_as(batch)), "the batch given in was changed"


def test_normalisation_has_the_bits_of_torchvisions_transforms():
    images = torch.randint(0, 256, (20, 3, 7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    expected = torch.stack([reference(image.permute(1, 2, 0).numpy()) for image in images])
    assert torch.equal(Normalisation(mean, std)(images), expected)


def test_subsets_are_nested_reproducible_and_leave_the_rest_alone():
    data = own(numbered(100))
    small, large = data.subset(10, seed=4), data.subset(30, seed=4)
    assert len(small.train.labels) == 10
    assert set(small.train.labels.tolist()) < set(large.train.labels.tolist())
    assert torch.equal(small.train.labels, data.subset(10, seed=4).train.labels)
    assert small.train.labels.tolist() != data.subset(10, seed=5).train.labels.tolist()
    assert len(small.test.labels) == 3
    assert data.subset(test=2).test.labels.shape == (2,)
    assert data.fingerprint() == own(numbered(100)).fingerprint() != small.fingerprint()
    with pytest.raises(InputError, match=r"own\.subset\.train: got 101; expected 1 to 100"):
        data.subset(101)


def test_the_calibration_loader_gives_unaugmented_training_images():
    data = own(numbered(100), augment=Augment(padding=2))
    labels = torch.cat([labels for _, labels in data.calibration_loader(20, seed=1)])
    for images, expected in data.calibration_loader(20, seed=1):
        assert torch.equal((images * 255).round().long(), expected[:, None, None, None].expand_as(images))
    assert len(labels) == 20


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"train": Split(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))}, "own.train.images"),
        ({"train": Split(numbered(2).images, torch.zeros(3, dtype=torch.int64))}, "own.train.labels"),
        ({"train": Split(numbered(2).images, torch.tensor([0, 200]))}, "own.train.labels"),
        ({"test": numbered(2, side=5)}, "own.test.images"),
        ({"normalisation": Normalisation((0.1, 0.2), (1.0, 1.0))}, "own.normalisation.mean"),
        ({"normalisation": Normalisation((0.0,), (0.0,))}, "own.normalisation.std"),
    ],
)
def test_a_data_set_of_ones_own_is_checked(changes, field):
    with pytest.raises(InputError) as caught:
        own(**({"train": numbered(2)} | changes))
    assert caught.value.field == field


def test_bad_names_and_sizes_are_input_errors():
    with pytest.raises(InputError, match="did you mean 'cifar100'"):
        load_dataset("cifar-100")
    with pytest.raises(InputError, match="batch_size"):
        Loader(numbered(3), PLAIN, 0)
    with pytest.raises(InputError, match="did you mean 'imagenet'"):
        own(numbered(3)).normalised("image-net")


def test_seeds_are_derived_from_names_and_fixed_for_ever():
    assert derive(0, "order", 1) == 4374215849138048446, "every result ever recorded depends on this number"
    assert len({derive(s, n, e) for s in range(5) for n in ("order", "augment") for e in range(5)}) == 50
    assert 0 <= derive(7, "x") < 2**63
