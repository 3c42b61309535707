"""Paint the background, neck, shoulders, clothes and ears."""

from __future__ import annotations

import math

import numpy as np

from nas.faces.canvas import (
    Canvas,
    Plane,
    bell,
    clamp,
    clouds,
    fractal,
    grain,
    lookup,
    smoothstep,
    strands,
    white,
)
from nas.faces.head import Face, diffuse, place, towards, warm
from nas.faces.scene import Scene


def paint_background(canvas: Canvas, scene: Scene) -> None:
    """Fill the canvas with the background, out of focus."""
    back, seed = scene.background, scene.texture_seed
    slope = 0.5 + 0.35 * (canvas.y * math.cos(seed % 6) + canvas.x * math.sin(seed % 6))
    share = clamp(slope + 0.35 * back.detail * clouds(canvas, 3, seed), 0, 1)
    for plane, first, second in zip(canvas.rgb, back.first, back.second, strict=True):
        plane[:] = first + share * (second - first)
    if back.kind == "studio":
        glow = bell((canvas.x - 0.2) ** 2 + canvas.y**2) * (0.35 * back.detail)
        canvas.paint(glow, tuple(min(1.0, channel * 1.7) for channel in back.first))  # type: ignore[arg-type]
    elif back.kind == "blurred":
        _blobs(canvas, scene)
    elif back.kind == "lights":
        canvas.shade(np.full_like(share, 0.55))
        _lights(canvas, scene)
    elif back.kind == "foliage":
        x, y = canvas.x + 0 * canvas.y, canvas.y + 0 * canvas.x
        leaves = lookup(fractal(1.75), y * 62 + seed % 512, x * 62 + seed % 311)
        canvas.paint(smoothstep(leaves, -0.8, 1.6) * 0.8, back.third)
        canvas.shade(smoothstep(leaves, 0.4, -1.4) * 0.75, (1.0, 0.85, 1.0))
        canvas.paint(smoothstep(leaves, 1.0, 2.2) * 0.5 * back.detail, (0.75, 0.8, 0.55))
    else:
        _wall(canvas, scene)


def _blobs(canvas: Canvas, scene: Scene) -> None:
    """Paint large soft shapes, which suggest furniture, people or windows."""
    back = scene.background
    draws = white()[scene.texture_seed % 500]
    for number in range(5):
        cx, cy, rx, ry, level = (float(draws[number * 5 + part]) for part in range(5))
        wide, high = 0.2 + 0.15 * abs(rx), 0.3 + 0.25 * abs(ry)
        box = np.maximum(np.abs(canvas.x - 0.7 * cx) - wide, np.abs(canvas.y - 0.6 * cy) - high)
        colour = back.third if level > 0 else back.second
        canvas.paint(smoothstep(box, 0.09, -0.09) * (0.75 * back.detail), colour)


def _lights(canvas: Canvas, scene: Scene) -> None:
    """Paint lamps out of focus: discs with a brighter rim."""
    back = scene.background
    draws = np.abs(white()[scene.texture_seed % 500])
    signs = np.sign(white()[scene.texture_seed % 500])
    for number in range(9):
        cx, cy, size, level = (float(draws[number * 4 + part]) for part in range(4))
        cx, cy = 0.62 * cx * float(signs[number]), 0.6 * (cy - 0.9)
        radius = 0.05 + 0.06 * min(size, 2)
        part = canvas.crop(cx, cy, radius * 1.2, radius * 1.2)
        distance = np.sqrt((part.x - cx) ** 2 + (part.y - cy) ** 2)
        disc = part.cover(distance - radius) * (0.65 + 0.35 * (distance / radius) ** 4)
        tint = back.third if number % 3 else (1.0, 0.8, 0.5)
        bright = tuple(0.25 + 0.75 * channel for channel in tint)
        part.paint(disc * min(0.2 + 0.35 * level, 0.8), bright)  # type: ignore[arg-type]


def _wall(canvas: Canvas, scene: Scene) -> None:
    """Paint boards or blinds with the texture of plaster."""
    back, seed = scene.background, scene.texture_seed
    along = canvas.x if seed % 2 else canvas.y
    period = 0.16 + 0.3 * ((seed >> 4) % 8) / 8
    phase = along * (1 / period) + (seed % 100) / 100
    joint = np.abs(phase - np.round(phase)) * period
    groove = np.broadcast_to(bell((joint * 45) ** 2), canvas.rgb.shape[1:])
    canvas.shade(np.ascontiguousarray(groove) * (0.55 * back.detail))
    plaster = grain(fractal(1.1), canvas.rgb.shape[1:], seed + 9)
    canvas.shade(clamp(0.07 * plaster, -0.2, 0.4))


