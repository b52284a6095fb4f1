"""EfficientNet-Lite without torch: torch's weights, torch's hash and torch's vectors."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from services.embedder.models import architectures, cpu, exported, parity
from services.embedder.models.efficientnet_lite import EfficientNetLite
from services.embedder.models.export import reference_vectors
from services.embedder.models.lite import graph, network, reference, state_dict
from services.embedder.models.lite.layers import SCALES, blocks
from services.embedder.models.lite.network import LiteNetwork
from services.embedder.models.loading import load
from services.embedder.models.networks import NETWORKS
from services.embedder.settings import EmbedderSettings
from services.shared.errors import MissingExtra, WeightsUnavailable
from tests.support.fake_model import LIMITS

_PIXELS = parity.reference_pixels(224)[[0, 5]]


@pytest.fixture(scope="module")
def lite0() -> LiteNetwork:
    """Return the default network with its published weights."""
    return network.load(EmbedderSettings())


def test_the_arrays_are_torchs_network(lite0: LiteNetwork) -> None:
    """Numpy, the ONNX graph and torch compute the same vectors under the same hash."""
    built = architectures.build(EmbedderSettings())
    assert lite0.weights_sha256 == built.weights_sha256
    torchs = reference_vectors(built, _PIXELS)
    model = graph.model_of(lite0, 224).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (in_graph,) = session.run(None, {exported.INPUT: _PIXELS})
    for vectors in (reference.vectors(lite0, _PIXELS), in_graph):
        assert vectors.dtype == np.float32
        assert parity.cosines(vectors, torchs).min() > 0.999999
        assert np.allclose(vectors, torchs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", sorted(SCALES))
def test_the_listed_layers_are_those_of_the_torch_network(name: str) -> None:
    """Names and shapes of the weights are equal; only the classes are left out."""
    settings = EmbedderSettings.model_validate({"model": name})
    size = NETWORKS[name].preprocessing.crop
    width, depth = SCALES[name]
    with torch.device("meta"):
        state = EfficientNetLite(size=size, width=width, depth=depth).state_dict()
    listed = {
        f"{conv.name}.weight": conv.shape
        for block in blocks(size, width, depth)
        for conv in block.convs
    }
    convs = {key: tuple(value.shape) for key, value in state.items() if value.dim() == 4}
    assert listed == convs
    assert len(network.load(settings).weights_sha256) == 64


def test_an_export_is_made_without_torch(tmp_path: Path) -> None:
    """The default model starts on a machine without torch, under the id that torch gives it."""
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "from pathlib import Path\n"
        "from services.embedder.models.lite import graph, reference\n"
        "from services.embedder.settings import EmbedderSettings\n"
        "one = reference.vectors\n"
        "reference.vectors = lambda net, pixels: one(net, pixels[:1]).repeat(8, axis=0)\n"
        "made = graph.export(Path(sys.argv[1]), EmbedderSettings())\n"
        "print(made.facts.model_id)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        check=True, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    torchs = architectures.build(EmbedderSettings())
    assert f"@{torchs.weights_sha256[:12]}/" in done.stdout.splitlines()[-1]
    found = exported.find(tmp_path, EmbedderSettings())
    assert found is not None
    assert found.facts.torch == ""


def test_the_default_model_is_not_exported_by_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where torch is installed too, the graph is the one that machines without torch serve."""
    asked: list[Path] = []
    monkeypatch.setattr(graph, "export", lambda folder, _: asked.append(folder))
    cpu.exported_network(EmbedderSettings(models_dir=tmp_path))
    assert asked == [tmp_path]


