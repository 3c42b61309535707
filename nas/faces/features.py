"""Paint the features of the face: eyes, brows, nostrils, mouth and beard."""

from __future__ import annotations

import math

import numpy as np

from nas.faces.canvas import Plane, bell, clamp, clouds, lookup, smoothstep, strands
from nas.faces.head import Face, nose_axis, place, warm
from nas.faces.scene import Scene

LEFT, RIGHT = -1.0, 1.0


def paint_features(face: Face, scene: Scene) -> None:
    """Paint all features over the skin."""
    _nostrils(face, scene)
    _beard(face, scene)
    _mouth(face, scene)
    _moustache(face, scene)
    for side in (LEFT, RIGHT):
        _eye(face, scene, side)
        _brow(face, scene, side)


def _nostrils(face: Face, scene: Scene) -> None:
    nose = scene.nose
    part = face.crop(scene, 0.0, nose.tip + 0.03, nose.width + 0.12, 0.12)
    u, v = nose_axis(part, scene)
    side = np.abs(u)
    hole = ((side - 0.47 * nose.width) * (1 / (0.27 * nose.width))) ** 2
    lift = v - nose.tip - 0.046 + (side - 0.4 * nose.width) * 0.22
    # The nostrils are visible from below (head looking up) and hidden from above.
    open_to = 0.015 - 0.03 * math.sin(scene.pose.pitch)
    dark = bell(hole * hole + (lift * (1 / max(open_to, 0.006))) ** 2)
    part.canvas.shade(0.82 * dark, (0.85, 0.97, 1.0))
    wing = (side - 0.94 * nose.width) * (1 / 0.013)
    crease = bell(wing * wing + ((v - nose.tip - 0.01) * 26) ** 2)
    part.canvas.shade(0.3 * crease, (0.8, 1.0, 1.0))


def _eye(face: Face, scene: Scene, side: float) -> None:
    eyes, canvas_face = scene.eyes, face
    part = canvas_face.crop(scene, side * eyes.distance, -0.01, 0.19, 0.16)
    canvas = part.canvas
    # Local frame: x from the inner corner (-1) to the outer (1), y in the same unit.
    x = (part.u - side * eyes.distance) * (side / eyes.width)
    y = part.v * (1 / eyes.width) + eyes.tilt * x
    arc = np.maximum(1 - x * x, 0)
    bulge = np.sqrt(arc) * (1 - 0.12 * x)
    upper = -0.62 * eyes.opening * 1.25 * bulge * (0.75 + 0.25 * arc)
    lower = 0.34 * eyes.opening * 1.15 * arc * (1 + 0.25 * x)
    unit = eyes.width
    distance = np.maximum(np.maximum(upper - y, y - lower), np.abs(x) - 1) * unit
    _eyeshadow(part, scene, x, y, upper)
    _lid(part, scene, x, y, upper, lower)
    opening = canvas.cover(distance)
    canvas.paint(opening, _eyeball(scene, side, x, y, upper, canvas.pixel / unit))
    _lashes(part, scene, x, y, upper, lower, unit)


def _eyeball(scene: Scene, side: float, x: Plane, y: Plane, upper: Plane, pixel: float) -> Plane:
    """Return the white, iris, pupil and reflected light of an eye as a `(3, h, w)` picture."""
    eyes, light = scene.eyes, scene.light
    # Most people look at the camera, whatever the direction of the head.
    gaze_x = side * (0.32 * eyes.gaze[0] - 0.5 * math.sin(scene.pose.yaw)) - 0.03
    gaze_y = 0.25 * eyes.gaze[1] - 0.07
    dx, dy = x - gaze_x, y - gaze_y
    radius = np.sqrt(dx * dx + dy * dy)
    size = 0.43 * 0.105 / eyes.width
    iris = clamp(0.5 + (size - radius) / pixel, 0, 1)
    pupil = clamp(0.5 + (0.42 * size - radius) / pixel, 0, 1)
    spokes = lookup(strands(), np.arctan2(dy, dx) * 9 + scene.texture_seed % 97, radius * 20)
    ring = smoothstep(radius, 0.7 * size, size)
    shine = (1 + 0.22 * spokes) * (1 - 0.65 * ring) * (0.85 + 0.7 * clamp(dy / size, -0.6, 1))
    lid = 1 - 0.62 * bell(np.maximum(y - upper, 0) * 7.5) - 0.22 * np.abs(x) ** 3
    glint_x = gaze_x + side * 0.5 * light.direction[0] * size * 1.6
    glint_y = gaze_y + 0.6 * light.direction[1] * size - 0.1 * size
    glint = bell(((x - glint_x) ** 2 + (y - glint_y) ** 2) * (1 / max(0.12, 0.7 * pixel) ** 2))
    veins = 0.5 * bell((x + 1.0) ** 2 * 18)
    level = min(0.85, light.key[1] * 0.7 + light.ambient[1] * 0.5)
    picture = np.empty((3, *x.shape), np.float32)
    for channel, white_level in enumerate((0.80, 0.76, 0.74)):
        plane = white_level * level * (1 - veins * (0.15, 0.45, 0.4)[channel])
        plane += iris * (eyes.iris[channel] * level * 1.25 * shine - plane)
        plane *= (1 - 0.97 * pupil) * lid
        picture[channel] = plane + 0.85 * glint
    return picture


