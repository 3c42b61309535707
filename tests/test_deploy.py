"""`nas deploy`: which variant is chosen, what its folder holds and runs, and what is refused."""

from __future__ import annotations

import errno
import html
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import deployed_run
from nas.checkpoint import load_vae, save_weights
from nas.deploy.passes import Reconstruction
from nas.deploy.quality import HeldOut
from nas.deploy.variants import Built, Variant, variants_of
from nas.protocol import TrainingConfig
from nas.vae import build_vae
from profiling import files
from profiling.files import new_folder
from profiling.fresh_process import ProcessEndedError
from profiling.intervals import Interval
from profiling.latency import LatencyConfig, Ratio
from profiling.target.client import KnownTarget, Target, reach
from profiling.target.errors import ModelRefusedError, TargetChangedError, TargetLostError
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from studies.deploy import run
from studies.deploy.choice import Bounds, best, reason_beside, unserved
from studies.deploy.deployment import Deployment, Wish
from studies.deploy.examination import Builders, examine
from studies.deploy.folder import deploy
from studies.deploy.subject import Subject
from studies.record.deployed import FOLDER, read_deployed
from studies.report.report import write_report
from studies.store.finding import address
from studies.store.trained import trained_folder
from tests.fakes.dataset import noise
from tests.fakes.study import fake_study
from tests.helpers.command import nas
from tests.helpers.page import Page
from tests.helpers.small_networks import described
from tests.helpers.targets import HERE, agents, fake_ssh
from tests.helpers.variants import Here, built, no_bar

SMALL = described(16)
IMAGES = noise(40, 16)
QUICK = LatencyConfig(
    min_rounds=2, max_rounds=2, attempts=1, warmup_window=1, max_warmup=2, priming_ms=0,
    min_sample_ms=0,
)  # fmt: skip


