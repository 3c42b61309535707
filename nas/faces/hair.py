"""Hair: a volume around the skull, an opening for the face, and strands in its direction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nas.faces.canvas import Plane, bell, clamp, clouds, lookup, smoothstep, strands, white
from nas.faces.head import Face, diffuse, towards
from nas.faces.scene import Hair, Scene

LOOSE = ("bob", "long", "afro")
ACROSS, LENGTHWAYS = 150.0, 70.0  # texels of strand texture per half image side


@dataclass(frozen=True)
class HairMap:
    """The hair on the canvas.

    Attributes:
        outer: Signed distance to the outline of the hair, negative inside.
        opening: Signed distance to the opening for the face, negative inside.
        texture: Texture of the strands, with mean 0 and standard deviation about 1.
        colour: Colour of each pixel, `(3, h, w)`.
    """

    outer: Plane
    opening: Plane
    texture: Plane
    colour: Plane


def map_hair(face: Face, scene: Scene) -> HairMap | None:
    """Compute the hair over the whole canvas; None for a bald head."""
    if scene.hair.style == "bald":
        return None
    across = face.across + 0.07 * math.sin(scene.pose.yaw)
    texture = _texture(across, face.down, scene)
    outer = _outer(face, across, texture, scene)
    opening = _opening(face, texture, scene)
    return HairMap(outer, opening, texture, _colour(face, across, texture, scene))


def paint_hair_behind(face: Face, hair: HairMap, scene: Scene) -> None:
    """Paint the hair behind the neck, in shade."""
    if scene.hair.style in LOOSE:
        alpha = face.canvas.cover(hair.outer)
        face.canvas.paint(alpha, hair.colour * (0.35 + 0.2 * scene.light.ambient[1]))


def paint_hair_shadow(face: Face, hair: HairMap, scene: Scene) -> None:
    """Darken the skin next to the hair."""
    depth = np.minimum(hair.opening, 0)
    strength = 0.2 if scene.hair.style in ("buzz", "updo") else 0.42
    shade = strength * np.exp(depth * 22) * face.canvas.cover(face.distance)
    face.canvas.shade(shade, (0.86, 0.98, 1.0))


def paint_hair_before(face: Face, hair: HairMap, scene: Scene) -> None:
    """Paint the hair on the head and in front of the shoulders."""
    canvas = face.canvas
    soft = {"buzz": 0.05, "short": 0.024, "swept": 0.03, "updo": 0.03}.get(scene.hair.style, 0.014)
    edge = clamp(0.5 + (hair.opening + soft * 0.5) / max(soft, canvas.pixel), 0, 1)
    alpha = canvas.cover(hair.outer) * edge
    if scene.hair.style == "buzz":
        alpha = alpha * clamp(0.72 + 0.14 * hair.texture, 0, 0.92)
    canvas.paint(alpha, hair.colour)


def _outer(face: Face, across: Plane, texture: Plane, scene: Scene) -> Plane:
    hair, head = scene.hair, scene.head
    wide, high = head.width + hair.side, head.height + hair.top
    down = face.down
    if hair.style == "afro":
        lumps = 0.035 * clouds(face.canvas, 26, scene.texture_seed) + 0.006 * texture
        radius = np.sqrt((across / wide) ** 2 + ((down + 0.08) / (high - 0.02)) ** 2)
        ball: Plane = np.maximum((radius - 1) * (0.85 * wide), down - hair.length) + lumps
        return ball
    below = np.maximum(down, 0)
    sway = 0.03 * hair.wave * np.sin(down * 13 + scene.texture_seed % 7) * np.minimum(below * 3, 1)
    flare = {"bob": 0.18, "long": 0.1}.get(hair.style, -0.1)
    wide_here = wide * (1 + flare * below * (1.4 - below))
    up = np.minimum(down, 0) * (1 / high)
    nx2, ny2 = ((across + sway) / wide_here) ** 2, up * up
    # Wider than an ellipse, because hair stands out from the upper sides of the skull.
    radius = np.sqrt(nx2 + ny2 - 0.36 * np.minimum(nx2, 1) * ny2)
    wisps = 0.003 + 0.005 * hair.wave + (0.004 if hair.style in ("short", "swept") else 0)
    outer = (radius - 1) * (0.9 * wide) + wisps * texture
    ends = down - hair.length + 0.02 * texture
    if hair.style == "updo":
        outer = np.minimum(outer, _bun(face, across, scene))
    cut: Plane = np.maximum(outer, ends)
    return cut


def _bun(face: Face, across: Plane, scene: Scene) -> Plane:
    hair, head = scene.hair, scene.head
    if hair.top < 0.045:
        return np.full_like(across, 1.0)
    size = 0.13 + hair.top
    centre = -head.height - hair.top - 0.3 * size
    bun: Plane = np.hypot(across - 0.2 * hair.part, face.down - centre) - size
    return bun


def _opening(face: Face, texture: Plane, scene: Scene) -> Plane:
    """Return the signed distance to the part of the head that is free of hair."""
    hair, width = scene.hair, scene.head.width
    u, v = face.u, face.v
    side = np.abs(u)
    temples = hair.recede * (0.1 * bell(((side - 0.24) * 9) ** 2) + 0.05)
    if hair.fringe > 0.5:
        low = -0.2 - 0.12 * (1 - hair.fringe)
        top = low + hair.part * 0.35 * u - 0.05 * bell(((u - hair.part) * 9) ** 2)
        top = top + 0.014 * texture
    else:
        spread = {"long": 1.25, "bob": 1.15}.get(hair.style, 0.3)
        away = np.abs(u - hair.part * (1.0 if hair.style in LOOSE else 0.4))
        top = hair.hairline - temples + spread * away * np.sqrt(away + 0.02)
        top = top + 0.008 * texture
    if hair.style in LOOSE and hair.style != "afro":
        half = width * (hair.opening - 0.16 * smoothstep(v, 0.05, 0.5))
        half = half + 0.008 * texture + 0.02 * hair.wave * np.sin(v * 15 + scene.texture_seed % 5)
    else:
        half = width * (0.93 + 0.02 * texture)
    corner = 0.12
    a, b = top - v + corner, side - half + corner
    outside = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2)
    opening: Plane = outside + np.minimum(np.maximum(a, b), 0) - corner
    return opening


def _texture(across: Plane, down: Plane, scene: Scene) -> Plane:
    """Return the noise of strands in the direction of the hair."""
    hair, seed = scene.hair, scene.texture_seed
    high = scene.head.height + hair.top
    if hair.curl > 0.3:
        return _curls(across, down, hair, seed)
    if hair.style == "buzz":
        return lookup(white(), across * 90 + seed % 300, down * 90 + 400)
    if hair.style in ("swept", "updo"):
        s = np.arctan2(across - 0.4 * hair.part, 0.25 - down) * 0.6
        t = np.hypot(across, down)
    else:
        crown = 0.04 if hair.style in LOOSE else 0.45
        fall = np.sqrt(clamp((down + high) * 1.5 + crown, 0.06, 1.6))
        s = (across - hair.part * 0.8) / fall
        t = down + 0.3 * np.abs(s)
    waves = hair.wave * np.sin(t * 17 + 3 * np.sin(s * 7 + seed % 11)) * 0.028
    s = s + waves * smoothstep(t, -0.7, 0.1)
    return lookup(strands(), s * ACROSS + seed % 1000, t * LENGTHWAYS + seed % 200 + 512)


def _curls(across: Plane, down: Plane, hair: Hair, seed: int) -> Plane:
    tight = 24 + 26 * hair.curl if hair.style == "afro" else 16.0
    x, y = across * tight + seed % 50, down * tight
    s = x + 1.1 * np.sin(y + 1.7 * np.sin(x * 0.7))
    t = y + 1.1 * np.sin(x * 1.1 + 1.3 * np.sin(y * 0.6))
    rings = np.sin(s) * np.sin(t)
    noise = lookup(strands(), s * 5 + seed % 400, t * 5 + 600)
    curls: Plane = 0.75 * rings + 0.7 * noise
    return curls


def _colour(face: Face, across: Plane, texture: Plane, scene: Scene) -> Plane:
    hair, light = scene.hair, scene.light
    wide, high = scene.head.width + hair.side, scene.head.height + hair.top
    nx = clamp(across * (1 / wide), -1, 1)
    ny = clamp(face.down * (1 / high), -1, 0.25)
    nz = np.sqrt(np.maximum(1.05 - nx * nx - ny * ny, 0.02))
    direct = diffuse(towards((nx, ny, nz), light), 0.35)
    contrast = 0.2 + 0.1 * hair.streaks
    strand = 1 + contrast * clamp(texture, -1.6, 2.4)
    rooted = 0.74 + 0.26 * smoothstep(face.down, -high, 0.5 * high)
    form = strand * rooted
    # Hair is shiny in a band where its strands bend towards the light.
    bend = -0.46 + 0.1 * (nx - light.direction[0]) ** 2 + 0.035 * texture
    band = bell(((face.down * (1 / high) - bend) * 8.5) ** 2) * clamp(1 + 0.45 * texture, 0, 2)
    lower = bell(((face.down - 0.4) * 5) ** 2) * clamp(0.6 + 0.6 * texture, 0, 2) * nz
    shine = hair.shine * (0.07 * band + 0.025 * lower)
    grey = clamp(hair.grey * 1.15 + 0.3 * hair.grey * texture, 0, 1)
    bright = clamp(0.15 * hair.streaks * (texture - 0.6), 0, 0.35)
    picture = np.empty((3, *texture.shape), np.float32)
    for channel, (base, silver) in enumerate(zip(hair.colour, (0.46, 0.45, 0.45), strict=True)):
        strands_colour = base + grey * (silver - base)
        strands_colour = strands_colour * (1 + bright * (1.4, 1.2, 0.9)[channel])
        glow = light.key[channel] * direct + light.ambient[channel] * 0.8
        gleam = shine * light.key[channel] * direct * (0.6 + 2.2 * base)
        picture[channel] = strands_colour * form * glow + gleam
    return picture