def _eyeshadow(part: Face, scene: Scene, x: Plane, y: Plane, upper: Plane) -> None:
    eyes = scene.eyes
    if eyes.shadow < 0.05:
        return
    above = upper - y
    rise = smoothstep(above, 0.75, 0.1) * smoothstep(above, -0.5, 0.0)
    amount = 0.75 * eyes.shadow * rise * bell((x * 0.85) ** 4)
    tone = 0.4 + 0.6 * scene.light.key[1]
    part.canvas.paint(amount, warm(eyes.shadow_colour, tone))


def _lid(part: Face, scene: Scene, x: Plane, y: Plane, upper: Plane, lower: Plane) -> None:
    """Paint the crease above the eye, the shade of the socket and the edge of the lower lid."""
    eyes, canvas = scene.eyes, part.canvas
    fade = clamp(1.25 - x * x, 0, 1)
    height = 0.2 + 0.14 * (1 - eyes.hood)
    crease = (y - upper * 1.12 + height * (0.75 + 0.25 * fade)) * (1 / 0.07)
    canvas.shade((0.5 - 0.15 * eyes.hood) * bell(crease * crease) * fade, (0.8, 0.97, 1.0))
    rim = (y - lower - 0.05) * (1 / 0.055)
    glow = 0.16 * bell(rim * rim) * fade
    canvas.paint(glow, warm(scene.skin.colour, 0.95))
    under = (y - lower - 0.36) * (1 / 0.12)
    canvas.shade((0.06 + 0.3 * eyes.bags) * bell(under * under) * fade, (0.75, 0.95, 0.85))


def _lashes(
    part: Face, scene: Scene, x: Plane, y: Plane, upper: Plane, lower: Plane, unit: float
) -> None:
    eyes, canvas = scene.eyes, part.canvas
    pixel = canvas.pixel / unit
    inside = clamp((1.06 - np.abs(x)) * 9, 0, 1)
    weight = 0.05 + 0.07 * eyes.liner + 0.04 * eyes.lashes
    line = clamp((weight + pixel * 0.35 - np.abs(y - upper + 0.02)) / pixel, 0, 1) * inside
    outward = clamp(0.45 + 0.55 * x, 0, 1.2)
    hair = lookup(strands(), (x * 1.0 + (upper - y) * 0.35) * 26 + 300, (upper - y) * 20)
    reach = (0.1 + 0.34 * eyes.lashes * outward) * (0.75 + 0.3 * hair)
    above = upper - y
    fan = clamp((reach - above) / pixel, 0, 1) * (above > -0.02)
    fan *= clamp((1.22 - np.abs(x - 0.1)) * 6, 0, 1) * (0.3 + 0.6 * eyes.lashes)
    below = y - lower
    thin = bell(((below - 0.02) * (1 / (0.05 + 0.05 * eyes.liner))) ** 2) * inside
    dark = np.maximum(np.maximum(line * 0.92, fan * 0.8), thin * (0.2 + 0.45 * eyes.liner))
    canvas.paint(dark, (0.012, 0.009, 0.008))


def _brow(face: Face, scene: Scene, side: float) -> None:
    brows, eyes = scene.brows, scene.eyes
    part = face.crop(scene, side * (eyes.distance + 0.01), -brows.height - 0.02, 0.19, 0.13)
    canvas = part.canvas
    span = eyes.width * 1.38
    x = (part.u * side - eyes.distance - 0.008) * (1 / span)
    # The arch peaks two thirds out; the tail falls.
    peak = x - 0.25
    tail = np.maximum(x - 0.3, 0)
    curve = -brows.height - 0.034 * brows.arch * (1 - peak * peak) + 0.05 * tail * tail
    y = part.v - curve - brows.tilt * 0.25 * x
    body = clamp(1.1 - 0.65 * np.maximum(x, 0) ** 2 - 0.1 * x, 0.1, 1.1)
    half = 0.5 * brows.thickness * body
    wisps = lookup(
        strands(), (part.u * side * 150 + part.v * 190) + scene.texture_seed % 499, part.v * 120
    )
    distance = np.maximum(np.abs(y) - half, (np.abs(x) - 0.98) * span) + 0.006 * wisps
    soft = clamp(0.5 - distance / max(canvas.pixel, 0.011), 0, 1)
    amount = soft * brows.density * clamp(0.88 + 0.2 * wisps, 0.35, 1)
    amount *= smoothstep(x, -1.1, -0.55) * 0.6 + 0.4
    canvas.paint(amount, warm(brows.colour, 0.55 + 0.4 * scene.light.key[1]))


