"""The sentences and key figures of the page, made from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.references import PUBLISHED
from search_spaces.sizes import Size, size_in_words
from studies.paper.claims import Claim
from studies.paper.results import PaperResults
from studies.paper.table import PUBLISHED_SIZE
from studies.paper.timing import Timing
from studies.record.floor_words import unlearned_note
from studies.record.formats import counted, listed

_PROTOCOL = {"recipe": "paper", "learning_rate": 1e-4, "batch_size": 32, "ssim": "uniform"}
"""The paper's settings of training."""

_SHORT: dict[str, tuple[str, str]] = {
    "parameters": ("has fewer parameters", "has no fewer parameters"),
    "slower-1": ("is slower at batch 1", "is faster at batch 1"),
    "slower-32": ("is slower at batch 32", "is faster at batch 32"),
    "quality": ("reconstructs worse", "reconstructs better"),
    "smoothness": ("has the smoother latent space", "has the rougher latent space"),
    "clusters": ("clusters faces better by attribute", "clusters faces worse by attribute"),
}
"""Part of a sentence for each claim: if it holds, and if the opposite holds."""

PAPER_IMAGES, PAPER_EPOCHS = 20_000, 10


def paper_headline(claims: Sequence[Claim]) -> str:
    """Return one sentence on the decided claims, then the others."""
    decided = [one for one in claims if one.verdict in ("holds", "does not hold")]
    results = _together([*dict.fromkeys(_SHORT[c.key][c.verdict != "holds"] for c in decided)])
    open_points = [_SHORT[one.key][0] for one in claims if one.verdict == "undecided"]
    text = f"Here `modified` {listed(results)}" if results else "No claim is decided"
    if open_points:
        text += f"; whether it {listed(open_points, 'or')} is undecided"
    if unjudged := [_SHORT[one.key][0] for one in claims if one.verdict == "not judged"]:
        text += f"; whether it {listed(unjudged, 'or')} is not judged: a model has not learned"
    return f"{text}."


def _together(results: list[str]) -> list[str]:
    """Join the results of the two batch sizes if they are the same."""
    batches = [one for one in results if one.endswith(("at batch 1", "at batch 32"))]
    if len(batches) < 2 or len({one.split(" at ")[0] for one in batches}) > 1:
        return results
    joined = f"{batches[0]} and 32"
    return [joined if one == batches[0] else one for one in results if one != batches[1]]


def tally(claims: Sequence[Claim]) -> str:
    """Return the counts of verdicts: `4 of 6 statements hold, 1 does not, 1 is undecided`."""
    counts = {v: sum(one.verdict == v for one in claims) for v in ("holds", "does not hold")}
    hold, fail = counts.values()
    undecided = sum(one.verdict == "undecided" for one in claims)
    unjudged = len(claims) - hold - fail - undecided
    parts = [f"{hold} of {len(claims)} statements {'holds' if hold == 1 else 'hold'}"]
    if fail:
        parts.append(f"{fail} {'does' if fail == 1 else 'do'} not")
    if undecided:
        parts.append(f"{undecided} {'is' if undecided == 1 else 'are'} undecided")
    if unjudged:
        parts.append(f"{unjudged} {'is' if unjudged == 1 else 'are'} not judged")
    return ", ".join(parts)


def caveats(config: Mapping[str, Any], images: int, size: Size, epochs: int) -> list[str]:
    """List how the run differs from the paper's protocol; empty if it does not.

    Args:
        config: Configuration of the study.
        images: Number of images of all parts.
        size: Size of the images in pixels.
        epochs: Maximum number of epochs.
    """
    found = []
    if config["data"]["kind"] != "celeba":
        what = "rendered faces" if config["data"]["kind"] == "faces" else "images of a folder"
        found.append(f"{what} instead of CelebA")
    if images < PAPER_IMAGES:
        found.append(f"{images:,} images instead of {PAPER_IMAGES:,}")
    if epochs < PAPER_EPOCHS:
        found.append(f"{epochs} {'epoch' if epochs == 1 else 'epochs'} instead of {PAPER_EPOCHS}")
    if size != PUBLISHED_SIZE:
        found.append(f"{size_in_words(size)} px instead of {PUBLISHED_SIZE} px")
    training = config["training"]
    for key, value in _PROTOCOL.items():
        if training[key] != value:
            found.append(f"{key.replace('_', ' ')} {training[key]} instead of {value}")
    if training.get("flip"):
        found.append("images flipped at random")
    return found


