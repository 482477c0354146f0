"""Slices unpacked as the browser does it."""

import zlib

import numpy as np


def unpack(packed: bytes, shape: tuple[int, int], masks: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray | None]:
    """What volume.js does, voxel by voxel."""
    data = np.frombuffer(zlib.decompress(packed), np.uint8)
    count = shape[0] * shape[1]
    zigzag = data[:count].astype(int) | data[count : 2 * count].astype(int) << 8
    rest = ((zigzag >> 1) ^ -(zigzag & 1)).reshape(shape)
    hu = np.zeros(shape, np.int16)
    for y, x in np.ndindex(*shape):
        left = int(hu[y, x - 1] if x else hu[y - 1, x] if y else 0)
        up = int(hu[y - 1, x]) if y else left
        hu[y, x] = np.array(((left + up) >> 1) + rest[y, x]).astype(np.int16)
    each = -(-count // 8)
    bits = [np.unpackbits(data[2 * count + k * each :][:each])[:count].reshape(shape) == 1 for k in range(masks)]
    warm = data[2 * count + masks * each :]
    return hu, bits, warm.reshape(shape) if warm.size else None
