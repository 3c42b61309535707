"""Paint glasses, hats, earrings and necklaces."""

from __future__ import annotations

import math

import numpy as np

from nas.faces.canvas import Canvas, Plane, bell, clamp, smoothstep
from nas.faces.features import lobe
from nas.faces.head import Face, diffuse, towards, warm
from nas.faces.scene import Glasses, Hat, Scene


def paint_glasses(face: Face, scene: Scene) -> None:
    """Paint frames, lenses, bridge and side pieces."""
    glasses = scene.glasses
    if glasses is None:
        return
    part = face.crop(scene, 0.0, 0.02, 0.62, 0.26)
    canvas = part.canvas
    # They are in front of the face, so they move further than it when the head turns.
    u = part.u - 0.06 * math.sin(scene.pose.yaw)
    v = part.v - 0.015 - 0.05 * math.sin(scene.pose.pitch)
    lens = _lens(glasses, np.abs(u) - 0.022 - glasses.width, v)
    wire = max(glasses.thickness, 1.1 * canvas.pixel)
    frame = np.abs(lens) - 0.5 * wire
    bridge = np.maximum(np.abs(v + 0.045 - 0.25 * u * u) - 0.5 * wire, np.abs(u) - 0.06)
    hinge = np.abs(u) - 0.022 - 1.95 * glasses.width
    temple = np.maximum(np.abs(v + 0.04) - 0.45 * wire, -hinge)
    temple = np.maximum(temple, part.distance - 0.02)
    frame = np.minimum(np.minimum(frame, np.maximum(bridge, -lens)), temple)
    canvas.shade(0.28 * smoothstep(np.roll(frame, max(1, int(0.035 / canvas.pixel)), 0), 0.02, 0.0))
    inside = canvas.cover(lens)
    fade = 1 - 0.06 * smoothstep(v, -0.1, 0.12) * (glasses.tint > 0.5)
    canvas.paint(inside * glasses.tint * fade, (0.012, 0.014, 0.018))
    streak = bell(((u + 1.1 * v - 0.12) * 14) ** 2) + bell(((u + 1.1 * v + 0.22) * 16) ** 2)
    canvas.paint(inside * streak * (0.2 * glasses.glare), (0.9, 0.94, 1.0))
    level = 0.45 + 0.55 * scene.light.key[1]
    gleam = 0.35 * bell(((v + 0.09) * 30) ** 2)
    canvas.paint(
        canvas.cover(frame),
        np.stack([channel * level * (1 + 2 * gleam) + 0.12 * gleam for channel in glasses.colour]),
    )


def _lens(glasses: Glasses, x: Plane, y: Plane) -> Plane:
    """Return the signed distance to the lens; `x` points outwards from its centre."""
    wide, high = glasses.width, glasses.height
    if glasses.shape == "round":
        return (np.sqrt((x / wide) ** 2 + (y / (1.12 * high)) ** 2) - 1) * high
    corner = 0.05
    if glasses.shape == "aviator":
        y = (y - 0.02) * (1 + 0.8 * x)
        corner = 0.085
    elif glasses.shape == "cat":
        y = y + 0.16 * x
        corner = 0.07
    a, b = np.abs(x) - wide + corner, np.abs(y) - high + corner
    outside = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2)
    distance: Plane = outside + np.minimum(np.maximum(a, b), 0) - corner
    return distance


def paint_hat(face: Face, scene: Scene) -> None:
    """Paint the hat over the hair, and its shadow over the forehead."""
    hat = scene.hat
    if hat is None:
        return
    canvas = face.canvas
    x = face.across + 0.05 * math.sin(scene.pose.yaw)
    y = face.down - 0.1 * math.sin(scene.pose.pitch)
    wide = scene.head.width + 0.06 + 0.5 * min(scene.hair.side, 0.1)
    high = scene.head.height + 0.1
    edge = -0.3 + (0.1 if hat.kind == "beanie" else 0.03) * (x / wide) ** 2
    dome = (np.sqrt((x / wide) ** 2 + (np.minimum(y, 0) / high) ** 2) - 1) * wide
    if hat.kind == "brim":
        dome = np.maximum(
            np.abs(x) - wide * (0.93 + 0.1 * (y + 0.3)), -0.98 + 0.05 * bell((x * 7) ** 2) - y
        )
    crown = np.maximum(dome, y - edge)
    forehead = smoothstep(y - edge, 0.16, 0.0) * canvas.cover(face.distance) * (y > edge)
    canvas.shade(0.55 * forehead, (0.85, 0.97, 1.0))
    canvas.paint(canvas.cover(crown), _cloth(scene, hat, x / wide, y / high, x, y))
    if hat.kind == "beanie":
        _fold(canvas, scene, hat, x, y, edge, dome)
    else:
        _band_and_brim(canvas, scene, hat, x, y, edge, dome)


def _cloth(scene: Scene, hat: Hat, nx: Plane, ny: Plane, x: Plane, y: Plane) -> Plane:
    light = scene.light
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.05))
    direct = diffuse(towards((nx, ny, nz), light), 0.3)
    turned = x / np.sqrt(np.maximum(1.02 - ny * ny, 0.1))
    if hat.kind == "beanie":
        weave = 0.8 + 0.2 * np.sin(turned * 95 + 0.8 * np.sin(y * 90)) + 0.08 * np.sin(y * 85)
    elif hat.kind == "cap":
        seams = bell((turned * 60) ** 2) + bell(((np.abs(turned) - 0.34) * 60) ** 2)
        weave = 0.95 - 0.3 * seams + 0.03 * np.sin(x * 160) * np.sin(y * 160)
    else:
        weave = 0.92 + 0.06 * np.sin((x + y) * 120) * np.sin((x - y) * 120)
    return np.stack(
        [
            hat.colour[channel] * weave * (light.key[channel] * direct + light.ambient[channel])
            for channel in range(3)
        ]
    )


