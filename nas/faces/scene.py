"""The scene of a rendered portrait.

Lengths are in units of half the image side, y points down, angles are radians, colours are linear
light in [0, 1]. A scene does not depend on pixels, so images of any size show the same person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Pose:
    """Position and direction of the head; yaw > 0 is to the right of the image, pitch > 0 down."""

    x: float
    y: float
    scale: float
    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True)
class HeadShape:
    """Shape of the head: half width and height, squareness of jaw, taper of chin, fullness."""

    width: float
    height: float
    jaw: float
    taper: float
    fullness: float


@dataclass(frozen=True)
class Skin:
    """Colour and surface of the skin; all values except `colour` are in [0, 1]."""

    colour: Colour
    blush: float
    oil: float
    freckles: float
    lines: float
    contour: float


@dataclass(frozen=True)
class Eyes:
    """Both eyes; `opening` is lid distance over eye width, `shadow` and `liner` are make-up."""

    distance: float
    width: float
    opening: float
    tilt: float
    iris: Colour
    gaze: tuple[float, float]
    lashes: float
    shadow: float
    shadow_colour: Colour
    liner: float
    bags: float
    hood: float


@dataclass(frozen=True)
class Brows:
    """Height above the eyes, thickness, arch (0 straight, 1 strongly arched)."""

    height: float
    thickness: float
    arch: float
    tilt: float
    density: float
    colour: Colour


@dataclass(frozen=True)
class Nose:
    """Half width of the wings, position of the tip below the eyes, height of the relief."""

    width: float
    tip: float
    relief: float


@dataclass(frozen=True)
class Mouth:
    """Lips and expression; `smile` is in [-0.3, 1], `gap` is the distance between the lips."""

    y: float
    width: float
    upper: float
    lower: float
    smile: float
    gap: float
    teeth: bool
    colour: Colour
    gloss: float


HairStyle = Literal["bald", "buzz", "short", "swept", "bob", "long", "updo", "afro"]


@dataclass(frozen=True)
class Hair:
    """Cut and colour; `top` and `side` are volumes over the skull, `length` is the ends' y."""

    style: HairStyle
    colour: Colour
    grey: float
    top: float
    side: float
    length: float
    hairline: float
    recede: float
    part: float
    fringe: float
    opening: float
    wave: float
    curl: float
    streaks: float
    shine: float


@dataclass(frozen=True)
class Beard:
    """Density of each region of the beard in [0, 1], and its colour."""

    stubble: float
    moustache: float
    goatee: float
    cheeks: float
    colour: Colour


@dataclass(frozen=True)
class Glasses:
    """Frames; `tint` is the opacity of the lenses (above one half: sunglasses)."""

    shape: Literal["round", "square", "aviator", "cat"]
    colour: Colour
    thickness: float
    width: float
    height: float
    tint: float
    glare: float


HatKind = Literal["beanie", "cap", "brim"]


@dataclass(frozen=True)
class Hat:
    """Headwear and its colours."""

    kind: HatKind
    colour: Colour
    band: Colour


@dataclass(frozen=True)
class Clothes:
    """Clothes at the bottom of the image."""

    kind: Literal["crew", "vneck", "shirt", "suit", "turtle", "strap"]
    colour: Colour
    second: Colour
    pattern: Literal["plain", "stripes", "checks", "knit"]
    shoulder: float


Surroundings = Literal["studio", "blurred", "lights", "foliage", "wall"]


@dataclass(frozen=True)
class Background:
    """The background; `detail` scales its contrast."""

    kind: Surroundings
    first: Colour
    second: Colour
    third: Colour
    detail: float


@dataclass(frozen=True)
class Light:
    """A key light (unit vector towards it, colour), the ambient light and the rim light."""

    direction: tuple[float, float, float]
    key: Colour
    ambient: Colour
    rim: float


@dataclass(frozen=True)
class Camera:
    """Camera settings; `blur` is a standard deviation in half sides, `noise` in pixel values."""

    blur: float
    noise: float
    exposure: float
    contrast: float
    saturation: float
    vignette: float


@dataclass(frozen=True)
class Scene:
    """All parameters of one image; `texture_seed` selects the fine textures."""

    male: bool
    age: float
    pose: Pose
    head: HeadShape
    skin: Skin
    eyes: Eyes
    brows: Brows
    nose: Nose
    mouth: Mouth
    hair: Hair
    beard: Beard
    glasses: Glasses | None
    hat: Hat | None
    earrings: Literal["none", "stud", "hoop", "drop"]
    jewel: Colour
    necklace: bool
    clothes: Clothes
    background: Background
    light: Light
    camera: Camera
    texture_seed: int


def luminance(colour: Colour) -> float:
    """Return the relative luminance of a linear colour (Rec. 709 weights)."""
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