def _mouth(face: Face, scene: Scene) -> None:
    mouth = scene.mouth
    part = face.crop(scene, 0.0, mouth.y + 0.01, mouth.width + 0.1, 0.2)
    canvas = part.canvas
    u = part.u - 0.02 * math.sin(scene.pose.yaw)
    x = u * (1 / mouth.width)
    arc = np.maximum(1 - x * x, 0)
    root = np.sqrt(arc)
    # The line between the lips: corners up in a smile.
    middle = mouth.y + 0.012 - 0.05 * (mouth.smile + 0.3) * (x * x - 0.35) + 0.006 * np.cos(x * 5)
    bow = 1 - 0.26 * bell((x * 6.5) ** 2)
    top = middle - mouth.gap * 0.5 * root - mouth.upper * arc**0.75 * bow * (1 + 0.1 * (1 - x * x))
    inner_top = middle - mouth.gap * 0.5 * root
    inner_low = middle + mouth.gap * (0.5 + 0.25 * mouth.smile) * root
    low = inner_low + mouth.lower * root * (0.75 + 0.25 * arc)
    v = part.v
    outside = np.maximum(np.maximum(top - v, v - low), (np.abs(x) - 1) * mouth.width)
    lips = clamp(0.5 - outside / max(canvas.pixel, 0.009), 0, 1)
    canvas.paint(
        lips * (0.86 if mouth.gloss > 0.3 else 0.7),
        _lip_colour(part, scene, x, inner_top, inner_low, top, low),
    )
    if mouth.gap > 0:
        inside = canvas.cover(np.maximum(inner_top - v, v - inner_low)) * (np.abs(x) < 1)
        canvas.paint(inside, _inside(part, scene, x, inner_top, inner_low))
    else:
        seam = bell(((v - middle) * (1 / max(0.0065, 0.55 * canvas.pixel))) ** 2)
        canvas.shade(0.72 * seam * clamp((1.03 - np.abs(x)) * 12, 0, 1), (0.85, 1.0, 1.0))
    corner = ((np.abs(x) - 1.02) * 9) ** 2 + ((v - middle) * 45) ** 2
    canvas.shade(0.42 * bell(corner), (0.8, 1.0, 1.0))


def _lip_colour(
    part: Face, scene: Scene, x: Plane, inner_top: Plane, inner_low: Plane, top: Plane, low: Plane
) -> Plane:
    """Return the shading of the lips: light on the lower, darker upper, fine vertical lines."""
    mouth, light, v = scene.mouth, scene.light, part.v
    rise = clamp((inner_top - v) / np.maximum(inner_top - top, 1e-3), 0, 1)
    fall = clamp((v - inner_low) / np.maximum(low - inner_low, 1e-3), 0, 1)
    below = v > (inner_top + inner_low) * 0.5
    lines = lookup(strands(), x * 60 + scene.texture_seed % 211, v * 160)
    body = np.where(below, 0.78 + 0.75 * fall * (1 - fall) + 0.08 * (1 - fall), 0.62 + 0.2 * rise)
    body *= 1 + 0.07 * lines
    place_x = x - 0.35 * light.direction[0]
    shine = bell((place_x * 2.6) ** 2 + ((fall - 0.38) * 4.2) ** 2) * below
    shine *= (0.05 + 0.3 * mouth.gloss) * (0.8 + 0.3 * lines)
    level = light.key[1] * 0.85 + light.ambient[1]
    return np.stack([channel * level * body + shine * 0.6 for channel in mouth.colour])


def _inside(part: Face, scene: Scene, x: Plane, inner_top: Plane, inner_low: Plane) -> Plane:
    """Return the inside of an open mouth: dark, with a tongue and a row of teeth."""
    v, mouth = part.v, scene.mouth
    depth = clamp((v - inner_top) / np.maximum(inner_low - inner_top, 1e-3), 0, 1)
    tongue = smoothstep(depth, 0.6, 1.0) * 0.16
    dark = np.stack([0.035 + tongue, 0.008 + 0.3 * tongue, 0.008 + 0.3 * tongue])
    if not mouth.teeth:
        return dark
    edge = 0.98 if mouth.smile > 0.4 else 0.55
    row = clamp((edge - depth) * 7, 0, 1) * clamp((0.9 - np.abs(x)) * 5, 0, 1)
    number = x * mouth.width * (1 / 0.038)
    number = number * (1 + 0.18 * np.abs(x))
    gap = np.abs(number - np.round(number))
    gaps = 1 - 0.42 * clamp(1 - gap * 6, 0, 1)
    level = (0.55 + 0.35 * scene.light.key[1]) * (1 - 0.45 * x * x)
    shade = level * gaps * (0.72 + 0.4 * np.minimum(depth * 2.5, 0.7))
    picture: Plane = dark + row * (np.stack([0.86 * shade, 0.82 * shade, 0.76 * shade]) - dark)
    return picture


