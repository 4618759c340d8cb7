"""A picture file becomes the square that the network sees: decode, crop, resize, flip, jitter.

Why it is fast: the crop is chosen from the header, so a JPEG is decoded at 1/2, 1/4 or 1/8 of its
size where that is enough; only the crop is converted and resized; a camera's rotation is applied to
the result.

Worker processes run `serve`. They import this and `task.py` alone, neither NumPy nor Numba, so one
starts in some 0.1 s.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import mmap
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

from .task import Box, Limits, Outcome, Task, central_box, crop_box, uniforms

__all__ = ["FORMATS", "READY", "do", "read_picture", "serve"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
READY = b"ready"  # what a worker says first
COPY_VERSION = 2  # another one when the copies change
COPY_QUALITY = 95  # of JPEG

# EXIF orientation: (axes swapped, stored x runs backwards, stored y too, Image.Transpose by name)
ORIENTATIONS = {
    2: (False, True, False, "FLIP_LEFT_RIGHT"),
    3: (False, True, True, "ROTATE_180"),
    4: (False, False, True, "FLIP_TOP_BOTTOM"),
    5: (True, False, False, "TRANSPOSE"),
    6: (True, False, True, "ROTATE_270"),
    7: (True, True, True, "TRANSVERSE"),
    8: (True, True, False, "ROTATE_90"),
}


def read_picture(file: Any, task: Task, limits: Limits) -> Any:
    """The picture of a task from `file`, a path or an open file: a PIL image, RGB, (size, size).

    Grey, palette and CMYK pictures become RGB, 16 bits become 8, what is transparent becomes
    white; of an animation the first picture. With a folder of copies, a large picture is seen
    through its copy, whether that could be written or not. Raises ValueError for more than
    `max_pixels`, and whatever Pillow raises for what it cannot read.
    """
    return _read(file, task, limits)[0]


def _read(file: Any, task: Task, limits: Limits) -> tuple[Any, int]:
    """The picture, and what the outcome says of the copy that was made."""
    if limits.cache is None:
        with _open(file, limits.max_pixels) as image:
            return _seen(image, task), 0
    side = 2 * task.size
    path = _copy_path(file, side, limits)
    with contextlib.suppress(Exception), _open(path, limits.max_pixels) as image:
        picture = _seen(image, task)
        _mark_used(path, limits.since)
        return picture, 0
    with _open(file, limits.max_pixels) as image:  # no copy yet, or a damaged one
        if min(image.size) <= side:
            return _seen(image, task), 0
        data = _encoded(image, side)
    copied = _write(path, data) if task.keep else 0
    with _open(io.BytesIO(data), limits.max_pixels) as image:  # no epoch differs from another
        return _seen(image, task), copied


def _seen(image: Any, task: Task) -> Any:
    width, height, orientation = _oriented(image)
    size = task.size, task.size
    if task.draw is None:
        return _cut(image, orientation, central_box(width, height, task.centre), size)
    numbers = uniforms(task.draw)
    box = crop_box(width, height, task.area, numbers)
    return _vary(_cut(image, orientation, box, size), task, numbers)


def _open(file: Any, max_pixels: int) -> Any:
    from PIL import Image  # lazily: most data sets need no Pillow

    image = Image.open(file, formats=FORMATS)  # reads the header alone
    if image.width * image.height > max_pixels:
        image.close()
        raise ValueError(f"{image.width}x{image.height} is more than {max_pixels:,} pixels")
    return image


def _oriented(image: Any) -> tuple[int, int, int]:
    """Width and height as it is looked at, and the EXIF orientation. Loads all but JPEGs."""
    if image.format not in ("JPEG", "MPO"):  # loading may find the mark, or obey it (TIFF)
        image.load()
    try:
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data is no reason to do without the picture
        orientation = 1
    swapped = orientation in ORIENTATIONS and ORIENTATIONS[orientation][0]
    width, height = image.size
    return (height, width, orientation) if swapped else (width, height, orientation)


def _cut(image: Any, orientation: int, box: Box, size: tuple[int, int]) -> Any:
    """The part `box` of the picture as it is looked at, resized to `size`, RGB."""
    from PIL import Image

    swapped, back_x, back_y, turn = ORIENTATIONS.get(orientation, (False, False, False, ""))
    left, top, right, bottom = box
    if swapped:  # from here on in the coordinates of the file
        left, top, right, bottom, size = top, left, bottom, right, (size[1], size[0])
    width, height = image.size
    if back_x:
        left, right = width - right, width - left
    if back_y:
        top, bottom = height - bottom, height - top
    if image.format in ("JPEG", "MPO"):
        across, down = (right - left) / size[0], (bottom - top) / size[1]
        image.draft(None, (math.ceil(width / max(across, 1)), math.ceil(height / max(down, 1))))
        x, y = image.width / width, image.height / height
        left, top, right, bottom = left * x, top * y, right * x, bottom * y
    if image.mode != "RGB" or image.has_transparency_data:
        x, y = math.floor(left), math.floor(top)
        image = _as_rgb(image.crop((x, y, math.ceil(right), math.ceil(bottom))))
        left, top, right, bottom = left - x, top - y, right - x, bottom - y
    part = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    small = image.resize(size, Image.Resampling.BILINEAR, box=part, reducing_gap=2.0)
    return small.transpose(Image.Transpose[turn]) if turn else small


def _as_rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode in ("I;16", "I;16L", "I;16B"):  # the upper byte of each pair
        upper = image.tobytes()[0 if image.mode == "I;16B" else 1 :: 2]
        image = Image.frombytes("L", image.size, upper)
    elif image.mode == "I":  # 16 bits in 32
        image = image.point([v // 256 for v in range(65536)], "L")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _vary(image: Any, task: Task, numbers: Iterator[float]) -> Any:
    """Mirror by chance; change brightness, contrast and saturation in a random order."""
    from PIL import Image, ImageEnhance

    if next(numbers) < 0.5 and task.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if task.jitter:
        changes = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
        while changes:
            change = changes.pop(int(next(numbers) * len(changes)))
            image = change(image).enhance(1 + task.jitter * (2 * next(numbers) - 1))
    return image


# Shrunken copies; `copies.py` counts and deletes them


def _copy_path(file: Any, side: int, limits: Limits) -> str:
    """Where the copy is of the file as it is now: another one after any change of it."""
    status, most = os.stat(file), limits.max_pixels
    what = COPY_VERSION, os.path.abspath(file), status.st_size, status.st_mtime_ns, side, most
    name = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return os.path.join(str(limits.cache), name[:2], name + ".jpg")


def _mark_used(path: str, since: float) -> None:
    with contextlib.suppress(OSError):  # of another user, on a disk only to be read
        if os.stat(path).st_mtime < since:
            os.utime(path)


def _write(path: str, data: bytes) -> int:
    """In one move, as another worker may be at it; returns its bytes, or minus the error number."""
    beside = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(beside, "wb") as out:
            out.write(data)
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        return -(error.errno or errno.EIO)
    return len(data)


def _encoded(image: Any, side: int) -> bytes:
    """The whole picture as it is looked at, its shorter side `side` pixels, as JPEG."""
    width, height, orientation = _oriented(image)
    scale = side / min(width, height)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    out = io.BytesIO()
    _cut(image, orientation, (0, 0, width, height), size).save(out, "JPEG", quality=COPY_QUALITY)
    return out.getvalue()


# Tasks


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Pillow neither warns nor applies its own limit: `max_pixels` is checked instead."""
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return "not a picture" if "cannot identify" in text else " ".join(text.split())


def do(task: Task, limits: Limits, memory: Any) -> Outcome:
    """Put the picture of a task into its slot of `memory`, a writable buffer of bytes."""
    reasons: list[str] = []
    copied = 0
    with _quietly():
        for file in task.files:
            try:
                picture, copied = _read(file, task, limits)
                pixels = picture.tobytes()
            except Exception as error:  # whatever a damaged file makes Pillow raise
                reasons.append(_reason(error))
                continue
            start = task.slot * len(pixels)
            memory[start : start + len(pixels)] = pixels
            break
    done = len(reasons) < len(task.files)
    return Outcome(task.slot, reasons, done, time.process_time(), copied)


def serve(file: int, length: int, limits: Limits) -> None:
    """Do the tasks that come on stdin, a line of JSON each, until it ends; answer on stdout.

    Pictures go into the memory of `file`, a descriptor that was inherited.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which ends us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    memory = mmap.mmap(file, length)
    import PIL.Image  # noqa: F401 - before it says that it is ready

    with contextlib.suppress(BrokenPipeError):
        answers.write(READY + b"\n")
        for line in sys.stdin.buffer:
            outcome = do(Task(*json.loads(line)), limits, memory)
            answers.write(json.dumps(outcome).encode() + b"\n")
