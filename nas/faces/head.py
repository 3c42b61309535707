"""The head: its outline, rotation, relief and lighting.

The head is a sphere stretched to the outline of the face. A pixel is mapped to a direction on the
sphere, the rotation of the pose is undone, and every feature is drawn in the coordinates `u`, `v`
of the face seen from the front, so features rotate, shorten and bend with the head. Relief is a
height over this surface; its slopes tilt the normals used for lighting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nas.faces.canvas import Canvas, Plane, bell, clamp, clouds, fractal, grain, smoothstep, white
from nas.faces.scene import Colour, HeadShape, Light, Pose, Scene

LEAN = 0.16  # distance of the jaw in front of the centre of the head


@dataclass(frozen=True)
class Face:
    """The head on a canvas; every plane is `(h, w)`.

    Attributes:
        canvas: The part of the image that the head can cover.
        across: Horizontal position in the upright frame of the head, before yaw and pitch.
        down: Vertical position in the same frame, 0 at the height of the eyes.
        distance: Signed distance to the outline of the head, negative inside.
        u: Horizontal position on the face seen from the front.
        v: Vertical position on the face seen from the front, 0 at the eyes.
        normal: Components of the normal of the bare head, towards right, down and the viewer.
    """

    canvas: Canvas
    across: Plane
    down: Plane
    distance: Plane
    u: Plane
    v: Plane
    normal: tuple[Plane, Plane, Plane]

    def crop(self, scene: Scene, u: float, v: float, half_width: float, half_height: float) -> Face:
        """Return the part of the face around `(u, v)`."""
        x, y = place(scene, u, v)
        scale = scene.pose.scale
        return self.part(x, y, half_width * scale, half_height * scale)

    def part(self, x: float, y: float, half_width: float, half_height: float) -> Face:
        """Return the part around the position `(x, y)` of the image."""
        rows, columns = part = self.canvas.window(x, y, half_width, half_height)
        canvas = self.canvas
        cropped = Canvas(
            canvas.rgb[:, rows, columns], canvas.x[:, columns], canvas.y[rows], canvas.pixel
        )
        across, down = self.across[part], self.down[part]
        normal = (self.normal[0][part], self.normal[1][part], self.normal[2][part])
        return Face(cropped, across, down, self.distance[part], self.u[part], self.v[part], normal)


def upright(canvas: Canvas, pose: Pose) -> tuple[Plane, Plane]:
    """Return the coordinates of the canvas in the frame of the head: without shift, scale, roll."""
    cosine, sine = math.cos(pose.roll) / pose.scale, math.sin(pose.roll) / pose.scale
    x, y = canvas.x - pose.x, canvas.y - pose.y
    return x * cosine + y * sine, y * cosine - x * sine


def place(scene: Scene, u: float, v: float, depth: float = 0.0) -> tuple[float, float]:
    """Return the position in the image of the face point `(u, v)`, `depth` above the surface."""
    head, pose = scene.head, scene.pose
    nu, nv = u / head.width, v / head.height
    nz = math.sqrt(max(1 - nu * nu - nv * nv, 0.0)) + depth / head.width
    nv, nz = (
        nv * math.cos(pose.pitch) + nz * math.sin(pose.pitch),
        nz * math.cos(pose.pitch) - nv * math.sin(pose.pitch),
    )
    nx = nu * math.cos(pose.yaw) + nz * math.sin(pose.yaw)
    across = nx * head.width * _taper(head, nv) + _lean(scene, nv)
    down = nv * head.height
    cosine, sine = math.cos(pose.roll) * pose.scale, math.sin(pose.roll) * pose.scale
    return pose.x + across * cosine - down * sine, pose.y + across * sine + down * cosine


def _taper(head: HeadShape, v: float) -> float:
    """Return the width of the outline at height `v` (1 at the chin), relative to an ellipse."""
    low = min(max(v, 0.0), 1.0)
    return 1 + (0.5 * head.jaw + 0.2 * head.fullness) * low * (1 - low) - head.taper * low**2


def _lean(scene: Scene, v: float) -> float:
    """Return how far the jaw, which is in front of the neck, moves sideways with the yaw."""
    return LEAN * math.sin(scene.pose.yaw) * max(v, 0.0) ** 2


def build_face(canvas: Canvas, scene: Scene) -> Face:
    """Return the head of `scene` on `canvas`."""
    head, pose = scene.head, scene.pose
    across, down = upright(canvas, pose)
    ny = down * (1 / head.height)
    low = clamp(ny, 0, 1.2)
    squared = low * low
    bulge = 0.5 * head.jaw + 0.2 * head.fullness
    width = head.width * (1 + bulge * (low - squared) - head.taper * squared)
    nx = (across - LEAN * math.sin(pose.yaw) * squared) / np.maximum(width, 0.1)
    nx2, ny2 = nx * nx, ny * ny
    skull = np.minimum(ny, 0)
    radius2 = nx2 + ny2 - 0.28 * np.minimum(nx2, 1) * skull * skull
    nz = np.sqrt(np.maximum(1 - radius2, 0))
    distance = (np.sqrt(radius2) - 1) * (0.85 * head.width)
    # Undo the pitch, then the yaw.
    turned = nz * math.cos(pose.pitch) + ny * math.sin(pose.pitch)
    v = (ny * math.cos(pose.pitch) - nz * math.sin(pose.pitch)) * head.height
    u = (nx * math.cos(pose.yaw) - turned * math.sin(pose.yaw)) * head.width
    return Face(canvas, across, down, distance, u, v, (nx, ny, nz))


def nose_axis(face: Face, scene: Scene) -> tuple[Plane, Plane]:
    """Return `u`, `v` relative to the nose, which stands out and so shifts with yaw and pitch."""
    rise = clamp((face.v + 0.05) * (1 / (scene.nose.tip + 0.05)), 0, 1.3)
    lean = 0.075 * scene.nose.relief * rise * rise
    return face.u - lean * math.sin(scene.pose.yaw), face.v - lean * math.sin(scene.pose.pitch)


def relief(face: Face, scene: Scene) -> Plane:
    """Return the height of the features over the bare head, in units of half the image side."""
    nose, mouth, eyes = scene.nose, scene.mouth, scene.eyes
    u, v = nose_axis(face, scene)
    side = np.abs(u)
    tip = nose.tip
    along = clamp((v + 0.06) * (1 / (tip + 0.06)), 0, 1)
    end = smoothstep(v, tip + 0.085, tip + 0.005)
    spread = 0.032 + 0.026 * along * along * (nose.width / 0.08)
    height = 0.165 * nose.relief * along * np.sqrt(along) * end * bell((side / spread) ** 2)
    wing = (side - 0.72 * nose.width) ** 2 + (v - tip - 0.012) ** 2 * 1.3
    height += 0.035 * nose.relief * bell(wing * (1 / (0.42 * nose.width) ** 2))
    height += 0.034 * nose.relief * bell((side**2 + (v - tip) ** 2) * (1 / 0.045**2))
    side, v = np.abs(face.u), face.v
    brow = 0.020 + 0.014 * scene.male
    height += brow * bell(((side - 0.2) * 6) ** 2 + ((v + scene.brows.height + 0.02) * 16) ** 2)
    height -= 0.045 * bell(((side - eyes.distance + 0.03) * 9) ** 2 + (v * 13) ** 2)
    apple = 0.02 + 0.035 * max(mouth.smile, 0)
    height += apple * bell(((side - 0.25) * 8) ** 2 + ((v - 0.2) * 8.5) ** 2)
    height += 0.03 * bell((side * 8) ** 2 + ((v - 0.575) * 13) ** 2)
    height += 0.028 * bell((side * 6.5) ** 2 + ((v - mouth.y) * 10) ** 2)
    height -= 0.012 * bell((side * 12) ** 2 + ((v - mouth.y - 0.1) * 22) ** 2)
    return height - _folds(side, v, scene)


def _folds(side: Plane, v: Plane, scene: Scene) -> Plane:
    """Return the depth of the folds from nose to mouth, on the forehead and below the eyes."""
    lines, mouth = scene.skin.lines, scene.mouth
    depth = 0.006 + 0.014 * max(mouth.smile, 0) + 0.016 * lines
    top = scene.nose.tip
    t = clamp((v - top) * (1 / (mouth.y + 0.06 - top)), 0, 1)
    path = scene.nose.width * 1.1 + (mouth.width * 1.12 - scene.nose.width * 1.1 + 0.03) * t * (
        1.5 - 0.5 * t
    )
    inside = smoothstep(v, top - 0.03, top + 0.05) * smoothstep(v, mouth.y + 0.1, mouth.y)
    folds = depth * inside * bell(((side - path) * (1 / 0.022)) ** 2)
    if lines > 0.1:
        wave = np.sin(v * 95 + 6 * side * side) * bell(((v + 0.29) * 9) ** 2 + (side * 3.2) ** 2)
        folds += 0.0035 * lines * wave
    bags = bell(((side - scene.eyes.distance) * 11) ** 2 + ((v - 0.085) * (1 / 0.016)) ** 2)
    return folds + (0.004 + 0.012 * scene.eyes.bags) * bags


def towards(normal: tuple[Plane, Plane, Plane], light: Light) -> Plane:
    """Return the cosine between the normals and the direction of the light."""
    x, y, z = normal
    lx, ly, lz = light.direction
    cosine: Plane = x * lx + y * ly + z * lz
    return cosine


def diffuse(cosine: Plane, soft: float) -> Plane:
    """Return diffuse light in [0, 1]; `soft` extends it beyond the terminator, as in skin."""
    return clamp((cosine + soft) * (1 / (1 + soft)), 0, 1)


def skin_normal(face: Face, height: Plane) -> tuple[Plane, Plane, Plane]:
    """Tilt the normals of the head by the slopes of `height`."""
    down, right = np.gradient(height, face.canvas.pixel)
    x, y, z = face.normal
    x, y = x * 0.98 - right, y * 0.66 - down
    z = z + 0.12
    length = 1 / np.sqrt(x * x + y * y + z * z)
    return x * length, y * length, z * length


def paint_skin(face: Face, scene: Scene) -> None:
    """Paint the skin of the head with light and shadow."""
    canvas, skin, light = face.canvas, scene.skin, scene.light
    normal = skin_normal(face, relief(face, scene))
    seed = scene.texture_seed
    mottle = 1 + 0.05 * clouds(canvas, 9, seed) + 0.018 * grain(fractal(1.1), face.u.shape, seed)
    mottle += 0.012 * grain(white(), face.u.shape, seed + 1)
    shadow = _shadows(face, scene)
    red = _redness(face, scene)
    alpha = canvas.cover(face.distance)
    cosine = towards(normal, light)
    # The half vector lies between the light and the viewer, whose direction is z.
    half = (cosine + normal[2]) * (1 / math.sqrt(2 + 2 * light.direction[2]))
    gloss = _gloss(half, skin.oil) * shadow
    softness = (0.42, 0.3, 0.26)
    tints = (0.06, -0.2, -0.16)
    for channel, plane in enumerate(canvas.rgb):
        albedo = skin.colour[channel] * mottle * (1 + tints[channel] * red)
        direct = diffuse(cosine, softness[channel]) * shadow
        glow = light.key[channel] * direct + light.ambient[channel] * (0.4 + 0.6 * shadow)
        lightened = albedo * glow + gloss * light.key[channel]
        if light.rim:
            lightened += _rim(face, light) * albedo
        np.add(plane, alpha * (lightened - plane), out=plane)
    _freckles(face, scene, alpha)


def _gloss(half: Plane, oil: float) -> Plane:
    """Return the specular light: a broad sheen and a small sharp highlight."""
    sheen = np.maximum(half, 0) ** 2
    sheen *= sheen
    sheen *= sheen
    sharp = sheen * sheen
    sharp *= sharp
    gloss: Plane = oil * (0.035 * sheen + 0.11 * sharp)
    return gloss


def _rim(face: Face, light: Light) -> Plane:
    edge = 1 - face.normal[2]
    away = -1.0 if light.direction[0] > 0 else 1.0
    return light.rim * edge * edge * edge * clamp(face.normal[0] * away, 0, 1)


def _redness(face: Face, scene: Scene) -> Plane:
    """Return the redness of cheeks and tip of the nose, with make-up."""
    side, v = np.abs(face.u), face.v
    cheeks = bell(((side - 0.27) * 6.5) ** 2 + ((v - 0.2) * 8) ** 2)
    tip = bell((side * 13) ** 2 + ((v - scene.nose.tip) * 13) ** 2)
    return (0.2 + 0.95 * scene.skin.blush) * cheeks + 0.5 * tip


def _shadows(face: Face, scene: Scene) -> Plane:
    """Return the light that remains after cast shadows and occlusion below nose, lips and brows."""
    lx, ly, _ = scene.light.direction
    side, v = np.abs(face.u), face.v
    u, nv = nose_axis(face, scene)
    fall = scene.nose.tip + 0.07 - 0.03 * ly
    under = bell(((u + 0.1 * lx) * (1 / (0.9 * scene.nose.width))) ** 2 + ((nv - fall) * 24) ** 2)
    flank = bell(((u + 0.09 * math.copysign(1, lx)) * 19) ** 2 + ((v - 0.13) * 8) ** 2)
    corner = bell(((side - scene.eyes.distance + 0.085) * 19) ** 2 + ((v + 0.025) * 17) ** 2)
    socket = bell(((side - scene.eyes.distance) * 9) ** 2 + ((v + 0.045) * 22) ** 2)
    lip = bell((u * 9) ** 2 + ((v - scene.mouth.y - scene.mouth.lower - 0.035) * 30) ** 2)
    left = 1 - 0.42 * under - 0.5 * min(abs(lx), 0.5) * flank - 0.3 * corner - 0.22 * socket
    left -= 0.22 * lip + 0.12 * scene.skin.contour * bell(
        ((side - 0.36) * 9) ** 2 + ((v - 0.3) * 6) ** 2
    )
    light: Plane = np.maximum(left, 0.1)
    return light


def _freckles(face: Face, scene: Scene, alpha: Plane) -> None:
    amount = scene.skin.freckles
    if not amount:
        return
    spots = grain(white(), face.u.shape, scene.texture_seed + 7)
    where = bell((face.u * 2.6) ** 2 + ((face.v - 0.17) * 4.6) ** 2)
    dark = smoothstep(spots, 1.5, 2.1) * where * alpha * (0.55 * amount)
    face.canvas.shade(dark, (0.55, 0.85, 1.0))


def warm(colour: Colour, factor: float) -> Colour:
    """Return the colour times `factor`."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor
