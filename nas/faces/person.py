"""Draw random parameters of a person: head, skin, features, hair and beard."""

from __future__ import annotations

from nas.faces.dice import (
    HAIR_BROWN,
    HAIR_DARK,
    HAIR_FAIR,
    HAIR_RED,
    IRIS_DARK,
    IRIS_LIGHT,
    SKIN,
    Dice,
    mix,
    rgb,
    scaled,
)
from nas.faces.scene import (
    Beard,
    Brows,
    Colour,
    Eyes,
    Hair,
    HairStyle,
    Hat,
    HeadShape,
    Mouth,
    Nose,
    Skin,
    luminance,
)


def draw_head(dice: Dice, male: bool) -> HeadShape:
    """Draw the shape of the head."""
    fullness = dice.between(0.0, 1.0) ** 1.6
    return HeadShape(
        width=dice.around(0.458, 0.014) + 0.04 * fullness,
        height=dice.around(0.665 if male else 0.65, 0.016),
        jaw=min(max(dice.around(0.62 if male else 0.3, 0.18), 0.0), 1.0),
        taper=dice.around(0.3 if male else 0.4, 0.04) - 0.1 * fullness,
        fullness=fullness,
    )


def draw_skin(dice: Dice, male: bool, age: float, tone: float) -> Skin:
    """Draw colour and surface of the skin; `tone` ranges from pale (0) to dark (1)."""
    place = tone * (len(SKIN) - 1)
    low = min(int(place), len(SKIN) - 2)
    colour = mix(SKIN[low], SKIN[low + 1], place - low)
    tint = dice.around(0.0, 0.04)
    colour = (colour[0] * (1 + tint), colour[1], colour[2] * (1 - tint))
    return Skin(
        colour=scaled(colour, dice.between(0.88, 1.04)),
        blush=dice.between(0.05, 0.4) if male else dice.between(0.1, 0.95),
        oil=dice.between(0.15, 0.8),
        freckles=dice.between(0.3, 1.0) if tone < 0.35 and dice.chance(0.2) else 0.0,
        lines=max(0.0, age - 0.25) * dice.between(0.7, 1.3),
        contour=0.0 if male else dice.between(0.0, 0.6),
    )


def draw_eyes(dice: Dice, male: bool, age: float, tone: float, makeup: float, mouth: Mouth) -> Eyes:
    """Draw the eyes; a smile narrows them."""
    light = dice.chance(0.62 if tone < 0.3 else 0.08)
    colour = dice.pick(IRIS_LIGHT if light else IRIS_DARK)
    opening = dice.around(0.52 if male else 0.6, 0.08) - 0.1 * max(mouth.smile, 0) - 0.05 * age
    shades = (
        rgb(120, 78, 62),
        rgb(92, 70, 84),
        rgb(70, 66, 72),
        rgb(140, 96, 84),
        rgb(80, 96, 120),
    )
    return Eyes(
        distance=dice.around(0.197, 0.008),
        width=dice.around(0.1 if male else 0.107, 0.006),
        opening=max(opening, 0.2),
        tilt=dice.around(0.05, 0.05),
        iris=scaled(colour, dice.between(0.75, 1.25)),
        gaze=(dice.around(0.0, 0.25), dice.around(0.0, 0.1)),
        lashes=dice.between(0.15, 0.4) if male else dice.between(0.4, 0.7) + 0.5 * makeup,
        shadow=makeup * dice.between(0.3, 1.0),
        shadow_colour=dice.pick(shades),
        liner=makeup * dice.between(0.3, 1.0),
        bags=min(1.0, max(0.0, dice.around(0.15, 0.15) + 0.6 * age * male + 0.4 * age)),
        hood=min(1.0, max(0.0, dice.around(0.3, 0.2) + 0.3 * age)),
    )


def draw_brows(dice: Dice, male: bool, age: float, hair: Hair) -> Brows:
    """Draw the eyebrows, with a colour close to that of the hair."""
    dark = mix(hair.colour, rgb(48, 34, 26), 0.55 if luminance(hair.colour) > 0.1 else 0.25)
    grey = mix(dark, rgb(120, 116, 112), 0.7 * hair.grey * age)
    return Brows(
        height=dice.around(0.105 if male else 0.125, 0.012),
        thickness=max(0.016, dice.around(0.04 if male else 0.027, 0.008)),
        arch=min(max(dice.around(0.3 if male else 0.6, 0.22), 0.0), 1.0),
        tilt=dice.around(0.0, 0.06),
        density=dice.between(0.75, 1.0),
        colour=grey,
    )


def draw_nose(dice: Dice, male: bool, tone: float) -> Nose:
    """Draw the nose."""
    return Nose(
        width=dice.around(0.088 if male else 0.078, 0.009) + 0.02 * tone,
        tip=dice.around(0.255 if male else 0.245, 0.014),
        relief=dice.around(1.0, 0.15),
    )


