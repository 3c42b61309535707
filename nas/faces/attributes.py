"""The binary attributes of a rendered portrait, with CelebA's names."""

from __future__ import annotations

from collections.abc import Callable

from nas.faces.scene import Scene, luminance


def _has_hair(scene: Scene) -> bool:
    return scene.hair.style != "bald"


def _fair(scene: Scene) -> bool:
    """Return whether the hair is blond: light, and more yellow than grey."""
    return luminance(scene.hair.colour) > 0.2 and scene.hair.colour[0] > 1.7 * scene.hair.colour[2]


def _coloured(scene: Scene) -> bool:
    return _has_hair(scene) and scene.hair.grey <= 0.5


def _black(scene: Scene) -> bool:
    return _coloured(scene) and luminance(scene.hair.colour) < 0.016


def _blond(scene: Scene) -> bool:
    return _coloured(scene) and _fair(scene)


def _no_beard(scene: Scene) -> bool:
    beard = scene.beard
    return max(beard.moustache, beard.goatee, beard.cheeks, beard.stubble) < 0.25


ATTRIBUTES: dict[str, Callable[[Scene], bool]] = {
    "Arched_Eyebrows": lambda s: s.brows.arch > 0.6,
    "Bags_Under_Eyes": lambda s: s.eyes.bags > 0.55,
    "Bald": lambda s: s.hair.style == "bald",
    "Bangs": lambda s: _has_hair(s) and s.hair.fringe > 0.5 and s.hat is None,
    "Big_Lips": lambda s: s.mouth.upper + s.mouth.lower > 0.115,
    "Big_Nose": lambda s: s.nose.width > 0.103,
    "Black_Hair": _black,
    "Blond_Hair": _blond,
    "Blurry": lambda s: s.camera.blur > 0.01,
    "Brown_Hair": lambda s: _coloured(s) and not _black(s) and not _blond(s),
    "Bushy_Eyebrows": lambda s: s.brows.thickness > 0.046,
    "Chubby": lambda s: s.head.fullness > 0.7,
    "Double_Chin": lambda s: s.head.fullness > 0.8,
    "Eyeglasses": lambda s: s.glasses is not None,
    "Goatee": lambda s: s.beard.goatee > 0.5,
    "Gray_Hair": lambda s: _has_hair(s) and s.hair.grey > 0.5,
    "Heavy_Makeup": lambda s: s.eyes.shadow > 0.45 and s.mouth.gloss > 0.3,
    "Male": lambda s: s.male,
    "Mouth_Slightly_Open": lambda s: s.mouth.gap > 0.01,
    "Mustache": lambda s: s.beard.moustache > 0.5,
    "Narrow_Eyes": lambda s: s.eyes.opening < 0.4,
    "No_Beard": _no_beard,
    "Oval_Face": lambda s: s.head.height / s.head.width > 1.36 and s.head.jaw < 0.5,
    "Pale_Skin": lambda s: luminance(s.skin.colour) > 0.55,
    "Receding_Hairline": lambda s: _has_hair(s) and s.hair.recede > 0.5,
    "Rosy_Cheeks": lambda s: s.skin.blush > 0.6,
    "Sideburns": lambda s: s.beard.cheeks > 0.5,
    "Smiling": lambda s: s.mouth.smile > 0.35,
    "Straight_Hair": lambda s: _has_hair(s) and s.hair.wave < 0.2 and s.hair.curl < 0.3,
    "Wavy_Hair": lambda s: _has_hair(s) and s.hair.wave >= 0.5 and s.hair.curl < 0.6,
    "Wearing_Earrings": lambda s: s.earrings != "none",
    "Wearing_Hat": lambda s: s.hat is not None,
    "Wearing_Lipstick": lambda s: s.mouth.gloss > 0.3,
    "Wearing_Necklace": lambda s: s.necklace,
    "Wearing_Necktie": lambda s: s.clothes.kind == "suit",
    "Young": lambda s: s.age < 0.5,
}
"""For each of CelebA's names, a function that derives the attribute from the scene."""

ATTRIBUTE_NAMES = tuple(ATTRIBUTES)


def attributes_of(scene: Scene) -> tuple[bool, ...]:
    """Return the attributes of a scene in the order of `ATTRIBUTE_NAMES`."""
    return tuple(bool(decide(scene)) for decide in ATTRIBUTES.values())
