"""The stage `prune`: a trained model narrowed and trained further, beside its control.

The control is the same architecture from new weights, trained for as many epochs as the trained
model and the pruned one together.
"""

from __future__ import annotations

from nas.artefacts import full_disk_refused
from nas.checkpoint import load_vae, save_weights, weights_digest
from nas.compress.pruning import Norm, prune
from nas.evaluate import static_costs
from nas.latency import address_of, measure_together
from nas.objectives import latency_in
from nas.own.objectives import own_static_costs
from nas.protocol import recalibrate
from nas.timed_models import TimedImages
from nas.vae import VAE
from profiling.environment import threads
from profiling.lane import Lane
from profiling.target.client import reach
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL
from studies.compress.folder import StageFolder, stage_name
from studies.compress.training import Setting, train
from studies.record.compressed import Costs, Stage

CUT = "cut.safetensors"
"""File of the pruned model before it is trained further."""

_SOURCE, _RESULT, _ORIGINAL = "source", "result", "original"


def prune_stage(setting: Setting, narrow: Architecture, norm: Norm, how: str) -> StageFolder:
    """Prune the trial's model and train it further, and its control; return the stage's folder.

    Args:
        setting: What all stages have in common.
        narrow: The architecture to prune to.
        norm: Norm of the weights of a filter.
        how: What was asked for, for the title, such as "50 % of its widths".

    Raises:
        UserError: a training failed, or a file cannot be written.
    """
    model = load_vae(setting.weights)
    folder = StageFolder(setting.study.folder, _stage(setting, model, narrow, norm, how))
    if not folder.begun:
        _begin(setting, folder, prune(model, narrow, norm))
    start = load_vae(folder.path / CUT).state_dict()
    for seed in setting.seeds:
        train(setting, folder, "pruned", setting.training(seed), start)
        total = setting.training(seed, folder.stage.settings["total_epochs"])
        train(setting, folder, "scratch", total)
    return folder


def _stage(setting: Setting, model: VAE, narrow: Architecture, norm: Norm, how: str) -> Stage:
    settings = {
        **setting.common,
        "weights": weights_digest(model.state_dict()),
        "architecture": narrow.digest,
        "norm": norm,
        "total_epochs": len(setting.trial.history) + setting.epochs,
    }
    return Stage(
        kind="prune",
        name=stage_name(setting.trial.number, "prune", settings),
        title=f"{setting.trial.name} pruned to {how}",
        trial=setting.trial.number,
        architecture=narrow,
        settings=settings,
    )


def _begin(setting: Setting, folder: StageFolder, cut: VAE) -> None:
    """Write the pruned model; measure costs and evaluate both models, and record what is found."""
    seed = setting.config.training.seed
    lane = Lane(str(setting.device))
    with full_disk_refused(folder.path), lane.training(), threads(setting.thread_count):
        recalibrate(cut.to(setting.device), setting.dataset, setting.training(seed))
        save_weights(cut, folder.path / CUT)
    source, costs = _costs(setting, folder)
    folder.begin(source, costs, setting.source(), setting.judged(cut, "cut", seed))


def _costs(setting: Setting, folder: StageFolder) -> tuple[Costs, Costs]:
    """Return the costs of the trained model and of the pruned one, measured in the same rounds."""
    narrow, trial, config = folder.stage.architecture, setting.trial, setting.config
    models = {
        _ORIGINAL: ORIGINAL.resized(narrow.image_size, narrow.image_channels),
        _SOURCE: trial.architecture,
        _RESULT: narrow,
    }
    weights = {_SOURCE: setting.weights, _RESULT: folder.path / CUT}
    files = {name: path.absolute() for name, path in weights.items()}
    values = {
        name: static_costs(models[name]) | own_static_costs(models[name], config.wanted)
        for name in weights
    }
    intervals: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in weights}
    over, contended = dict[str, tuple[float, float, float]](), False
    for setup, latency in config.all_setups.items():
        where = reach(address_of(latency.target)) if latency.target else setting.device
        with setting.progress_bar("measuring latency, rounds") as progress:
            found = measure_together(
                models, _ORIGINAL, latency, where, TimedImages.of(setting.dataset), files,
                progress,
            )  # fmt: skip
        anchor_ms, what = setting.anchors_ms.get(setup), latency_in(setup)
        anchor_ms = anchor_ms or found.counted(_ORIGINAL).median_ms
        for name in weights:
            ratio = found.ratio(name)
            low, high = (anchor_ms * bound for bound in ratio.interval)
            values[name][what] = anchor_ms * ratio.median
            intervals[name][what] = low, high
        change = found.ratio(_RESULT, _SOURCE)
        over[what] = change.median, *change.interval
        contended = contended or found.contended
    source = Costs(values=values[_SOURCE], intervals=intervals[_SOURCE], contended=contended)
    return source, Costs(
        values=values[_RESULT], intervals=intervals[_RESULT], over_source=over, contended=contended
    )
