"""The paper's page: one HTML file that opens without a network, and its figures as PNG."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from studies.pages.page import embedded, render, safe_json, write_page
from studies.paper import strips
from studies.paper.attributes import DEFAULT_ATTRIBUTES, STRENGTHS
from studies.paper.claims import (
    Claim,
    Compared,
    claims,
    compare_clusters,
    compare_quality,
    compare_smoothness,
)
from studies.paper.clusters import accuracies
from studies.paper.curves import paper_curve_figure, paper_curve_table
from studies.paper.embedding import attribute_letters, embedding_figure
from studies.paper.results import PaperResults
from studies.paper.smoothness import MEASURES
from studies.paper.table import table_1
from studies.paper.words import (
    paper_facts,
    paper_headline,
    paper_notes,
    paper_tiles,
    published_final,
    tally,
)
from studies.record.floor_words import fitted_words, floor_values

if TYPE_CHECKING:
    from studies.pages.page import Panel

_QUALITY_TITLES = {
    "total": ("Total loss", "lower"),
    "reconstruction": ("Reconstruction loss", "lower"),
    "ssim": ("SSIM", "higher"),
    "l1": ("L1", "lower"),
    "kl": ("KL, nats", ""),
}


def write_paper(results: PaperResults, path: Path | None = None) -> Path:
    """Write the page and return its path, `<study>/paper.html` by default.

    Raises:
        UserError: the page cannot be written.
    """
    found = claims(results)
    figures = {panel.key: embedded(panel) for panel in paper_panels(results)}
    context = {
        "study": results.study,
        "headline": paper_headline(found),
        "tally": tally(found),
        "notes": paper_notes(results),
        "tiles": paper_tiles(results, found),
        "facts": paper_facts(results),
        "claims": [_claim_row(one) for one in found],
        "table": table_1(_architectures(results), results.timings),
        "timings": results.timings,
        "figures": figures,
        "clouds": [value for key, value in figures.items() if key.startswith("tsne-")],
        "colours": safe_json(json.dumps(colours(results))),
        "first_colour": first_colour(results),
        "colour_names": list(colours(results)),
        "quality": [_quality_row(results, one) for one in compare_quality(results)],
        "floor_heads": list(floors_on_test(results, "total")),
        "fitted": fitted_words(results.study),
        "smoothness": [_smoothness_row(one) for one in compare_smoothness(results)],
        "votes": compare_clusters(results),
        "clusters": cluster_rows(results),
        "samples": strips.sample_sheet(results),
        "reconstructions": strips.reconstruction_sheet(results),
        "traversals": strips.traversal_sheets(results),
        "attributes": strips.attribute_sheets(results),
        "shares": share_rows(results),
        "strengths": [f"{s:+g}" if s else "0" for s in STRENGTHS],
        "interpolations": strips.interpolation_sheet(results),
        "published_final": published_final(),
        "config": yaml.safe_dump(dict(results.study.config), sort_keys=False),
        "environment": json.dumps(dict(results.study.environment), indent=1),
    }
    return write_page(path or results.study.folder / "paper.html", render("paper.html", context))


def write_paper_pngs(results: PaperResults) -> list[Path]:
    """Write every figure and sheet of images as PNG beside the page; return the paths.

    Raises:
        UserError: no browser was found for drawing, or the folder cannot be written.
    """
    from studies.pages.pngs import draw_panels

    folder = results.study.folder / "paper-figures"
    sheets = [
        strips.sample_sheet(results),
        strips.reconstruction_sheet(results),
        strips.interpolation_sheet(results),
    ]
    sheets += strips.traversal_sheets(results) + strips.attribute_sheets(results)
    written = strips.write_sheets(sheets, folder)
    return written + draw_panels(paper_panels(results), folder)


def paper_panels(results: PaperResults) -> list[Panel]:
    """Return the figures: the loss curves, then the t-SNE of each model."""
    from studies.pages.page import Panel

    curves = paper_curve_figure(
        paper_curve_table(results.study), results.study.environment["device_name"]
    )
    first = first_colour(results)
    shown = colours(results)[first] if first else None
    clouds = [
        Panel(
            f"tsne-{name}", embedding_figure(f"{name}, t-SNE", one.places, shown, first or ""), ""
        )
        for name, one in results.models.items()
    ]
    return [Panel("paper-curves", curves, ""), *clouds]


def colours(results: PaperResults) -> dict[str, str]:
    """Return for each attribute which test images have it, in the form of `attribute_letters`."""
    columns = zip(results.judged, results.labels.T, strict=True)
    return {name: attribute_letters(labels) for name, labels in columns}


def first_colour(results: PaperResults) -> str | None:
    """Return the attribute shown first: a requested one, a default one, or any."""
    wanted = [*results.options.attributes, "Male", *DEFAULT_ATTRIBUTES, *results.judged]
    return next((name for name in wanted if name in results.judged), None)


def cluster_rows(results: PaperResults) -> list[dict[str, Any]]:
    """Return each attribute's share of images, accuracies of neighbours and silhouettes."""
    if not results.judged:
        return []
    votes = {
        name: accuracies(m.scores["seen"], results.labels) for name, m in results.models.items()
    }
    pixels = accuracies(results.pixels, results.labels)
    return [
        {
            "name": name.replace("_", " "),
            "share": f"{100 * results.labels[:, column].mean():.0f} %",
            "votes": [float(one[column]) for one in votes.values()],
            "pixels": float(pixels[column]),
            "silhouettes": [float(m.scores["silhouette"][column]) for m in results.models.values()],
        }
        for column, name in enumerate(results.judged)
    ]


