"use strict";

// The scan as the page carries it: packed by page.py, unpacked here into typed arrays.

async function inflate(base64) {
  const text = atob(base64);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Undo page.py's _pack_hu: all low bytes, then all high bytes, of the zigzag-coded difference between a voxel and the
// mean of its left and upper neighbours.
function unpackHu(bytes, [slices, rows, columns], step) {
  const count = slices * rows * columns;
  const hu = new Int16Array(count);
  for (let at = 0, z = 0; z < slices; z++) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++, at++) {
        const zigzag = bytes[at] | (bytes[count + at] << 8);
        const left = x ? hu[at - 1] : y ? hu[at - columns] : 0;
        const up = y ? hu[at - columns] : left;
        hu[at] = ((left + up) >> 1) + ((zigzag >> 1) ^ -(zigzag & 1));
      }
    }
  }
  if (step !== 1) for (let at = 0; at < count; at++) hu[at] *= step;
  return hu;
}

function unpackMask(bits, count) {
  const mask = new Uint8Array(count);
  for (let at = 0; at < count; at++) mask[at] = (bits[at >> 3] >> (7 - (at & 7))) & 1;
  return mask;
}

async function unpackScan(data) {
  const [slices, rows, columns] = data.shape;
  const count = slices * rows * columns;
  const masks = [];
  for (const { name, color, bits } of data.masks) {
    masks.push({ name, color, voxels: unpackMask(await inflate(bits), count) });
  }
  let heat = null;
  if (data.heat) {
    heat = new Uint8Array(count);
    const maps = await inflate(data.heat.maps);
    const size = rows * columns;
    data.heat.slices.forEach((z, i) => heat.set(maps.subarray(i * size, (i + 1) * size), z * size));
  }
  return { ...data, hu: unpackHu(await inflate(data.hu), data.shape, data.step), masks, heat };
}

// How a plane's slice lies in the flat volume: the place of its first pixel (top left) and the strides to the next row
// and column. Coronal and sagittal slices have the head up, so their rows run down axis 0.
function layoutOf(scan, plane, index) {
  const [slices, rows, columns] = scan.shape;
  const [dz, dy, dx] = scan.spacing;
  const area = rows * columns;
  const top = (slices - 1) * area;
  return {
    axial: { start: index * area, row: columns, column: 1, rows, columns, dy, dx },
    coronal: { start: top + index * columns, row: -area, column: 1, rows: slices, columns, dy: dz, dx },
    sagittal: { start: top + index, row: -area, column: columns, rows: slices, columns: rows, dy: dz, dx: dy },
  }[plane];
}