def paint_body(face: Face, scene: Scene) -> None:
    """Paint neck and bare shoulders, then the clothes over them."""
    canvas, pose = face.canvas, scene.pose
    rows = canvas.window(0.0, 1.0, 2.0, 1.0 - (pose.y + 0.3))[0]
    part = Canvas(canvas.rgb[:, rows], canvas.x, canvas.y[rows], canvas.pixel)
    x, y = part.x - pose.x * 0.6, part.y + np.zeros_like(part.x)
    side = np.abs(x)
    neck = (0.285 if scene.male else 0.22) + 0.05 * scene.head.fullness
    shoulder = _shoulder_line(side, neck, scene)
    width = neck + 0.02 * np.abs(y - 0.62) + 0.25 * smoothstep(y, 0.72, 1.02) ** 2
    _paint_neck(part, face.distance[rows], scene, x, y, width, shoulder)
    _paint_clothes(part, scene, x, y, neck, shoulder)


def _shoulder_line(side: Plane, neck: float, scene: Scene) -> Plane:
    out = np.maximum(side - neck, 0)
    line: Plane = (
        scene.clothes.shoulder - 0.06 + 0.3 * out + 0.25 * out**3 - 0.05 * bell((out * 9) ** 2)
    )
    return line


def _paint_neck(
    part: Canvas,
    head: Plane,
    scene: Scene,
    x: Plane,
    y: Plane,
    width: Plane,
    shoulder: Plane,
) -> None:
    light, skin = scene.light, scene.skin
    turn = clamp(x / width, -1, 1)
    normal = (turn, np.full_like(turn, 0.1), np.sqrt(np.maximum(1 - turn * turn, 0.02)))
    direct = diffuse(towards(normal, light), 0.3)
    # The chin's shadow falls away from the light.
    drop = head + 0.5 * x * light.direction[0]
    shadow = smoothstep(drop, 0.24, 0.02) * 0.6
    tendon = (
        0.12 * bell(((np.abs(x) - 0.35 * (1.05 - y)) * 16) ** 2) * (not scene.head.fullness > 0.6)
    )
    distance = np.minimum(np.abs(x) - width, shoulder - y)
    alpha = part.cover(distance)
    for channel, plane in enumerate(part.rgb):
        glow = light.key[channel] * direct * (1 - shadow) * (1 - tendon) * 0.9
        glow = glow + light.ambient[channel] * (1 - 0.55 * shadow)
        np.add(plane, alpha * (skin.colour[channel] * glow - plane), out=plane)


def _neckline(scene: Scene, side: Plane, y: Plane, neck: float) -> Plane:
    """Return the signed distance to the upper edge of the clothes."""
    clothes = scene.clothes
    line: Plane
    if clothes.kind == "strap":
        strap = np.maximum(np.abs(side - neck - 0.16) - 0.035, 0.7 - y)
        line = np.minimum(strap, 0.99 - 0.1 * bell((side * 3) ** 2) - y)
    elif clothes.kind == "turtle":
        line = (clothes.shoulder - 0.1 - y) + 0.02 * bell((side * 5) ** 2)
    elif clothes.kind == "crew":
        line = (1 - np.sqrt((side / (neck + 0.06)) ** 2 + ((y - 0.78) / 0.15) ** 2)) * 0.1
    elif clothes.kind == "vneck":
        line = (neck + 0.03 - side) * 0.8 - np.maximum(y - 0.8, 0) * 0.9
    else:
        tip = 0.9 if clothes.kind == "suit" else 0.97
        line = (tip - y) - (tip - 0.8) * side * (1 / neck)
    return line


def _paint_clothes(
    part: Canvas, scene: Scene, x: Plane, y: Plane, neck: float, shoulder: Plane
) -> None:
    clothes, light = scene.clothes, scene.light
    side = np.abs(x)
    line = _neckline(scene, side, y, neck)
    body = np.maximum(shoulder - 0.012 - y, line)
    if clothes.kind == "turtle":
        body = np.minimum(body, np.maximum(line, side - neck - 0.035))
    fold = grain(strands().T, (x.shape[1], x.shape[1]), scene.texture_seed)[: y.shape[0]]
    form = 0.75 + 0.07 * fold + 0.25 * smoothstep(y - shoulder, 0.25, 0.0)
    form = form + 0.3 * light.direction[0] * x
    alpha = part.cover(body)
    pattern = _pattern(scene, x, y)
    planes = []
    for channel in range(3):
        base = clothes.colour[channel]
        worn = base + pattern * (clothes.second[channel] - base)
        planes.append(worn * form * (0.75 * light.key[channel] + light.ambient[channel]))
    part.shade(0.4 * smoothstep(body, 0.05, 0.0) * (1 - alpha))
    part.paint(alpha, np.stack(planes))
    _paint_collar(part, scene, x, y, neck, line, alpha)


