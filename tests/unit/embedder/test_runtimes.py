"""Exported networks give the vectors of torch in every runtime, without torch, or are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch

from services.embedder.models import cpu, exported, parity
from services.embedder.models.architectures import build
from services.embedder.models.loading import load
from services.embedder.models.model import Pixels, RuntimeInfo, Vectors
from services.embedder.models.networks import NETWORKS, NetworkModel
from services.embedder.models.runtimes.torch_cpu import TorchCpu
from services.embedder.models.runtimes.torch_cuda import sizes
from services.embedder.settings import EmbedderSettings
from services.shared.errors import (
    InvalidSettings,
    MissingExtra,
    RuntimeUnfit,
    WeightsUnavailable,
)
from tests.support.fake_model import LIMITS

_PIXELS = parity.reference_pixels(224)


def _settings(models_dir: Path, **fields: object) -> EmbedderSettings:
    return EmbedderSettings.model_validate(
        {"device": "cpu", "workers": 2, "models_dir": models_dir, **fields}
    )


@pytest.fixture(scope="module")
def reference() -> Vectors:
    """Return torch's own vectors of the reference images."""
    return TorchCpu(build(EmbedderSettings()).network, "fp32").embed(_PIXELS)


@pytest.mark.parametrize("runtime", ["auto", "onnxruntime", "openvino", "torch"])
def test_every_runtime_gives_torchs_vectors(
    models_dir: Path, reference: Vectors, runtime: str
) -> None:
    """All runtimes compute the same vectors and model id in fp32, in batches of any size."""
    one, two = load(_settings(models_dir, runtime=runtime), LIMITS)
    (torchs, _) = load(_settings(models_dir, runtime="torch"), LIMITS)
    assert one.model_id == two.model_id == torchs.model_id
    assert one.runtime.precision == "fp32"
    assert runtime in {"auto", one.runtime.library}
    for count in (1, 3, 8):
        together = one.embed(_PIXELS[:count])
        assert together.dtype == np.float32
        assert parity.cosines(together, reference[:count]).min() > 0.9999
    many = np.concatenate([_PIXELS] * 5)
    assert parity.cosines(two.embed(many), np.concatenate([reference] * 5)).min() > 0.9999


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_fewer_bits_are_near(models_dir: Path, reference: Vectors, runtime: str) -> None:
    """bf16 gives almost the same vectors under the same model id.

    On a CPU without bf16, OpenVINO computes in fp32 and reports fp32.
    """
    one, _ = load(_settings(models_dir, runtime=runtime, precision="bf16"), LIMITS)
    found = parity.cosines(one.embed(_PIXELS), reference)
    if one.runtime.precision == "bf16":
        assert 0.998 <= np.median(found) < 0.99999
    else:
        assert runtime == "openvino"
        assert "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        assert np.all(found > 0.99999)