@pytest.mark.parametrize(
    ("model", "present", "extra"),
    [
        ("resnet50", {"onnxruntime", "onnx"}, "embedder"),
        ("efficientnet_lite0", {"openvino"}, "lite"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    model: str, present: set[str], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that needs torch names the extra with torch; a Lite model names the small one."""
    monkeypatch.setattr(cpu, "installed", lambda library: library in present)
    settings = EmbedderSettings.model_validate(
        {"model": model, "models_dir": tmp_path, "device": "cpu"}
    )
    with pytest.raises(MissingExtra, match=rf"simile-search\[{extra}\].*simile model export"):
        load(settings, LIMITS)


def test_a_gpu_without_torch_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedder that is set to a GPU says how to install torch."""
    monkeypatch.setattr(cpu, "installed", lambda library: library != "torch")
    with pytest.raises(MissingExtra, match="make run DEVICE=cuda"):
        load(EmbedderSettings(device="cuda"), LIMITS)


class TestStateDict:
    """Files of torch.save, read without torch."""

    @pytest.mark.parametrize("archive", [True, False])
    def test_both_formats_and_all_types_are_read(self, tmp_path: Path, *, archive: bool) -> None:
        """Values, shapes and types are torch's; views of shared storages too."""
        shared = torch.arange(24, dtype=torch.float32).reshape(4, 6)
        state = OrderedDict(
            float=torch.randn(2, 3), half=torch.randn(5).half(), double=torch.randn(2).double(),
            count=torch.tensor(7), empty=torch.zeros(0, 3), flags=torch.tensor([True, False]),
            part=shared[1:, ::2], turned=shared.T, parameter=torch.nn.Parameter(torch.ones(2)),
        )  # fmt: skip
        file = tmp_path / "weights.pth"
        torch.save(state, file, _use_new_zipfile_serialization=archive)
        found = state_dict.read(file)
        assert list(found) == list(state)
        for name, value in state.items():
            expected = value.detach().numpy()
            assert found[name].dtype == expected.dtype
            assert np.array_equal(found[name], expected)

    def test_bfloat16_becomes_float32(self, tmp_path: Path) -> None:
        """Numpy has no bfloat16, and every value of it is one of float32."""
        values = torch.randn(100).bfloat16()
        torch.save({"a": values}, tmp_path / "weights.pth")
        found = state_dict.read(tmp_path / "weights.pth")["a"]
        assert np.array_equal(found, values.float().numpy())

    @pytest.mark.parametrize("archive", [True, False])
    @pytest.mark.parametrize("value", [print, torch.ones(3), {"a": 1}, {"a": {"b": torch.ones(1)}}])
    def test_other_objects_are_refused(
        self, value: object, tmp_path: Path, *, archive: bool
    ) -> None:
        """Code, a bare tensor and nested dictionaries are no state dict."""
        file = tmp_path / "weights.pth"
        torch.save(value, file, _use_new_zipfile_serialization=archive)
        with pytest.raises(WeightsUnavailable, match="can't be read as weights"):
            state_dict.read(file)

    def test_code_in_a_file_is_not_run(self, tmp_path: Path) -> None:
        """A pickle that calls a function is refused before the call."""
        file = tmp_path / "weights.pth"
        file.write_bytes(pickle.dumps(_Calls(tmp_path / "called"), protocol=2))
        with pytest.raises(WeightsUnavailable, match=r"holds a posix\.mkdir"):
            state_dict.read(file)
        assert not (tmp_path / "called").exists()

    @pytest.mark.parametrize("archive", [True, False])
    def test_a_truncated_file_is_refused(self, tmp_path: Path, *, archive: bool) -> None:
        """A download that broke off, at each of some lengths."""
        file = tmp_path / "weights.pth"
        torch.save({"a": torch.ones(1000)}, file, _use_new_zipfile_serialization=archive)
        whole = file.read_bytes()
        for length in (0, 1, 50, len(whole) // 2, len(whole) - 100):
            file.write_bytes(whole[:length])
            with pytest.raises(WeightsUnavailable, match="can't be read as weights"):
                state_dict.read(file)

    def test_weights_of_another_network_name_the_odd_value(self, tmp_path: Path) -> None:
        """The error names a value that does not fit."""
        file = tmp_path / "weights.pth"
        torch.save(EfficientNetLite(size=260, width=1.1, depth=1.2).state_dict(), file)
        with pytest.raises(WeightsUnavailable, match=r"don't fit efficientnet_lite0: _blocks\."):
            network.load(EmbedderSettings(weights_file=file))


class TestMemory:
    """Small files that ask for much memory are refused before it is taken."""

    @pytest.mark.parametrize("archive", [True, False])
    @pytest.mark.parametrize(
        ("pickled", "reason"),
        [
            (b"\x80\x02}r\xff\xff\xff\x0f.", "memo index of 268435455"),
            (b"\x80\x05\x96\xff\xff\xff\x3f\0\0\0\0.", "expected 1073741823 bytes"),
            (b"\x80\x02X\xff\xff\xff\x3f.", "expected 1073741823 bytes"),
            (b"(c__main__\nA\no.", "has a OBJ"),
            (b"(i__main__\nA\n.", "has a INST"),
            (b"c__main__\nA\n)\x81.", "has a NEWOBJ"),
            (b"\x82\x01.", "has a EXT1"),
            (
                b"ctorch._utils\n_rebuild_tensor_v2\nN}X\1\0\0\0aNs\x86b.",
                "attributes of a function",
            ),
        ],
    )
    def test_pickles(self, pickled: bytes, reason: str, tmp_path: Path, *, archive: bool) -> None:
        """A huge memo index, huge lengths, and instructions that no state dict has."""
        file = tmp_path / "weights.pth"
        if archive:
            _zip(file, pickled)
        else:
            file.write_bytes(pickled)
        _refused(file, reason)

    @pytest.mark.parametrize("archive", [True, False])
    def test_a_tensor_larger_than_its_storage(self, tmp_path: Path, *, archive: bool) -> None:
        """Strides of 0 repeat one value; 16 bytes would become 1 GiB."""
        file = tmp_path / "weights.pth"
        repeated = torch.ones(4)[:1].expand(16384, 16384)
        torch.save({"a": repeated}, file, _use_new_zipfile_serialization=archive)
        _refused(file, "more values than its storage")

    def test_a_compressed_archive(self, tmp_path: Path) -> None:
        """Entries that become larger than the file."""
        file = tmp_path / "weights.pth"
        _zip(file, bytes(1 << 24))
        _refused(file, "entries are larger than the file")

    @pytest.mark.parametrize("count", [1 << 40, -1])
    def test_a_storage_larger_than_the_file(self, count: int, tmp_path: Path) -> None:
        """The old format states each storage's count of values."""
        file = tmp_path / "weights.pth"
        torch.save({"a": torch.ones(4)}, file, _use_new_zipfile_serialization=False)
        whole = file.read_bytes()
        file.write_bytes(whole[:-24] + count.to_bytes(8, "little", signed=True) + whole[-16:])
        _refused(file, "truncated or damaged")

    @pytest.mark.parametrize("archive", [True, False])
    def test_a_modules_state_is_read(self, tmp_path: Path, *, archive: bool) -> None:
        """Its dictionary has an attribute, `_metadata`, which is ignored."""
        file = tmp_path / "weights.pth"
        state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()
        torch.save(state, file, _use_new_zipfile_serialization=archive)
        assert list(state_dict.read(file)) == list(state)


def _zip(file: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if len(pickled) > 999 else 0) as archive:
        archive.writestr("weights/data.pkl", pickled)


def _refused(file: Path, reason: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WeightsUnavailable, match=reason):
            state_dict.read(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


class _Calls:
    """Pickles as a call of os.mkdir."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._path,)