def written_model(folder: Path) -> Path:
    """A folder as `nas study best` writes it."""
    folder.mkdir()
    save_weights(build_vae(SMALL, seed=0), folder / "weights.safetensors")
    (folder / "architecture.json").write_text(SMALL.to_json())
    result = {"study": "faces", "trial": 3, "objectives": {"params": 1234.0}, "data": None}
    (folder / "result.json").write_text(json.dumps({**result, "data_fingerprint": "abc"}))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def deployed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Deployment]:
    """The folder of a deployment in ONNX Runtime; no int8 is within its bound."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("deployed") / "out"
    wish = Wish(["onnxruntime"], ["float32", "int8"], Bounds(int8=-1.0), QUICK)
    subject = Subject(trained_folder(model), IMAGES, own_images=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE_DIR", str(out.parent / "cache"))
        found = deploy(subject, wish, out, no_bar, Here)
    return out, found


@pytest.mark.slow
def test_the_folder_is_whole(deployed: tuple[Path, Deployment]) -> None:
    out, _ = deployed
    models = {"model.onnx", "encoder.onnx", "decoder.onnx"}
    texts = {"README.md", "report.html", "run.py", "deployment.json"}
    assert {path.name for path in out.iterdir()} == models | texts
    assert {path.name for path in out.parent.iterdir()} <= {"out", "cache"}


@pytest.mark.slow
def test_what_is_deployed_computes_the_model_without_torch(
    model: Path, deployed: tuple[Path, Deployment]
) -> None:
    out, _ = deployed
    shipped = runpy.run_path(str(out / "run.py"))["Model"]()
    images = torch.from_numpy(IMAGES.images[IMAGES.test]).float() / 255
    with torch.inference_mode():
        rebuilt, mean, _ = Reconstruction(load_vae(model / "weights.safetensors"))(images)
    found, latents = shipped.reconstruct(images.numpy())
    np.testing.assert_allclose(found, rebuilt.numpy(), atol=1e-4)
    np.testing.assert_allclose(latents, mean.numpy(), atol=1e-4)
    np.testing.assert_allclose(shipped.encode(images.numpy()), mean.numpy(), atol=1e-4)
    np.testing.assert_allclose(shipped.decode(latents), rebuilt.numpy(), atol=1e-4)


@pytest.mark.slow
def test_the_benchmark_of_fresh_environments_compares_with_torch(
    model: Path, deployed: tuple[Path, Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, python = deployed[0], Path(sys.executable)
    vae = load_vae(model / "weights.safetensors").eval()
    with pytest.raises(subprocess.CalledProcessError):  # torch is installed here
        deployed_run.differences(out, vae, python, 1)
    program = deployed_run._PROGRAM.replace("assert not present", "assert present")
    monkeypatch.setattr(deployed_run, "_PROGRAM", program)
    found = deployed_run.differences(out, vae, python, 2)
    assert found.keys() == {"rebuilt", "latents", "encoded", "decoded", "picture"}
    assert max(value for key, value in found.items() if key != "picture") < 1e-4
    assert 0.01 < found["picture"] < 0.53  # rounded to whole levels
    with torch.no_grad():
        list(vae.decoder.parameters())[-1].add_(0.1)  # the bias of the last convolution
    wrong = deployed_run.differences(out, vae, python, 1)
    assert min(wrong["rebuilt"], wrong["decoded"]) > 1e-3


@pytest.mark.slow
def test_every_file_says_what_it_is(deployed: tuple[Path, Deployment]) -> None:
    onnx = pytest.importorskip("onnx")
    out, _ = deployed
    for name in ("model", "encoder", "decoder"):
        properties = {p.key: p.value for p in onnx.load(out / f"{name}.onnx").metadata_props}
        assert json.loads(properties["architecture"]) == SMALL.to_dict()
        assert properties["digest"] == SMALL.digest
        assert (properties["study"], properties["trial"]) == ("faces", "3")
        assert properties["data_fingerprint"] == "abc"
        assert json.loads(properties["recorded"]) == {"params": 1234.0}
        assert properties["variant"] == "onnxruntime float32"
    about = json.loads((out / "deployment.json").read_text())
    assert (about["runtime"], about["precision"]) == ("onnxruntime", "float32")
    assert about["judged_on"] == IMAGES.fingerprint
    assert about["quality"]["test"]["images"] == len(IMAGES.test)
    assert abs(about["quality"]["validation"]["cost"]) < 1e-4
    assert abs(about["quality"]["parts"]["cost"]) < 1e-4
    assert about["image"] == {"channels": 3, "height": 16, "width": 16, "fit": "crop"}


@pytest.mark.slow
def test_sensitive_layers_were_tried_in_floating_point(deployed: tuple[Path, Deployment]) -> None:
    _, found = deployed
    (int8,) = (one for one in found.examined.built if one.variant.precision == "int8")
    assert len(int8.keep) == 4  # of 13 layers: 1, 2, 4
    assert not {name for name, _ in int8.in_float} & set(int8.keep)
    reason = found.examined.reasons[int8.variant]
    assert "; -100 % is allowed, with 4 layers in floating point" in reason


@pytest.mark.slow
def test_card_and_page_say_what_was_rejected_and_why(deployed: tuple[Path, Deployment]) -> None:
    out, found = deployed
    reason = found.examined.reasons[Variant("onnxruntime", "int8")]
    for name in ("README.md", "report.html"):
        text = html.unescape((out / name).read_text())
        assert f"rejected: {reason}" in text
        assert "onnxruntime float32" in text
        assert SMALL.digest in text
        assert "original, eager float32" in text
    assert "pip install numpy==" in (out / "README.md").read_text()


@pytest.mark.slow
def test_an_image_file_becomes_a_picture_and_a_latent(
    deployed: tuple[Path, Deployment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, _ = deployed
    monkeypatch.setattr(run, "HERE", out)
    pixels = IMAGES.images[0].transpose(1, 2, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.ppm")
    np.save(tmp_path / "c.npy", pixels)
    written = tmp_path / "written" / "here"  # it is made
    for name in ("a.png", "b.ppm", "c.npy"):
        run.main([str(tmp_path / name), "--out", str(written)])
    model = run.Model(out)
    assert capsys.readouterr().out.count("\n") == 6
    with Image.open(written / "a-reconstruction.png") as picture:
        assert (picture.size, picture.mode) == ((16, 16), "RGB")
        rebuilt = model.reconstruct(IMAGES.images[:1] / 255)[0][0]
        expected = np.rint(rebuilt * 255).transpose(1, 2, 0)
        np.testing.assert_array_equal(np.asarray(picture), expected)
    latents = [np.load(written / f"{name}-latent.npy") for name in "abc"]
    assert np.array_equal(latents[0], latents[1])
    assert np.array_equal(latents[0], latents[2])
    monkeypatch.setattr(run, "_by_pillow", lambda path, image: None)
    bare = run.read_image(tmp_path / "b.ppm", model.about)
    np.testing.assert_array_equal(bare[0], IMAGES.images[0] / np.float32(255))
    with pytest.raises(run.UnusableError, match="install Pillow, or give a"):
        run.read_image(tmp_path / "a.png", model.about)
    (tmp_path / "c.ppm").write_bytes(b"P6 # comment\n2 1\n255\n" + bytes(6))
    with pytest.raises(run.UnusableError, match="is 3 x 1 x 2; the model takes 3 x 16 x 16"):
        run.read_image(tmp_path / "c.ppm", model.about)
    np.save(tmp_path / "d.npy", np.full((16, 16, 3), 2.0))
    with pytest.raises(run.UnusableError, match="values outside of 0 to 1"):
        run.read_image(tmp_path / "d.npy", model.about)
    (tmp_path / "e.npy").write_bytes(b"x")
    with pytest.raises(SystemExit, match=r"run.py: .*e\.npy: cannot be read as an image"):
        run.main([str(tmp_path / "e.npy")])


# A target


class Closing(Here):
    """Ends the connection to the target, as the end of the other process would."""

    def __exit__(self, *error: object) -> None:
        self._made._target.close()


@pytest.fixture
def reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownTarget:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    fake_ssh(tmp_path / "bin", monkeypatch)
    return reach(HERE)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the fake ssh is a shell script")
def test_a_model_is_deployed_for_a_target(
    model: Path, reached: KnownTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[bytes] = []
    outputs = Target.outputs

    def counted(self: Target, content: bytes, *args: Any) -> Any:
        ran.append(content)
        return outputs(self, content, *args)

    monkeypatch.setattr(Target, "outputs", counted)
    subject, out = Subject(trained_folder(model), IMAGES, own_images=False), tmp_path / "out"
    wish = Wish(["onnxruntime"], ["float32", "bfloat16", "int8"], Bounds(int8=1.0), QUICK, reached)
    found = deploy(subject, wish, out, no_bar, Closing)
    names = {one.variant.name for one in found.examined.built}
    assert names == {"onnxruntime float32", "onnxruntime int8"}
    assert found.examined.found.taken.keys() == {"exported", "original", "twin", *names}
    # Each was judged there: one image checks it, and those of the validation part judge it.
    int8 = next(one for one in found.examined.built if one.variant.name == "onnxruntime int8")
    assert len(set(ran)) >= len(names)
    assert len(ran) >= len(names) * (1 + len(IMAGES.validation))
    assert int8.quality.images == len(IMAGES.validation)
    about = json.loads((out / "deployment.json").read_text())
    assert about["target"] == {"name": "pi", **reached.facts.lasting}
    assert about["packages"]["onnxruntime"] == reached.facts.onnxruntime
    assert about["baseline"] == "ONNX Runtime in float32, as exported"
    assert about["measured_on"].startswith("pi (")
    card = (out / "README.md").read_text()
    assert f"Measured on: {about['measured_on']}" in card
    assert "| Over float32 |" in card
    assert "is deployed for pi: it takes" in card
    assert "eager PyTorch and a second copy" not in card
    record = found.record(3)
    assert (record.target, record.baseline, record.file) == ("pi", "float32", "-pi.json")
    assert agents(tmp_path / "bin" / "lanes") == []


@pytest.mark.parametrize("error", [TargetLostError, TargetChangedError])
@pytest.mark.usefixtures("all_available")
def test_a_target_that_cannot_be_used_rejects_no_variant(error: type[Exception]) -> None:
    def build(*_: object) -> Built:
        raise error("pi: gone")

    with pytest.raises(error, match=r"^pi: gone$"):
        examined([Variant("onnxruntime", "float32")], build=build)


@pytest.mark.usefixtures("all_available")
def test_a_model_that_a_target_refuses_is_rejected() -> None:
    def build(*_: object) -> Built:
        raise ModelRefusedError("pi: no such operation")

    with pytest.raises(UserError, match=r"nothing can be deployed: .*: pi: no such operation"):
        examined([Variant("onnxruntime", "float32")], build=build)


# The choice


def over(latencies: dict[str, float]) -> Callable[[Variant, Variant], Ratio]:
    """Ratios that are known to 2 %."""

    def ratio(one: Variant, other: Variant) -> Ratio:
        found = latencies[one.name] / latencies[other.name]
        return Ratio(found, Interval(0.98 * found, 1.02 * found))

    return ratio


PLAIN, OPEN = "onnxruntime float32", "openvino float32"
INT8 = "openvino int8"


@pytest.mark.parametrize(
    ("costs", "latencies", "chosen"),
    [
        ({PLAIN: 0.0, OPEN: 0.0}, {PLAIN: 2.0, OPEN: 1.0}, OPEN),
        ({PLAIN: 0.0, INT8: 0.008}, {PLAIN: 1.0, INT8: 1.5}, PLAIN),
        ({PLAIN: 0.0, INT8: 0.008}, {PLAIN: 1.5, INT8: 1.0}, INT8),
        # The two cannot be told apart: the one that costs less, then the faster one.
        ({PLAIN: 0.0, INT8: 0.008}, {PLAIN: 1.01, INT8: 1.0}, PLAIN),
        ({PLAIN: 1e-6, OPEN: 0.0}, {PLAIN: 1.0, OPEN: 1.01}, PLAIN),
    ],
)
def test_the_fastest_is_chosen_and_of_equals_the_best(
    costs: dict[str, float], latencies: dict[str, float], chosen: str
) -> None:
    candidates = [built(name, cost) for name, cost in costs.items()]
    found = best(candidates, lambda one: latencies[one.name], over(latencies))
    assert found.variant.name == chosen


def test_the_reason_against_a_variant_names_what_is_better() -> None:
    chosen = built(OPEN)
    slow = reason_beside(built(PLAIN), chosen, over({OPEN: 1.0, PLAIN: 2.0}))
    assert slow == "takes 2.00x [1.96, 2.04] of the time of openvino float32"
    lossy = reason_beside(built(INT8, 0.008), chosen, over({OPEN: 1.0, INT8: 1.0}))
    assert "not measurably faster than openvino float32, and costs 0.8 % more" in lossy
    same = reason_beside(built(PLAIN), chosen, over({OPEN: 1.0, PLAIN: 1.0}))
    assert same == "is not measurably faster than openvino float32"


def test_a_variant_may_cost_a_stated_share_of_the_loss() -> None:
    bounds = Bounds(int8=0.01)

    def reason(name: str, cost: float, worst: float = 0.0) -> str | None:
        one = built(name, cost, worst)
        return bounds.reason_against(one.variant, one.quality)

    assert reason(INT8, 0.009, 0.09) is None
    assert reason(INT8, 0.02) == "costs 2.0 % of the loss; 1.0 % is allowed"
    assert reason(PLAIN, 0.002) == "costs 0.2 % of the loss; 0.1 % is allowed"
    assert reason(INT8, 0.0, 0.2) == "costs 20 % of the loss of one image; 10 % is allowed"
    assert reason(INT8, float("nan")) is not None


def test_a_layer_that_nothing_computes_in_int8_is_named() -> None:
    first, second = ("a", "convolution"), ("b", "linear layer")
    assert unserved([built(INT8, left=(first, second)), built(INT8, left=(second,))]) == second
    assert unserved([built(INT8, left=(first,)), built(INT8, left=(second,))]) is None
    assert unserved([built(INT8), built(INT8, left=(first,))]) is None


def test_quality_is_judged_image_by_image() -> None:
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    judge = HeldOut(images, lambda one: (one * 0.9, None), TrainingConfig())
    assert judge.base.cost == 0
    assert judge.base.interval == (0, 0)
    assert (judge.base.images, judge.base.worst) == (3, 0)

    def spoils_one(image: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.zeros_like(image) if torch.equal(image, images[1:2]) else image * 0.9,)

    found = judge.judge(spoils_one)
    assert found.worst > 2 * found.cost > 0
    assert found.interval.low <= found.cost <= found.interval.high
    assert found.ssim < judge.base.ssim
    assert judge.judge(lambda one: (one,)).cost == pytest.approx(-1)


def test_rewritten_backends_are_tried_where_a_rewrite_applies() -> None:
    plain, normed = torch.nn.Linear(2, 2), Reconstruction(build_vae(SMALL)).eval()
    names = {one.backend for one in variants_of(plain, None, ["float32"])}
    assert names == {"onnxruntime", "openvino"}
    rewritten = {one.backend for one in variants_of(normed, None, ["float32"])}
    assert rewritten - names == {"onnxruntime_rewritten", "openvino_rewritten"}
    found = variants_of(plain, ["onnxruntime"], ["float32", "bfloat16", "int8"])
    assert [one.precision for one in found] == ["float32", "int8"]


# Processes that end, and what cannot be deployed


class Stub:
    """In the place of `FreshProcess`: answers by functions of this test."""

    started = 0

    def __init__(self, *given: Any, tuned: bool, **methods: Callable[..., Any]) -> None:
        Stub.started += 1
        self._methods = methods

    def call(self, method: str, *args: Any, **callbacks: Any) -> Any:
        return self._methods[method](*args)

    def __exit__(self, *error: object) -> None:
        pass


def examined(variants: list[Variant], **methods: Callable[..., Any]) -> Any:
    monkeys = {"base": lambda: built(PLAIN).quality, **methods}
    source: Any = None
    builders = Builders(source, Path(), lambda *given, tuned: Stub(tuned=tuned, **monkeys))
    told: list[tuple[int, int]] = []
    try:
        return examine(builders, variants, Bounds(), QUICK, lambda *at: told.append(at))
    finally:
        assert told == sorted(told)  # steps that are found on the way never turn the bar back


@pytest.fixture
def all_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Variant, "reason_against", None)


@pytest.mark.usefixtures("all_available")
def test_a_runtime_that_ends_its_process_is_rejected() -> None:
    def build(variant: Variant, *keep: Any) -> Built:
        if variant.runtime == "openvino":
            raise ProcessEndedError("x")
        return built(variant.name)

    class Found:
        @staticmethod
        def counted(name: str) -> Any:
            return type("Timed", (), {"median_ms": 1.0})

        @staticmethod
        def ratio(one: str, other: str) -> Ratio:
            return Ratio(1.0, Interval(1.0, 1.0))

    before, (backend, precision) = Stub.started, PLAIN.split()
    variants = [Variant("openvino", "float32"), Variant(backend, precision)]
    found = examined(
        variants,
        build=build,
        measure=lambda built, config: Found(),
        parts=lambda chosen: chosen.quality,
    )
    assert found.chosen.variant.name == PLAIN
    assert found.reasons == {variants[0]: "the runtime ended the process that was to run it"}
    assert Stub.started == before + 2


@pytest.mark.usefixtures("all_available")
def test_int8_alone_is_refused_where_a_layer_has_none() -> None:
    left = (("decoder.output", "transposed convolution"),)
    with pytest.raises(UserError, match=r"computes the transposed convolution decoder\.output in"):
        examined([Variant("openvino", "int8")], build=lambda *_: built(INT8, left=left))


def test_without_a_runtime_the_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Variant, "reason_against", "needs x: pip install 'vae-nas[onnx]'")
    with pytest.raises(UserError) as error:
        examined([Variant("onnxruntime", "float32"), Variant("openvino", "float32")])
    told = "onnxruntime float32, openvino float32: needs x: pip install 'vae-nas[onnx]'"
    assert str(error.value) == f"nothing can be deployed: {told}"


def test_a_reference_is_named_as_it_is_asked_for(tmp_path: Path) -> None:
    study = replace(fake_study(tmp_path), name="faces")
    assert [address(study, one) for one in study.complete[:3]] == [
        "faces#original", "faces#modified", f"faces#{study.complete[2].number}",
    ]  # fmt: skip


def test_a_precision_that_no_named_backend_has_is_refused(model: Path, tmp_path: Path) -> None:
    subject = Subject(trained_folder(model), IMAGES, own_images=False)
    wish = Wish(["onnxruntime"], ["bfloat16"])
    with pytest.raises(UserError, match="--precision bfloat16: none of onnxruntime computes in it"):
        deploy(subject, wish, tmp_path / "out", no_bar, Here)
    few = noise(12, 16)
    for images in (replace(few, validation=few.test[:0]), replace(few, train=few.train[:1])):
        lacking = Subject(trained_folder(model), images, own_images=False)
        with pytest.raises(UserError, match="2 are needed to calibrate, and 1 to judge by"):
            deploy(lacking, Wish(), tmp_path / "out", no_bar, Here)
    other = Subject(trained_folder(model), noise(12, 24), own_images=False)
    with pytest.raises(UserError, match=r"has images of \(3, 24, 24\), and the model takes"):
        deploy(other, Wish(), tmp_path / "out", no_bar, Here)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(model: Path, tmp_path: Path) -> None:
    def full() -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

    subject = Subject(trained_folder(model), IMAGES, own_images=False)
    with pytest.raises(UserError, match=r"--out .*out: cannot be written \(No space left"):
        deploy(
            subject, Wish(), tmp_path / "out", no_bar,
            lambda *given, tuned: Stub(tuned=tuned, base=full),
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_is_whole_or_absent(tmp_path: Path) -> None:
    dead = tmp_path / f".new.{files._host()}.999999999.part"
    dead.mkdir()

    def fails() -> None:
        with new_folder(tmp_path / "new") as partial:
            (partial / "a").write_text("a")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "new") as partial:
        (partial / "a").write_text("a")
        assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "a"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{}"], "there are no images to calibrate with and to judge by; give --images FOLDER"),
        (["{}", "-o", "{}"], "exists; remove it, or give another folder"),
        (["{}", "-o", "no/where"], "there is no folder no; create it"),
        (["{}", "--images", "none"], "--images: "),
        (["{}", "--max-params", "5"], "--max-params: chooses a model of a study; "),
        (["{}", "--by", "params"], "--by: chooses a model of a study; "),
        (["{}", "--backends", "eager"], "--backends: 'eager' is not one of onnxruntime, "),
        (["{}", "--target", "nowhere"], "--target: target 'nowhere' is not known"),
        (
            ["{}", "--target", "pi", "--backends", "openvino"],
            "--backends on a target: 'openvino' is not one of onnxruntime, onnxruntime_rewritten",
        ),
        (["{}", "--precision", "int4"], "--precision: 'int4' is not one of float32, bfloat16,"),
        (["nowhere"], "no study 'nowhere' in "),
        (["nowhere#3"], "no study 'nowhere' in "),
        (["{}/.."], "has no weights.safetensors: the model was not trained, or they are gone"),
    ],
)
def test_what_cannot_be_deployed_is_refused(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert nas("deploy", *(one.format(model) for one in arguments)) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_architecture_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "model"
    shutil.copytree(model, other)
    (other / "architecture.json").write_text(ORIGINAL.to_json())
    for command in (["deploy", str(other)], ["export", str(other), "--onnx", "x.onnx"]):
        assert nas(*command) == 2
        told = f"has the weights of another architecture, {SMALL.digest} instead of"
        assert told in capsys.readouterr().err


# Export


@pytest.mark.parametrize("form", ["{}", "{}/weights.safetensors"])
def test_a_trained_model_is_exported_with_its_weights(
    form: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def exported(vae: Any, path: Path, deterministic: bool) -> Any:
        seen.append(vae)
        raise KeyboardInterrupt

    monkeypatch.setattr("studies.cli.export._exported", exported)
    assert nas("export", form.format(model), "--onnx", str(tmp_path / "x.onnx")) == 130
    expected = load_vae(model / "weights.safetensors").state_dict()
    found = seen[0].state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["original@32"], "original@32: an architecture has no weights; give --weights FILE, a"),
        (["{}/architecture.json"], "an architecture has no weights; give --weights FILE"),
        (["{}", "--untrained"], "is not an architecture: give a reference"),
        (["original@32", "--untrained", "--weights", "w"], "give only one of them"),
        (["original@32", "--weights", "{}/weights.safetensors"], "belong to another architecture"),
        (["{}/none.safetensors"], "none.safetensors: cannot be read"),
        (["missing"], "'missing' is not an architecture"),
    ],
)
def test_an_export_never_has_random_weights_unasked(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    given = [one.format(model) for one in arguments]
    assert nas("export", *given, "--onnx", str(tmp_path / "x.onnx")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert list(tmp_path.iterdir()) == []


# The study's report


@pytest.mark.slow
def test_the_report_shows_the_variants_of_a_deployed_model(
    deployed: tuple[Path, Deployment], tmp_path: Path
) -> None:
    _, found = deployed
    study = fake_study(tmp_path / "s", found=2)
    folder = study.folder / FOLDER
    folder.mkdir(parents=True)
    record = found.record(3)
    (folder / "a.json").write_text(record.model_dump_json())
    assert read_deployed(study.folder) == ([record], [])
    for name, text in (("b", "{"), ("c", json.dumps({"trial": 1.5})), ("d", "[]")):
        (folder / f"{name}.json").write_text(text)
    (folder / "e.json").mkdir()
    _, damaged = read_deployed(study.folder)
    assert [line.partition(": ")[0] for line in damaged] == [
        str(folder / f"{name}.json") for name in "bcde"
    ]
    page = Page(write_report(study, plots=False).read_text())
    assert "deployed" in page.ids
    ratio = found.over(PLAIN)
    told = f"{ratio.median:.2f}x [{ratio.interval.low:.2f}, {ratio.interval.high:.2f}]"
    assert told in page.text
    assert f"rejected: {found.examined.reasons[Variant('onnxruntime', 'int8')]}" in page.text
    shutil.rmtree(folder)
    assert "deployed" not in Page(write_report(study, plots=False).read_text()).ids