def test_an_exported_network_needs_no_torch(models_dir: Path) -> None:
    """A process that never imports torch serves an exported network."""
    load(_settings(models_dir, runtime="onnxruntime"), LIMITS)
    script = (
        "import sys\n"
        "from services.embedder.models.loading import load\n"
        "from services.embedder.settings import EmbedderSettings\n"
        "from services.shared.imaging import Limits\n"
        "import numpy as np\n"
        "for runtime in ('onnxruntime', 'openvino'):\n"
        "    settings = EmbedderSettings(runtime=runtime, device='cpu', workers=1)\n"
        "    (model,) = load(settings, Limits(10**6, 10**6, 100))\n"
        "    assert model.embed(np.zeros((1, 224, 224, 3), np.uint8)).shape == (1, 1280)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_without_torch_a_missing_export_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torch, the error of a missing export names the command that makes the export."""
    monkeypatch.setattr(cpu, "installed", lambda library: library == "onnxruntime")
    with pytest.raises(MissingExtra, match=r"simile model export.*SIMILE_EMBEDDER_MODELS_DIR"):
        load(_settings(tmp_path), LIMITS)


def test_without_any_runtime_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra to install when no runtime is installed."""
    monkeypatch.setattr(cpu, "installed", lambda _: False)
    with pytest.raises(MissingExtra, match=r"simile-search\[embedder\]"):
        load(_settings(tmp_path), LIMITS)


@pytest.mark.parametrize(("runtime", "precision"), [("onnxruntime", "bf16"), ("auto", "fp16")])
def test_a_precision_that_a_runtime_lacks_is_refused(
    tmp_path: Path, runtime: str, precision: str
) -> None:
    """The error names the setting of the precision."""
    with pytest.raises(InvalidSettings, match="SIMILE_EMBEDDER_PRECISION"):
        load(_settings(tmp_path, runtime=runtime, precision=precision), LIMITS)


def _copied(models_dir: Path, to: Path) -> exported.Exported:
    found = exported.find(models_dir, _settings(models_dir)) or pytest.fail("nothing exported")
    folder = to / found.folder.name
    folder.mkdir()
    for file in found.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return replace(found, folder=folder)


def test_an_export_is_made_once_and_again_when_damaged(models_dir: Path, tmp_path: Path) -> None:
    """A second start finds the export; a changed export is replaced, not served."""
    load(_settings(models_dir, runtime="onnxruntime"), LIMITS)
    copied = _copied(models_dir, tmp_path)
    settings = _settings(tmp_path, runtime="onnxruntime", workers=1)
    made = copied.graph.stat().st_mtime_ns
    load(settings, LIMITS)
    assert copied.graph.stat().st_mtime_ns == made
    graph = bytearray(copied.graph.read_bytes())
    graph[-1000] ^= 1
    copied.graph.write_bytes(graph)
    assert exported.find(tmp_path, settings) is None
    load(settings, LIMITS)
    assert exported.find(tmp_path, settings) is not None
    assert [folder.name for folder in tmp_path.iterdir()] == [copied.folder.name]


def test_a_quicker_process_wins(models_dir: Path, tmp_path: Path) -> None:
    """Two embedders that export at the same time leave one whole export."""
    load(_settings(models_dir, runtime="onnxruntime"), LIMITS)
    copied = _copied(models_dir, tmp_path)
    graph = tmp_path / "again.onnx"
    graph.write_bytes(copied.graph.read_bytes())
    mine = exported.write(tmp_path, graph, copied.facts, copied.reference())
    assert mine.folder == copied.folder
    assert sorted(path.name for path in tmp_path.iterdir()) == [copied.folder.name]


@pytest.mark.parametrize(
    "facts", ["", "{}", '{"format": 99}', json.dumps({"format": 1, "source": 3, "more": 4})]
)
def test_an_export_of_another_format_is_left_alone(
    models_dir: Path, tmp_path: Path, facts: str
) -> None:
    """An export of an unknown format is not used."""
    load(_settings(models_dir, runtime="onnxruntime"), LIMITS)
    copied = _copied(models_dir, tmp_path)
    (copied.folder / "export.json").write_text(facts)
    assert exported.find(tmp_path, _settings(tmp_path)) is None


def test_a_runtime_that_computes_something_else_is_not_used(
    models_dir: Path, tmp_path: Path
) -> None:
    """A runtime whose vectors differ from torch's is rejected before the first image."""
    load(_settings(models_dir, runtime="onnxruntime"), LIMITS)
    copied = _copied(models_dir, tmp_path)
    pixels, vectors = copied.reference()
    np.savez(copied.folder / "reference.npz", pixels=pixels, vectors=vectors[::-1])
    (copied.folder / "speeds.json").unlink()
    for runtime in ("onnxruntime", "auto"):
        with pytest.raises(RuntimeUnfit, match="SIMILE_EMBEDDER_RUNTIME"):
            load(_settings(tmp_path, runtime=runtime), LIMITS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every folder")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error names the setting when the export can't be written."""
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidSettings, match="SIMILE_EMBEDDER_MODELS_DIR"):
        load(_settings(tmp_path, weights="random"), LIMITS)


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    """The error names the setting when its folder is a file."""
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSettings, match="SIMILE_EMBEDDER_MODELS_DIR"):
        load(_settings(tmp_path / "file", weights="random"), LIMITS)