def share_rows(results: PaperResults) -> list[dict[str, Any]]:
    """Return for each attribute and model how often the probe finds the attribute, by strength."""
    return [
        {
            "attribute": attribute.replace("_", " "),
            "model": name,
            "probe": f"{one.manipulated[attribute]['balanced'][0]:.2f}",
            "shares": [f"{100 * share:.0f} %" for share in one.manipulated[attribute]["share"]],
        }
        for attribute in next(iter(results.models.values())).manipulated
        for name, one in results.models.items()
    ]


def _architectures(results: PaperResults) -> dict[str, Any]:
    return {name: trial.architecture for name, trial in results.study.references.items()}


def _claim_row(claim: Claim) -> dict[str, str]:
    kinds = {"holds": "holds", "does not hold": "fails", "undecided": "open", "not judged": "open"}
    texts = {"statement": claim.statement, "published": claim.published, "found": claim.found}
    return {**texts, "verdict": claim.verdict, "kind": kinds[claim.verdict]}


def floors_on_test(results: PaperResults, name: str) -> dict[str, float]:
    """Return a term of the loss of the mean image and of PCA on the test images, by label."""
    study = results.study
    on_test = replace(study, floors=study.floors and study.floors.on("test"))
    return floor_values(on_test, study.references.values(), name)


def _quality_row(results: PaperResults, one: Compared) -> dict[str, Any]:
    title, better = _QUALITY_TITLES[one.name]
    row = _compared_row(one, title, f"{better} is better" if better else "")
    values = floors_on_test(results, one.name)
    labels = floors_on_test(results, "total")
    texts = [f"{values[label]:.4f}" if values else "-" for label in labels]
    return {**row, "floors": texts}


def _smoothness_row(one: Compared) -> dict[str, str]:
    return _compared_row(one, *MEASURES[one.name])


def _compared_row(one: Compared, title: str, meaning: str) -> dict[str, str]:
    digits = 2 if one.name == "kl" else 4
    value, low, high = one.difference
    measured = math.isfinite(value)
    return {
        "title": title,
        "meaning": meaning,
        "original": _mean_and_deviation(one.original, digits),
        "modified": _mean_and_deviation(one.modified, digits),
        "difference": f"{value:+.{digits}f}" if measured else "-",
        "interval": f"95 %: {low:+.{digits}f} to {high:+.{digits}f}" if measured else "",
    }


def _mean_and_deviation(values: tuple[float, float], digits: int) -> str:
    """Return `mean ± deviation`, or a dash if nothing was measured, as between equal faces."""
    mean, deviation = values
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}" if math.isfinite(mean) else "-"
