"""Networks and weights fit each other, and missing weights are named errors."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from services.embedder.models import weights
from services.embedder.models.architectures import ARCHITECTURES
from services.embedder.models.efficientnet_lite import EfficientNetLite
from services.embedder.models.loading import load
from services.embedder.models.networks import NETWORKS, NetworkModel
from services.embedder.settings import EmbedderSettings, ModelName
from services.shared.errors import InvalidSettings, WeightsUnavailable
from tests.support import pictures
from tests.support.fake_model import LIMITS
from tests.support.photographs import collection_dir

LITES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]


def _inputs(count: int, size: int = 224) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(7).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _random(**fields: object) -> EmbedderSettings:
    return EmbedderSettings.model_validate(
        {"weights": "random", "device": "cpu", "runtime": "torch", **fields}
    )


def test_the_setting_offers_exactly_the_networks() -> None:
    """Each name that the setting takes is a network, and no network is hidden."""
    assert set(get_args(ModelName)) == set(ARCHITECTURES) == set(NETWORKS)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_network_gives_its_dimension(name: str) -> None:
    """Cut before its classes, each network makes vectors of the length it declares."""
    architecture, size = ARCHITECTURES[name], NETWORKS[name].preprocessing.crop
    with torch.device("meta"):
        network = architecture.cut(architecture.build()).eval()
        vectors = network(torch.empty(2, 3, size, size))
    assert tuple(vectors.shape) == (2, NETWORKS[name].dimension)


def test_vgg16_ends_behind_its_second_dense_layer() -> None:
    """The vector of vgg16 is the output of fc2 after its ReLU: no value is negative."""
    architecture = ARCHITECTURES["vgg16"]
    with torch.device("meta"):
        network = architecture.cut(architecture.build()).eval()
    layers = [type(layer).__name__ for layer in network.get_submodule("classifier").children()]
    assert layers[3:] == ["Linear", "ReLU", "Dropout", "Identity"]


@pytest.mark.parametrize("name", LITES)
def test_published_weights_fit_and_repeat(name: str) -> None:
    """The packaged weights fit their network; two loads give equal ids and vectors."""
    settings = EmbedderSettings.model_validate(
        {"model": name, "device": "cpu", "runtime": "torch", "workers": 1}
    )
    (one,), (two,) = load(settings, LIMITS), load(settings, LIMITS)
    inputs = _inputs(2, one.input_size)
    first, second = one.embed(inputs), two.embed(inputs)
    assert first.dtype == np.float32
    assert np.array_equal(first, second)
    assert one.model_id == two.model_id
    assert one.model_id.startswith(f"{name}@")
    assert one.model_id.endswith(f"/{NETWORKS[name].preprocessing.name}/1280")


def test_a_vector_does_not_depend_on_its_batch() -> None:
    """An image has the same vector alone and among others."""
    (model,) = load(_random(workers=1), LIMITS)
    inputs = _inputs(5)
    together = model.embed(inputs)
    alone = np.concatenate([model.embed(inputs[index : index + 1]) for index in range(5)])
    lengths = np.linalg.norm(together, axis=1) * np.linalg.norm(alone, axis=1)
    assert ((together * alone).sum(axis=1) / lengths > 0.9999).all()


def test_random_weights_are_named_so_and_the_same_every_time() -> None:
    """Random weights are deterministic, and their model id differs from that of trained ones."""
    before = torch.random.get_rng_state()
    (one,), (two,) = load(_random(workers=1), LIMITS), load(_random(workers=1), LIMITS)
    assert one.model_id == two.model_id
    assert one.model_id.startswith("efficientnet_lite0-random@")
    assert np.array_equal(one.embed(_inputs(1)), two.embed(_inputs(1)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_cpu_has_one_network_for_all_its_workers() -> None:
    """Workers of one device share the weights in memory."""
    models = load(_random(workers=3), LIMITS)
    assert len(models) == 3
    runners = {id(model.runner) for model in models if isinstance(model, NetworkModel)}
    assert len(runners) == 1


def test_padding_is_tensorflows() -> None:
    """SAME padding is uneven at stride 2: an even side is padded at its end only."""
    network = EfficientNetLite(size=8)
    stem = network.get_submodule("_conv_stem")
    with torch.no_grad():
        stem.get_parameter("weight").fill_(1.0)
        sums = stem(torch.ones(1, 3, 8, 8))[0, 0]
    assert sums.shape == (4, 4)
    assert sums[0, 0] == 27.0  # a whole window: no padding before the first pixel
    assert sums[3, 3] == 12.0  # 2 x 2 of 3 x 3: padding after the last one


def test_a_file_of_weights_is_used(tmp_path: Path) -> None:
    """Weights from a file determine the vectors and the id, also in half precision."""
    torch.manual_seed(1)
    state = EfficientNetLite(size=224).state_dict()
    torch.save(state, tmp_path / "mine.pth")
    settings = EmbedderSettings(
        weights_file=tmp_path / "mine.pth", device="cpu", runtime="torch", workers=1
    )
    (mine,) = load(settings, LIMITS)
    (published,) = load(EmbedderSettings(device="cpu", runtime="torch", workers=1), LIMITS)
    assert mine.model_id != published.model_id
    assert not np.allclose(mine.embed(_inputs(1)), published.embed(_inputs(1)))
    halves = {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    }
    torch.save(halves, tmp_path / "mine.pth")
    (halved,) = load(settings, LIMITS)
    assert halved.embed(_inputs(1)).dtype == np.float32


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    """Weights of another network, other objects, code, or no file: the error names the fault."""
    file = tmp_path / "weights.pth"
    settings = EmbedderSettings(weights_file=file, device="cpu", runtime="torch", workers=1)
    with pytest.raises(WeightsUnavailable, match="can't be read"):
        load(settings, LIMITS)
    file.write_bytes(b"no weights")
    with pytest.raises(WeightsUnavailable, match="can't be read"):
        load(settings, LIMITS)
    torch.save(print, file)
    with pytest.raises(WeightsUnavailable, match="can't be read"):
        load(settings, LIMITS)
    torch.save(torch.ones(3), file)
    with pytest.raises(WeightsUnavailable, match="state dict"):
        load(settings, LIMITS)
    torch.save(EfficientNetLite(size=260, width=1.1, depth=1.2).state_dict(), file)
    with pytest.raises(WeightsUnavailable, match="don't fit efficientnet_lite0"):
        load(settings, LIMITS)


def test_a_missing_package_is_named() -> None:
    """The error names the package to install when the weights are missing."""
    with pytest.raises(WeightsUnavailable, match="pip install no-such-weights"):
        weights.from_package("no_such_weights")


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error names the address and the setting for a file when the download fails."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def away(*_: object, **__: object) -> None:
        message = "the network is away"
        raise OSError(message)

    monkeypatch.setattr(torch.hub, "download_url_to_file", away)
    with pytest.raises(WeightsUnavailable, match=r"vgg16-.*SIMILE_EMBEDDER_WEIGHTS_FILE"):
        weights.from_hub("vgg16", "IMAGENET1K_V1")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_an_error() -> None:
    """An embedder that is set to a GPU refuses to start without one."""
    with pytest.raises(InvalidSettings, match="SIMILE_EMBEDDER_DEVICE"):
        load(_random(device="cuda"), LIMITS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_makes_the_vectors_of_a_cpu() -> None:
    """A GPU and a CPU compute the same vectors."""
    (cpu,), gpus = load(_random(workers=1), LIMITS), load(_random(device="cuda"), LIMITS)
    one, other = cpu.embed(_inputs(2)), gpus[0].embed(_inputs(2))
    cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert (cosine > 0.999).all()


def test_the_hash_is_of_values_not_of_files() -> None:
    """The hash depends on values, names and types, not on their order."""
    one, two = torch.ones(2), torch.zeros(3)
    states: list[weights.State] = [
        {"a": one, "b": two},
        {"a": one, "c": two},
        {"a": one, "b": two + 1},
        {"a": one, "b": two.double()},
    ]
    hashes = [weights.sha256(state) for state in states]
    assert hashes[0] == weights.sha256({"b": two, "a": one})
    assert all(hashes[0] != other for other in hashes[1:])


def test_neighbours_on_photographs_are_of_one_kind() -> None:
    """The nearest photograph mostly shows the same class with the published weights."""
    folders = sorted(collection_dir().iterdir())[:8]
    files = [file for folder in folders for file in sorted(folder.glob("*.jpg"))[:6]]
    (model,) = load(EmbedderSettings(device="cpu", runtime="torch", workers=1), LIMITS)
    inputs = np.stack([model.prepare(file.read_bytes()) for file in files])
    parts = np.array_split(inputs, len(files) // 6)
    vectors = np.concatenate([model.embed(part) for part in parts])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    nearest = similarity.argmax(axis=1)
    kinds = [file.parent.name for file in files]
    hits = sum(kinds[near] == kind for near, kind in zip(nearest, kinds, strict=True))
    assert hits / len(files) > 0.8


def test_a_rotated_picture_has_nearly_its_upright_vector() -> None:
    """An image rotated by its EXIF orientation is embedded like its upright copy."""
    (model,) = load(EmbedderSettings(device="cpu", runtime="torch", workers=1), LIMITS)
    turned = pictures.scene(320, 240).transpose(Image.Transpose.ROTATE_90)
    images = [
        pictures.encoded(pictures.scene(320, 240), "JPEG", quality=95),
        pictures.encoded(turned, "JPEG", quality=95, exif=pictures.exif(6)),
    ]
    vectors = model.embed(np.stack([model.prepare(image) for image in images]))
    lengths = np.linalg.norm(vectors, axis=1)
    assert vectors[0] @ vectors[1] / (lengths[0] * lengths[1]) > 0.98