def paper_notes(results: PaperResults) -> list[str]:
    """Return the notes at the top of the page."""
    study = results.study
    counts = study.environment["images"]
    images = sum(counts[part] for part in ("train", "validation", "test"))
    short = caveats(study.config, images, study.image_size, study.config["training"]["epochs"])
    texts = []
    if short:
        texts.append(
            f"This is not the paper's protocol: {listed(short)}. Losses and latents cannot be "
            "compared with the published ones; the two models can be compared with each other."
        )
    texts += filter(None, [unlearned_note(study)])
    busy = [timing for timing in results.timings if timing.contention]
    if busy:
        signs = "; ".join(f"batch {one.batch}: {', '.join(one.contention)}" for one in busy)
        texts.append(f"The machine was busy during timing, which may bias the ratio ({signs}).")
    texts.append("Each model was trained once: the intervals are over test images, not over seeds.")
    return texts


def paper_tiles(results: PaperResults, claims: Sequence[Claim]) -> list[dict[str, str]]:
    """Return the key results at the top: `modified` against `original`."""
    by_key = {one.key: one for one in claims}
    tints = {1: "better3", -1: "worse3", 0: ""}
    rows = [("parameters", f"{by_key['parameters'].found.split(' at ')[0]} parameters", 1)]
    rows += [_time_tile(timing) for timing in results.timings]
    for key, title, good in (
        ("quality", "reconstruction", -1),
        ("smoothness", "smoothness", 1),
        ("clusters", "clusters", 1),
    ):
        if key in by_key:
            verdict = by_key[key].verdict
            sign = {"holds": good, "does not hold": -good}.get(verdict, 0)
            found = ("no clear difference", "better", "worse")[sign]
            if verdict == "not judged":
                found = verdict
            rows.append((key, f"{title}: {found}", sign))
    return [
        {"change": text, "tint": tints[sign], "published": by_key[key].published}
        for key, text, sign in rows
    ]


def _time_tile(timing: Timing) -> tuple[str, str, int]:
    middle, low, high = timing.slower
    sign = int(high < 1) - int(low > 1)
    return f"slower-{timing.batch}", f"{middle:.2f}x the time at batch {timing.batch}", sign


def paper_facts(results: PaperResults) -> list[tuple[str, str]]:
    """Return devices, images and training settings as (label, value)."""
    study, timing = results.study, results.timings[0]
    counts, training = study.environment["images"], study.config["training"]
    parts = " / ".join(f"{counts[part]:,}" for part in ("train", "validation", "test"))
    epochs = ", ".join(f"{len(t.history)} ({t.name})" for t in study.references.values())
    return [
        ("Trained on", study.environment["device_name"]),
        ("Timed on", f"{timing.device_name}, {counted(timing.threads, 'thread')}"),
        ("Published on", "Tesla T4"),
        ("Images", f"{study.config['data']['kind']}, {size_in_words(study.image_size)} px"),
        ("Train / validation / test", parts),
        ("Epochs", epochs),
        ("Recipe", f"{training['recipe']}, learning rate {training['learning_rate']:g}, "
         f"batch {training['batch_size']}"),
        ("Loss", f"(1 - SSIM, {training['ssim']}) + {training['l1_weight']:g} L1 + "
         f"{training['kl_weight']:g} KL"),
    ]  # fmt: skip


def published_final() -> str:
    """Return the published validation losses after the last epoch as a phrase."""
    return " and ".join(f"{one.losses[-1][1]:.4f} ({name})" for name, one in PUBLISHED.items())