def draw_mouth(dice: Dice, male: bool, tone: float, skin: Skin, makeup: float) -> Mouth:
    """Draw lips and expression."""
    smile = dice.between(0.4, 1.0) if dice.chance(0.5) else dice.between(-0.12, 0.3)
    apart = dice.chance(0.72 if smile > 0.4 else 0.18)
    natural = mix(skin.colour, rgb(150, 52, 56), dice.between(0.4, 0.6))
    sticks = (
        rgb(176, 24, 40),
        rgb(200, 60, 84),
        rgb(150, 50, 62),
        rgb(214, 106, 110),
        rgb(112, 24, 44),
    )
    painted = makeup > 0 and dice.chance(0.85)
    return Mouth(
        y=dice.around(0.405, 0.012),
        width=dice.around(0.14 if male else 0.132, 0.009) * (1 + 0.2 * max(smile, 0)),
        upper=max(0.02, dice.around(0.032 if male else 0.04, 0.006) + 0.012 * tone)
        * (1 - 0.3 * max(smile, 0)),
        lower=max(0.03, dice.around(0.046 if male else 0.054, 0.007) + 0.012 * tone)
        * (1 - 0.15 * max(smile, 0)),
        smile=smile,
        gap=dice.between(0.018, 0.066) if apart else 0.0,
        teeth=apart and dice.chance(0.92 if smile > 0.4 else 0.5),
        colour=mix(natural, dice.pick(sticks), 0.75) if painted else natural,
        gloss=dice.between(0.35, 1.0) if painted else 0.12,
    )


def _hair_colour(dice: Dice, tone: float) -> Colour:
    if tone > 0.5 and dice.chance(0.92):
        return scaled(dice.pick(HAIR_DARK), dice.between(0.7, 1.1))
    palette = dice.pick((HAIR_DARK, HAIR_BROWN, HAIR_FAIR, HAIR_RED), (0.3, 0.42, 0.22, 0.06))
    return scaled(dice.pick(palette), dice.between(0.8, 1.2))


def _hair_style(dice: Dice, male: bool, age: float, tone: float) -> HairStyle:
    afro = 0.35 if tone > 0.6 else 0.05
    if male:
        bald = 0.04 + 0.14 * age
        styles: tuple[HairStyle, ...] = ("bald", "buzz", "short", "swept", "bob", "afro")
        return dice.pick(styles, (bald, 0.12, 0.42, 0.36, 0.06, afro * 0.5))
    styles = ("buzz", "short", "bob", "long", "updo", "afro")
    return dice.pick(styles, (0.01, 0.05 + 0.15 * age, 0.2, 0.52, 0.17, afro))


def draw_hair(dice: Dice, male: bool, age: float, tone: float, hat: Hat | None) -> Hair:
    """Draw cut and colour of the hair, which is flat below a hat."""
    style = _hair_style(dice, male, age, tone)
    low, high = {
        "bald": (0.0, 0.0),
        "buzz": (0.012, 0.03),
        "short": (0.06, 0.12),
        "swept": (0.07, 0.15),
        "bob": (0.06, 0.12),
        "long": (0.05, 0.12),
        "updo": (0.03, 0.07),
        "afro": (0.14, 0.3),
    }[style]
    top = dice.between(low, high)
    if hat is not None:
        top = min(top, 0.04)
    side_of = {"bald": 0.0, "buzz": 0.012, "short": 0.03, "swept": 0.028, "updo": 0.022}
    side = side_of.get(style, 0.0) or dice.between(0.06, 0.15)
    lengths = {"bob": (0.42, 0.8), "long": (0.85, 1.5), "afro": (0.3, 0.55)}
    loose = style in ("bob", "long", "afro")
    curly = style == "afro" or (loose and dice.chance(0.12))
    fringe = (
        dice.between(0.6, 1.0) if dice.chance(0.15 if male else 0.3) else dice.between(0.0, 0.3)
    )
    return Hair(
        style=style,
        colour=_hair_colour(dice, tone),
        grey=dice.between(0.55, 1.0) if dice.chance(max(0.0, age - 0.45) * 1.3) else 0.3 * age**2,
        top=top,
        side=0.0 if style == "bald" else (top * 0.85 if style == "afro" else side),
        length=dice.between(*lengths[style]) if style in lengths else dice.between(0.02, 0.12),
        hairline=dice.around(-0.43, 0.02),
        recede=min(1.0, max(0.0, dice.around(0.1, 0.12) + (0.6 * age if male else 0.0))),
        part=dice.between(-0.22, 0.22) if dice.chance(0.7) else dice.around(0.0, 0.02),
        fringe=fringe if style in ("short", "bob", "long") else 0.0,
        opening=dice.between(0.8, 0.98),
        wave=dice.between(0.5, 1.0) if dice.chance(0.42) else dice.between(0.0, 0.2),
        curl=dice.between(0.6, 1.0) if curly else 0.0,
        streaks=dice.between(0.0, 1.0),
        shine=dice.between(0.2, 1.0),
    )


def draw_beard(dice: Dice, male: bool, hair: Hair) -> Beard:
    """Draw the beard, if any."""
    kind = dice.pick(
        ("none", "stubble", "moustache", "goatee", "full"), (0.48, 0.2, 0.05, 0.1, 0.17)
    )
    dark = mix(hair.colour, rgb(50, 34, 26), 0.4)
    colour = mix(dark, rgb(150, 146, 142), 0.8 * hair.grey)
    if not male or kind == "none":
        return Beard(dice.between(0.0, 0.2) * male, 0.0, 0.0, 0.0, colour)
    dense = dice.between(0.6, 1.0)
    return Beard(
        stubble=dense if kind == "stubble" else dice.between(0.0, 0.2),
        moustache=dense if kind in ("moustache", "goatee", "full") else 0.0,
        goatee=dense if kind in ("goatee", "full") else 0.0,
        cheeks=dense if kind == "full" else 0.0,
        colour=colour,
    )