def _pattern(scene: Scene, x: Plane, y: Plane) -> Plane:
    kind = scene.clothes.pattern
    if scene.clothes.kind == "suit" or kind == "plain":
        return np.zeros_like(y)
    if kind == "stripes":
        wave = np.sin(y * 75) if scene.texture_seed % 2 else np.sin(x * 70)
        return smoothstep(wave, 0.0, 0.5) * 0.8
    if kind == "checks":
        return 0.35 * (
            smoothstep(np.sin(x * 42), -0.1, 0.3) + smoothstep(np.sin(y * 42), -0.1, 0.3)
        )
    knit: Plane = 0.2 + 0.2 * np.sin(x * 120) * np.sin(y * 100 + 2 * np.cos(x * 120))
    return knit


def _paint_collar(
    part: Canvas, scene: Scene, x: Plane, y: Plane, neck: float, line: Plane, alpha: Plane
) -> None:
    clothes = scene.clothes
    side = np.abs(x)
    level = 0.75 * scene.light.key[1] + scene.light.ambient[1]
    if clothes.kind in ("crew", "turtle", "vneck"):
        hem = bell(((line + 0.035) * (1 / 0.009)) ** 2) * alpha
        part.shade(0.4 * hem)
        return
    if clothes.kind == "strap":
        return
    colour = (0.84, 0.84, 0.87) if clothes.kind == "suit" else clothes.colour
    wing = np.maximum(np.abs(line + 0.035) - 0.035, np.maximum(0.012 - side, side - neck - 0.03))
    if clothes.kind == "suit":
        _paint_suit(part, scene, x, y, line, alpha, level)
    part.paint(part.cover(wing), warm(colour, 1.05 * level))
    part.shade(0.4 * bell((wing * 70) ** 2) * alpha)


def _paint_suit(
    part: Canvas, scene: Scene, x: Plane, y: Plane, line: Plane, alpha: Plane, level: float
) -> None:
    """Paint a white shirt and a tie between the lapels."""
    side = np.abs(x)
    lapel = side - (1.17 - y) * 0.72
    shirt = np.minimum(part.cover(lapel), alpha)
    part.paint(shirt, warm((0.84, 0.84, 0.87), 0.92 * level))
    part.shade(0.5 * bell((lapel * 50) ** 2) * alpha)
    tie = side - np.where(y < 0.985, 0.062 - 0.3 * (y - 0.9), 0.034 + 0.35 * (y - 0.985))
    weave = 0.72 + 0.28 * np.sin((x + y) * 110)
    knot = part.cover(np.maximum(tie, line + 0.004))
    part.paint(knot, np.stack([channel * level * weave for channel in scene.clothes.second]))


def paint_ear(face: Face, scene: Scene, side: float) -> None:
    """Paint one ear; `side` is -1 for the left of the image, 1 for the right."""
    x, y = place(scene, side * scene.head.width * 0.97, 0.08)
    x += side * 0.018
    part = face.canvas.crop(x, y, 0.12, 0.17)
    dx, dy = (part.x - x) * (1 / 0.062), (part.y - y) * (1 / 0.128)
    dx = dx + side * 0.25 * dy
    radius = np.sqrt(dx * dx + dy * dy * (1 + 0.25 * dy))
    alpha = part.cover((radius - 1) * 0.065)
    bowl = bell(((radius - 0.35) * 3.2) ** 2)
    ridge = bell(((radius - 0.8) * 7) ** 2)
    lx = scene.light.direction[0]
    level = 0.72 + 0.3 * side * lx - 0.36 * bowl + 0.14 * ridge
    planes = []
    for channel, red in enumerate((1.08, 0.9, 0.88)):
        glow = scene.light.key[channel] * 0.85 + scene.light.ambient[channel]
        planes.append(scene.skin.colour[channel] * red * level * glow)
    part.paint(alpha, np.stack(planes))
