"""Load the pictures of a folder: choose, decode, split, and say what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nas.datasets import arrays, tables
from nas.datasets.archives import ENDINGS, is_archive, unpacked
from nas.datasets.choosing import (
    PARTS,
    Split,
    in_words,
    random_order,
    random_split,
    split_by_group,
    split_by_part,
)
from nas.datasets.dataset import (
    DataConfig,
    ImageDataset,
    ImageIndices,
    fingerprint_of,
    require_enough,
)
from nas.datasets.decoding import Shape, quiet_decoders
from nas.datasets.duplicates import Duplicates, find_duplicates, hashes_of
from nas.datasets.labels import NO_LABELS, Labels, Table, class_labels, groups_of
from nas.datasets.listing import layout_of, list_pictures
from nas.datasets.reading import ReadImages, first_of, read_images
from nas.datasets.sources import Files, Source
from profiling.progress import Progress
from search_spaces.errors import UserError
from search_spaces.sizes import Size, sides

_FITS = {
    "squash": "squashed to {} pixels, without their proportions",
    "crop": "cropped to the central part, at {} pixels",
    "pad": "fitted into {} pixels with white borders",
}


@dataclass(frozen=True)
class Choice:
    """The pictures of a source, which of them are used, and what is known about them.

    Attributes:
        name: Kind of the data set.
        source: The pictures.
        order: All row numbers of the source in the order in which pictures are taken.
        count: Number of pictures to take.
        how: How they are chosen, in words.
        classes: The class of each picture, or empty texts.
        labels: The attributes of each picture.
        parts: The part of each picture and what states it, in words, if one is stated.
        groups: The group of each picture and what states it, if groups are asked for.
        of: Number of pictures that there are, if the source has fewer.
        beside: Names of folders that keep `train/` and `test/` from stating parts.
    """

    name: str
    source: Source
    order: ImageIndices
    count: int
    how: str
    classes: Sequence[str]
    labels: Labels = NO_LABELS
    parts: tuple[Sequence[str], str] | None = None
    groups: tuple[Sequence[str], str] | None = None
    of: int = 0
    beside: Sequence[str] = ()

    @property
    def found(self) -> int:
        """Number of pictures that there are."""
        return self.of or len(self.source.names)


def load_folder(
    config: DataConfig, image_size: Size, channels: int, progress: Progress | None
) -> ImageDataset:
    """Load the pictures below `config.path`, or a random sample of `config.count` of them.

    The sample has the same share of every class folder.

    Raises:
        UserError: the folder is missing, or has fewer than 10 images or too many unreadable ones.
    """
    return load_choice(choose_in_folder(config), config, image_size, channels, progress)


def choose_in_folder(config: DataConfig) -> Choice:
    """List the pictures below `config.path` and choose those that are used.

    Raises:
        UserError: the folder is missing or has fewer than 10 pictures.
    """
    path = existing_source(config)
    if path.suffix.lower() in arrays.ENDINGS:
        return _choose_in_array(path, config)
    listing = list_pictures(pictures_folder(path))
    if not listing.names and path.is_dir() and tables.tables_in(path):
        listing = list_pictures(tables.unpacked_tables(path))
    require_enough(len(listing.names), str(path), listing.held)
    layout, table = layout_of(listing.names), None
    if config.labels is not None:
        table = Table(config.labels.expanduser(), listing.names)
    groups = groups_of(config, listing.names, table)
    stated = bool(layout.parts) and config.split in (None, "folders") and groups is None
    if config.split == "folders" and not stated:
        raise UserError(f"data.split: {path} has no folders train/ and test/, or train/ and val/")
    by = "the folders " + ", ".join(f"{name}/" for name in layout.tops)
    strata = zip(layout.classes, layout.parts or layout.classes, strict=True)
    return Choice(
        name="folder",
        source=Files(listing.root, listing.names, str(path)),
        order=random_order(list(strata), config.seed),
        count=min(config.count or len(listing.names), len(listing.names)),
        how=f"at random, seed {config.seed}",
        classes=layout.classes,
        labels=table.labels() if table else class_labels(layout.classes),
        parts=(layout.parts, by) if stated else None,
        groups=groups,
        beside=layout.beside if config.split is None else (),
    )


def _choose_in_array(path: Path, config: DataConfig) -> Choice:
    source, classes = arrays.read_arrays(path)
    require_enough(len(source.names), str(path))
    for name in ("group", "labels"):
        if getattr(config, name) is not None:
            raise UserError(f"data.{name}: the images of {path} have no names")
    if config.split == "folders":
        raise UserError(f"data.split: {path} has no folders to split by")
    return Choice(
        name="folder",
        source=source,
        order=random_order(list(classes), config.seed),
        count=min(config.count or len(source.names), len(source.names)),
        how=f"at random, seed {config.seed}",
        classes=classes,
        labels=class_labels(classes),
    )


def pictures_folder(path: Path) -> Path:
    """Return a folder, or that in the cache to which an archive or a table is unpacked."""
    if path.is_dir():
        return path
    return tables.unpacked_tables(path) if tables.is_table(path) else unpacked(path)


def is_packed(config: DataConfig) -> bool:
    """Return whether pictures are unpacked into the cache before they can be listed.

    Raises:
        UserError: the folder or file does not exist.
    """
    path = existing_source(config)
    if path.is_dir():
        return bool(tables.tables_in(path)) and not list_pictures(path).names
    return path.suffix.lower() not in arrays.ENDINGS


def existing_source(config: DataConfig) -> Path:
    """Return the folder, archive, table or array file of `config.path`.

    Raises:
        UserError: it does not exist, or `~` has no meaning.
    """
    assert config.path is not None
    try:
        root = config.path.expanduser()
        known = root.suffix.lower() in (*arrays.ENDINGS, *tables.ENDINGS) or is_archive(root)
        found = root.is_dir() or (root.is_file() and known)
    except RuntimeError:  # a user without a home folder, or no such user
        raise UserError(f"path: {str(config.path)!r} is in no known home folder") from None
    except OSError as error:  # a name that is too long
        raise UserError(f"path: {str(config.path)!r} cannot be read ({error.strerror})") from None
    if not found:
        lacks = "is not a folder" if root.exists() else "does not exist"
        raise UserError(
            f"path: {str(root)!r} {lacks}; give the folder of the images, an archive "
            f"({', '.join(ENDINGS)}), a table ({', '.join(tables.ENDINGS)}) or an array "
            f"({', '.join(arrays.ENDINGS)})"
        )
    return root


def load_choice(
    choice: Choice, config: DataConfig, image_size: Size, channels: int, progress: Progress | None
) -> ImageDataset:
    """Decode the chosen pictures and split them.

    Raises:
        UserError: fewer than 10 are readable, too many are unreadable, or the split is impossible.
    """
    shape = shape_of(choice, config, image_size, channels)
    read = read_images(
        choice.source, shape, choice.order, choice.count, config.max_unreadable, progress
    )
    split, dropped = _split(choice, read, config)
    parts = {part: getattr(split, part) for part in PARTS}
    stated = {} if split.paper else {part: rows.tolist() for part, rows in parts.items()}
    return ImageDataset(
        name=choice.name,
        images=read.images,
        attribute_names=choice.labels.names,
        attributes=choice.labels.of(read.rows),
        **parts,
        skipped=read.skipped,
        fingerprint=fingerprint_of(pixels=read.digest, split_seed=config.split_seed, **stated),
        found=choice.found,
        digest=read.digest,
        unreadable=read.unreadable,
        about=tuple(_about(choice, read, shape, split.words, dropped)),
    )


def shape_of(choice: Choice, config: DataConfig, image_size: Size, channels: int) -> Shape:
    """Return what the pictures of a choice are converted to."""
    with quiet_decoders():
        bits = config.grey_bits or choice.source.bits()
    return Shape(image_size, channels, config.fitting, bits)


def fit_in_words(shape: Shape) -> str:
    """Say what height and width pictures get, and how."""
    height, width = sides(shape.size)
    return _FITS[shape.fit].format(f"{height} x {width}")


def chosen_in_words(choice: Choice, rows: ImageIndices) -> str:
    """Say how many of how many pictures are used, by class."""
    used = [choice.classes[row] for row in rows]
    return in_words(len(rows), choice.found, used, choice.classes, choice.how)


def split_of(choice: Choice, rows: ImageIndices, config: DataConfig) -> Split:
    """Return the split of some rows of a choice, as positions in `rows`.

    Raises:
        UserError: a part would have no image.
    """
    if choice.parts is not None:
        parts, by = choice.parts
        return split_by_part([parts[row] for row in rows], config.split_seed, by)
    if choice.groups is not None:
        groups, by = choice.groups
        return split_by_group([groups[row] for row in rows], config.split_seed, by)
    split = random_split(len(rows), config.split_seed)
    if not choice.beside:
        return split
    listed = ", ".join(f"{name}/" if name else "no folder" for name in choice.beside[:3])
    why = f"; not by the folders train/, test/, ..., since other images are beside them: {listed}"
    return replace(split, words=split.words + why)


def planned_split(choice: Choice, rows: ImageIndices, config: DataConfig) -> str:
    """Say how some rows of a choice are split, and how many each part has, by class."""
    try:
        split = split_of(choice, rows, config)
    except UserError as error:
        return f"a study would stop: {error}"
    texts = []
    for part in PARTS:
        members = rows[getattr(split, part)]
        classes = Counter(choice.classes[row] for row in members)
        listed = ", ".join(f"{name or 'no folder'} {n:,}" for name, n in classes.most_common(8))
        more = ", ..." if len(classes) > 8 else ""
        by_class = f" ({listed}{more})" if len(classes) > 1 else ""
        texts.append(f"{part} {len(members):,}{by_class}")
    return f"{split.words}: {'; '.join(texts)}"


def _split(choice: Choice, read: ReadImages, config: DataConfig) -> tuple[Split, Duplicates | None]:
    """Return the split, without duplicates where these are dropped, and which were dropped."""
    split = split_of(choice, read.rows, config)
    if config.duplicates == "keep" and choice.parts is None:
        return split, None
    hashes = hashes_of(read.images, read.digest)
    found = find_duplicates(hashes, split.train, split.validation, split.test)
    if config.duplicates == "keep":
        _refuse_shared(choice, read, found)
        return split, None
    return _without(split, found), found


def _refuse_shared(choice: Choice, read: ReadImages, found: Duplicates) -> None:
    """Refuse parts that a folder states if they share pictures: the losses would mean nothing."""
    shared = np.concatenate(list(found.exact.values()))
    if len(shared) and choice.name == "folder":
        names = [choice.source.names[row] for row in read.rows[shared]]
        raise UserError(
            f"{choice.source.where}: {len(shared)} held-out images have the pixels of an image of "
            f"another part ({first_of(names)}); remove them, or leave them out by --set "
            "data.duplicates=drop"
        )


def _without(split: Split, found: Duplicates) -> Split:
    kept = {}
    for part in found.exact:
        rows: ImageIndices = getattr(split, part)
        kept[part] = rows[~np.isin(rows, np.r_[found.exact[part], found.near[part]])]
    for part, rows in kept.items():
        if not len(rows):
            raise UserError(f"data.duplicates: without duplicates no image is left for {part}")
    return replace(split, validation=kept["validation"], test=kept["test"], paper=False)


def _about(
    choice: Choice, read: ReadImages, shape: Shape, split: str, dropped: Duplicates | None
) -> list[str]:
    """Return sentences about the choice, the shape and the split."""
    texts = [
        chosen_in_words(choice, read.rows),
        fit_in_words(shape),
        split,
    ]
    if dropped is not None:
        texts.append(f"left out: {dropped.words or 'no duplicates'}")
    if read.skipped:
        texts.append(f"{len(read.skipped):,} unreadable: {first_of(read.skipped)}")
    if read.enlarged:
        texts.append(f"{read.enlarged:,} enlarged, because they are smaller")
    if read.grey and shape.channels == 3:
        texts.append("all grey: with image_channels 1 they take a third of the memory")
    return texts
