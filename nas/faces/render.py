"""Render scenes: paint from back to front, then simulate the camera."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from nas.faces.backdrop import paint_background, paint_body, paint_ear
from nas.faces.canvas import Canvas, Plane, clamp, gaussian_blur, grain, new_canvas, white
from nas.faces.features import paint_features
from nas.faces.hair import LOOSE, map_hair, paint_hair_before, paint_hair_behind, paint_hair_shadow
from nas.faces.head import Face, build_face, paint_skin
from nas.faces.sample import sample_scene
from nas.faces.scene import Camera, Scene
from nas.faces.wear import paint_glasses, paint_hat, paint_jewels

RENDERER_VERSION = 1
"""Part of the cache's key: increase it with every change that alters a pixel."""


def render_faces(seed: int, start: int, stop: int, size: int) -> NDArray[np.uint8]:
    """Render images `start` to `stop` of population `seed`: uint8 `(stop - start, 3, size, size)`.

    An image depends on `seed` and its index, not on the range in which it is rendered.
    """
    images = np.empty((stop - start, 3, size, size), np.uint8)
    for row, index in enumerate(range(start, stop)):
        images[row] = render_scene(sample_scene(seed, index), size)
    return images


def render_scene(scene: Scene, size: int) -> NDArray[np.uint8]:
    """Render one scene at `size` x `size` pixels: uint8 `(3, size, size)`."""
    canvas = new_canvas(size)
    paint_background(canvas, scene)
    face = build_face(canvas, scene)
    hair = map_hair(face, scene)
    if hair is not None:
        paint_hair_behind(face, hair, scene)
    paint_body(face, scene)
    _paint_head(face, scene)
    if hair is not None:
        paint_hair_shadow(face, hair, scene)
        paint_hair_before(face, hair, scene)
    paint_glasses(face, scene)
    paint_hat(face, scene)
    paint_jewels(face, scene)
    return _photograph(canvas, scene)


def _paint_head(face: Face, scene: Scene) -> None:
    """Paint ears, skin and features; the ear on the viewer's side is painted over the skin."""
    bare = scene.hair.style not in LOOSE
    near = -1.0 if scene.pose.yaw > 0 else 1.0
    if bare:
        paint_ear(face, scene, -near)
        if abs(scene.pose.yaw) < 0.12:
            paint_ear(face, scene, near)
    reach = 1.1 * scene.pose.scale
    head = face.part(
        scene.pose.x, scene.pose.y, reach * (scene.head.width + 0.07), reach * scene.head.height
    )
    paint_skin(head, scene)
    if bare and abs(scene.pose.yaw) >= 0.12:
        paint_ear(face, scene, near)
    paint_features(head, scene)


def _photograph(canvas: Canvas, scene: Scene) -> NDArray[np.uint8]:
    """Apply exposure, blur, colour response and sensor noise."""
    camera, picture = scene.camera, canvas.rgb
    size = picture.shape[1]
    fall = camera.exposure * (1 - camera.vignette * 0.35 * (canvas.x**2 + canvas.y**2))
    picture *= fall
    if camera.blur:
        picture = gaussian_blur(picture, camera.blur / canvas.pixel)
    grey = 0.2126 * picture[0] + 0.7152 * picture[1] + 0.0722 * picture[2]
    picture = grey + camera.saturation * (picture - grey)
    display = _develop(picture, camera)
    for channel in range(3):
        noise = grain(white(), (size, size), scene.texture_seed + 31 * channel)
        display[channel] += camera.noise * noise
    return clamp(display * 255 + 0.5, 0, 255).astype(np.uint8)


def _develop(picture: Plane, camera: Camera) -> Plane:
    """Return display values: gamma 2, compressed highlights and slightly more contrast."""
    picture = np.maximum(picture, 0)
    display = np.sqrt(picture * (1.12 / (1 + 0.12 * picture * picture)))
    display = np.minimum(display, 1)
    curve = display * display * (3 - 2 * display)
    developed: Plane = display + camera.contrast * 0.5 * (curve - display)
    return developed


def main() -> None:
    """Write images to standard output as raw bytes; arguments as for `render_faces`."""
    seed, start, stop, size = (int(argument) for argument in sys.argv[1:])
    sys.stdout.buffer.write(render_faces(seed, start, stop, size).tobytes())