def test_other_weights_are_another_export(tmp_path: Path) -> None:
    """An export is found by its weights, and by the bytes of a weights file."""
    published = _settings(tmp_path)
    (tmp_path / "mine.pth").write_bytes(b"weights")
    mine = _settings(tmp_path, weights_file=tmp_path / "mine.pth")
    sources = {
        exported.source(one) for one in (published, mine, _settings(tmp_path, model="vgg16"))
    }
    (tmp_path / "mine.pth").write_bytes(b"others")
    assert len(sources | {exported.source(mine)}) == 4
    with pytest.raises(WeightsUnavailable, match="can't be read"):
        exported.source(_settings(tmp_path, weights_file=tmp_path / "none.pth"))


def test_a_runtime_sends_no_telemetry(models_dir: Path) -> None:
    """ONNX Runtime's telemetry is off before the library is loaded."""
    load(_settings(models_dir, runtime="onnxruntime"), LIMITS)
    script = (
        "import os, sys\n"
        "import services.embedder.models.runtimes.onnx_session\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@dataclass
class _Counting:
    """Records the sizes of its batches."""

    batches: list[int]
    info: RuntimeInfo = field(default_factory=lambda: RuntimeInfo("counting", "fp32", "cpu"))

    def embed(self, batch: Pixels) -> Vectors:
        """Return the first pixel of each image."""
        self.batches.append(len(batch))
        return batch[:, 0, 0].astype(np.float32)


def test_a_batch_is_run_in_parts() -> None:
    """A runtime gets chunks of its best size, and the order of the images is kept."""
    runtime = _Counting([])
    network = NETWORKS["efficientnet_lite0"]
    model = NetworkModel("some", network, LIMITS, runtime, 4, 4)
    batch = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    assert model.embed(batch)[:, 0].tolist() == list(range(10))
    assert runtime.batches == [4, 4, 2]


def test_torch_gives_no_memory_back_between_batches() -> None:
    """The process configures glibc's malloc, so that no page is faulted in a second time."""
    script = (
        "import resource, threading\n"
        "import numpy as np\n"
        "from services.embedder.models.architectures import build\n"
        "from services.embedder.models.runtimes.torch_cpu import TorchCpu\n"
        "from services.embedder.settings import EmbedderSettings\n"
        "runtime = TorchCpu(build(EmbedderSettings()).network, 'fp32')\n"
        "batch = np.zeros((32, 224, 224, 3), np.uint8)\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    runtime.embed(batch)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "def work():\n"
        "    print(min([faults() for _ in range(4)]) // 32)\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=120, capture_output=True, text=True
    )
    # An image's activations are thousands of pages. The heap may grow during some batches, but not
    # during all of them.
    assert int(done.stdout) < 100


def test_graphs_are_made_for_every_batch_up_to_the_largest() -> None:
    """Graph sizes double, and end with the largest batch."""
    assert sizes(1) == [1]
    assert sizes(8) == [1, 2, 4, 8]
    assert sizes(12) == [1, 2, 4, 8, 12]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpus_graphs_give_torchs_vectors(reference: Vectors, precision: str) -> None:
    """A GPU's vectors are those of the CPU, also for batches smaller than their graph."""
    settings = EmbedderSettings.model_validate(
        {"device": "cuda", "precision": precision, "max_batch_size": 4}
    )
    models = load(settings, LIMITS)
    for model in models:
        for count in (1, 2, 3, 4, 8):
            found = parity.cosines(model.embed(_PIXELS[:count]), reference[:count])
            assert np.median(found) > 0.998