def _fold(
    canvas: Canvas, scene: Scene, hat: Hat, x: Plane, y: Plane, edge: Plane, dome: Plane
) -> None:
    """Paint the turned-up rim of a knitted hat."""
    rim = np.maximum(np.maximum(dome - 0.018, y - edge), edge - 0.17 - y)
    ribs = 0.72 + 0.28 * np.sin(x * 85)
    level = (0.8 * scene.light.key[1] + scene.light.ambient[1]) * (
        1 + 0.5 * scene.light.direction[0] * x
    )
    canvas.paint(canvas.cover(rim), np.stack([c * ribs * level for c in hat.band]))
    canvas.shade(0.4 * bell(((y - edge + 0.17) * 55) ** 2) * canvas.cover(dome))


def _band_and_brim(
    canvas: Canvas, scene: Scene, hat: Hat, x: Plane, y: Plane, edge: Plane, dome: Plane
) -> None:
    """Paint a ribbon and a flat rim, or the visor of a cap."""
    yaw, pitch = math.sin(scene.pose.yaw), math.sin(scene.pose.pitch)
    level = 0.8 * scene.light.key[1] + scene.light.ambient[1]
    if hat.kind == "brim":
        ribbon = np.maximum(np.maximum(dome, y + 0.32), -0.47 - y)
        canvas.paint(canvas.cover(ribbon), warm(hat.band, 0.8 * level))
        cx, cy, rx, ry = 0.08 * yaw, -0.31 + 0.2 * pitch, 0.93, 0.115
    else:
        logo = np.maximum(np.abs(x - 0.1 * yaw) - 0.09, np.abs(y + 0.52) - 0.07)
        canvas.paint(canvas.cover(logo) * 0.9, warm(hat.band, level))
        cx, cy, rx, ry = 0.3 * yaw, -0.27 + 0.2 * pitch, 0.47, 0.13
    nx, ny = (x - cx) / rx, (y - cy + 0.09 * ((x - cx) / rx) ** 2 * (hat.kind == "brim")) / ry
    brim = (np.sqrt(nx * nx + ny * ny) - 1) * ry
    if hat.kind == "cap":
        brim = np.maximum(brim, cy - 0.07 + 0.1 * nx * nx - y)
    shade = level * (0.72 - 0.3 * ny)
    canvas.paint(canvas.cover(brim), np.stack([c * shade for c in hat.colour]))
    canvas.shade(0.35 * bell(((brim + 0.012) * 80) ** 2) * (ny > 0))


def paint_jewels(face: Face, scene: Scene) -> None:
    """Paint earrings if the pose shows the lobe, and a necklace."""
    if scene.earrings != "none":
        for side in (-1.0, 1.0):
            if side * scene.pose.yaw < 0.2:
                _earring(face.canvas, scene, side)
    if scene.necklace:
        _necklace(face.canvas, scene)


def _earring(canvas: Canvas, scene: Scene, side: float) -> None:
    x, y = lobe(scene, side)
    part = canvas.crop(x, y + 0.1, 0.12, 0.2)
    dx, dy = part.x - x, part.y - y
    if scene.earrings == "hoop":
        radius = np.sqrt((dx * 1.35) ** 2 + (dy - 0.085) ** 2)
        distance = np.abs(radius - 0.075) - 0.011
    else:
        distance = np.sqrt(dx * dx + dy * dy) - 0.022
    if scene.earrings == "drop":
        pear = np.sqrt((dx * 1.6) ** 2 + (dy - 0.11) ** 2) - 0.045
        wire = np.maximum(np.abs(dx) - 0.006, np.abs(dy - 0.045) - 0.045)
        distance = np.minimum(np.minimum(distance, pear), wire)
    spark = bell(((dx + 0.01) ** 2 + (dy - 0.01) ** 2) * 6000)
    spark = spark + 0.7 * bell(((dx + 0.012) ** 2 + (dy - 0.1) ** 2) * 5000)
    level = 0.35 + 0.5 * scene.light.key[1] + 0.4 * clamp(-dy * 8, -0.6, 1)
    part.shade(0.5 * smoothstep(distance, 0.02, 0.0))
    part.paint(part.cover(distance), np.stack([c * level + spark for c in scene.jewel]))


def _necklace(canvas: Canvas, scene: Scene) -> None:
    part = canvas.crop(scene.pose.x, 0.9, 0.34, 0.14)
    x = part.x - scene.pose.x * 0.6
    chain = part.y - 0.83 - 0.11 * np.sqrt(np.maximum(1 - (x / 0.28) ** 2, 0))
    beads = 0.6 + 0.4 * np.sin(x * 150)
    inside = np.abs(x) < 0.28
    alpha = clamp(0.5 + (0.008 - np.abs(chain)) / part.pixel, 0, 1) * inside
    part.paint(alpha * 0.9, np.stack([c * beads * (0.3 + scene.light.key[1]) for c in scene.jewel]))
