"""Draw a random scene from a seed and an index.

The frequencies roughly follow CelebA. Rare attributes (glasses, hats, bald heads) are slightly more
frequent, so that a few thousand images contain enough of each.
"""

from __future__ import annotations

import math

from nas.faces.dice import FABRIC, SCENERY, Dice, mix, rgb, scaled
from nas.faces.person import (
    draw_beard,
    draw_brows,
    draw_eyes,
    draw_hair,
    draw_head,
    draw_mouth,
    draw_nose,
    draw_skin,
)
from nas.faces.scene import (
    Background,
    Camera,
    Clothes,
    Glasses,
    Hat,
    HatKind,
    Light,
    Pose,
    Scene,
    Surroundings,
)


def sample_scene(seed: int, index: int) -> Scene:
    """Draw the scene of image `index` of population `seed`; it does not depend on other indices."""
    dice = Dice(seed, index)
    male = dice.chance(0.45)
    age = dice.between(0.0, 0.62) if dice.chance(0.75) else dice.between(0.5, 1.0)
    tone = min(max(dice.between(-0.08, 0.62) + (0.38 if dice.chance(0.18) else 0.0), 0.0), 1.0)
    head = draw_head(dice, male)
    skin = draw_skin(dice, male, age, tone)
    made_up = not male and dice.chance(0.62)
    makeup = dice.between(0.4, 1.0) if made_up else 0.0
    hat = _hat(dice) if dice.chance(0.07) else None
    hair = draw_hair(dice, male, age, tone, hat)
    mouth = draw_mouth(dice, male, tone, skin, makeup)
    return Scene(
        male=male,
        age=age,
        pose=_pose(dice),
        head=head,
        skin=skin,
        eyes=draw_eyes(dice, male, age, tone, makeup, mouth),
        brows=draw_brows(dice, male, age, hair),
        nose=draw_nose(dice, male, tone),
        mouth=mouth,
        hair=hair,
        beard=draw_beard(dice, male, hair),
        glasses=_glasses(dice) if dice.chance(0.13) else None,
        hat=hat,
        earrings=dice.pick(("stud", "hoop", "drop")) if _rings(dice, male) else "none",
        jewel=dice.pick((rgb(235, 200, 110), rgb(225, 228, 235), rgb(90, 170, 160))),
        necklace=not male and dice.chance(0.18),
        clothes=_clothes(dice, male),
        background=_background(dice),
        light=_light(dice),
        camera=_camera(dice),
        texture_seed=int(dice.between(0, 2**31)),
    )


def _rings(dice: Dice, male: bool) -> bool:
    return dice.chance(0.03 if male else 0.36)


def _pose(dice: Dice) -> Pose:
    yaw = dice.around(0.0, 0.18)
    return Pose(
        x=dice.around(0.0, 0.025) - 0.05 * yaw,
        y=dice.around(0.075, 0.025),
        scale=dice.around(1.13, 0.04),
        yaw=yaw,
        pitch=dice.around(0.0, 0.09),
        roll=dice.around(0.0, 0.07),
    )


def _glasses(dice: Dice) -> Glasses:
    frames = (
        rgb(26, 24, 26),
        rgb(70, 42, 28),
        rgb(150, 150, 156),
        rgb(190, 150, 80),
        rgb(120, 30, 40),
    )
    dark = dice.chance(0.25)
    return Glasses(
        shape=dice.pick(("round", "square", "aviator", "cat")),
        colour=dice.pick(frames),
        thickness=dice.between(0.008, 0.024),
        width=dice.between(0.136, 0.16),
        height=dice.between(0.1, 0.135),
        tint=dice.between(0.96, 0.995) if dark else dice.between(0.02, 0.14),
        glare=dice.between(0.1, 1.0),
    )


def _hat(dice: Dice) -> Hat:
    kinds: tuple[HatKind, ...] = ("beanie", "cap", "brim")
    return Hat(dice.pick(kinds), scaled(dice.pick(FABRIC), 0.8), dice.pick(FABRIC))


def _clothes(dice: Dice, male: bool) -> Clothes:
    weights = (0.3, 0.12, 0.24, 0.26, 0.08, 0.0) if male else (0.26, 0.24, 0.12, 0.02, 0.1, 0.26)
    return Clothes(
        kind=dice.pick(("crew", "vneck", "shirt", "suit", "turtle", "strap"), weights),
        colour=scaled(dice.pick(FABRIC), dice.between(0.6, 1.1)),
        second=dice.pick(FABRIC),
        pattern=dice.pick(("plain", "stripes", "checks", "knit"), (0.5, 0.16, 0.14, 0.2)),
        shoulder=dice.around(0.86, 0.03),
    )


def _background(dice: Dice) -> Background:
    kinds: tuple[Surroundings, ...] = ("studio", "blurred", "lights", "foliage", "wall")
    base = scaled(dice.pick(SCENERY), dice.between(0.35, 1.2))
    return Background(
        kind=dice.pick(kinds, (0.26, 0.28, 0.16, 0.15, 0.15)),
        first=base,
        second=mix(base, dice.pick(SCENERY), dice.between(0.2, 0.7)),
        third=mix(base, dice.pick(FABRIC), dice.between(0.3, 0.8)),
        detail=dice.between(0.3, 1.0),
    )


def _light(dice: Dice) -> Light:
    across, up = dice.around(0.0, 0.6, 1.8), dice.between(0.25, 0.85)
    length = math.sqrt(across**2 + up**2 + 1)
    warmth = dice.around(0.0, 0.06)
    strength, fill = dice.between(0.6, 0.85), dice.between(0.14, 0.3)
    return Light(
        direction=(across / length, -up / length, 1 / length),
        key=(strength * (1 + warmth), strength, strength * (1 - 1.4 * warmth)),
        ambient=(fill * (1 - warmth / 2), fill, fill * (1 + warmth)),
        rim=dice.between(0.3, 1.0) if dice.chance(0.3) else 0.0,
    )


def _camera(dice: Dice) -> Camera:
    return Camera(
        blur=dice.between(0.014, 0.028) if dice.chance(0.05) else 0.0,
        noise=dice.between(0.003, 0.014),
        exposure=dice.around(1.0, 0.1),
        contrast=dice.between(0.0, 0.5),
        saturation=dice.between(0.82, 1.08),
        vignette=dice.between(0.0, 0.35),
    )