def _hairs(part: Face, scene: Scene, across: float, along: float) -> Plane:
    """Return the texture of short hairs that grow down and outwards."""
    u, v = part.u, part.v
    row = u * (1 + 0.6 * v) * across + scene.texture_seed % 777
    return lookup(strands(), row, v * along)


def _beard(face: Face, scene: Scene) -> None:
    beard, mouth = scene.beard, scene.mouth
    if max(beard.stubble, beard.goatee, beard.cheeks) < 0.05:
        return
    part = face.crop(scene, 0.0, 0.42, 0.6, 0.42)
    side, v = np.abs(part.u), part.v
    width = scene.head.width
    line = 0.3 - 1.2 * np.maximum(side / width - 0.5, 0) ** 1.5 + 0.1 * bell((side * 6) ** 2)
    jaw = smoothstep(v - line, -0.02, 0.1) + smoothstep(
        side, 0.83 * width, 0.93 * width
    ) * smoothstep(v, -0.02, 0.08)
    jaw = np.minimum(jaw, 1)
    round_mouth = (side * (1 / (mouth.width + 0.01))) ** 2 + ((v - mouth.y - 0.01) * 12) ** 2
    jaw *= smoothstep(round_mouth, 0.6, 1.3)
    chin = smoothstep((side * 5.6) ** 2 + ((v - 0.56) * 6.4) ** 2, 1.35, 0.7)
    ring = smoothstep(np.abs(side - mouth.width * 1.03), 0.045, 0.015) * smoothstep(v, 0.31, 0.4)
    goatee = np.maximum(chin, ring) * smoothstep(round_mouth, 0.6, 1.1)
    hairs = _hairs(part, scene, 260, 260)
    skin = clamp(0.5 - part.distance / part.canvas.pixel, 0, 1)
    patchy = 0.9 + 0.25 * clouds(part.canvas, 14, scene.texture_seed + 3)
    stubble = 0.34 * beard.stubble * jaw * clamp(0.7 + 0.35 * hairs, 0, 1.3)
    thick = np.maximum(beard.cheeks * jaw, beard.goatee * goatee)
    thick = clamp(thick * patchy * (1.05 + 0.3 * hairs), 0, 1)
    amount = np.maximum(stubble, thick * 0.93) * skin
    part.canvas.paint(amount, _beard_colour(part, scene, hairs))


def _beard_colour(part: Face, scene: Scene, hairs: Plane) -> Plane:
    lx, ly, _ = scene.light.direction
    form = 0.55 + 0.45 * clamp(part.normal[2] + lx * part.normal[0], 0, 1.3)
    level = form * (1 + 0.22 * hairs) * (0.35 + 0.7 * scene.light.key[1])
    level = np.maximum(level, 0.1) + 0 * ly
    return np.stack([channel * level for channel in scene.beard.colour])


def _moustache(face: Face, scene: Scene) -> None:
    beard, mouth = scene.beard, scene.mouth
    density = max(beard.moustache, 0.3 * beard.stubble)
    if density < 0.05:
        return
    part = face.crop(scene, 0.0, mouth.y - 0.05, mouth.width + 0.1, 0.12)
    side, v = np.abs(part.u), part.v
    x = side * (1 / (mouth.width * 1.12))
    lip = (
        mouth.y + 0.012 - mouth.upper * 0.8 - 0.5 * mouth.gap - 0.05 * mouth.smile * (x * x - 0.35)
    )
    bottom = lip + 0.014 + 0.035 * x * x
    top = lip - 0.058 + 0.045 * x * x - 0.006 * bell((side * 22) ** 2)
    hairs = _hairs(part, scene, 240, 150)
    distance = np.maximum(np.maximum(top - v, v - bottom), (x - 1) * 0.15) + 0.008 * hairs
    amount = clamp(0.5 - distance / max(part.canvas.pixel, 0.016), 0, 1)
    amount = amount * density * clamp(0.9 + 0.25 * hairs, 0, 1)
    part.canvas.paint(clamp(amount, 0, 0.95), _beard_colour(part, scene, hairs))


def lobe(scene: Scene, side: float) -> tuple[float, float]:
    """Return the position in the image of the lobe of an ear."""
    x, y = place(scene, side * scene.head.width * 0.99, 0.22)
    return x + side * 0.01, y
