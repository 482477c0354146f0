// The scan as the viewer holds it: one axial slice after another, as they arrive, and any plane cut from them.

/** @typedef {"axial"|"coronal"|"sagittal"} Plane */
/** @typedef {[number, number, number]} Voxel (z, y, x), counted from feet, front, and the patient's right */
/** @typedef {{name: string, color: string, ml: number}} Mask */
/**
 * What is known of a scan before any slice of it is there; Python's `scan_header` makes it.
 * @typedef {object} Header
 * @property {number} serial  tells one scan from the next in the same viewer
 * @property {string} name
 * @property {Voxel} shape
 * @property {Voxel} spacing  mm
 * @property {boolean} isHu
 * @property {number} step  HU of one unit in the packed slices
 * @property {Mask[]} masks
 * @property {boolean} heat
 * @property {{name: string, color: string, unit: string, values: (number|null)[]}[]} curves
 * @property {number[]} marks
 * @property {{index: number, packed: ArrayBufferView|string}} first  the slice that is shown first
 */

/** @type {Plane[]} */
const PLANES = ["axial", "coronal", "sagittal"]; // by the axis that their slices are counted along
const PADDING_BELOW_HU = -1500;
const OUTSIDE_HU = -2048;
const AHEAD = 12; // slices on either side of the one in view that are asked for before they are needed
const SMALL = 24e6; // voxels: smaller scans are fetched whole while nothing else is asked for
const IN_FLIGHT = 8; // slices asked for at a time, so that the one in view never waits for many others

/**
 * @param {Uint8Array} packed
 * @returns {Promise<Uint8Array>}
 */
async function inflate(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * Undo Python's `pack_slice`: low bytes, then high bytes, of the zigzag-coded difference between a voxel and the mean of
 * its left and upper neighbours; then each mask, one bit a voxel; then the heat, if there is any.
 */
function unpackSlice(/** @type {Uint8Array} */ bytes, /** @type {Header} */ { shape: [, rows, columns], masks, step }) {
  const count = rows * columns;
  const hu = new Int16Array(count);
  for (let at = 0, y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, at++) {
      const zigzag = bytes[at] | (bytes[count + at] << 8);
      const left = x ? hu[at - 1] : y ? hu[at - columns] : 0;
      const up = y ? hu[at - columns] : left;
      hu[at] = ((left + up) >> 1) + ((zigzag >> 1) ^ -(zigzag & 1));
    }
  }
  if (step !== 1) for (let at = 0; at < count; at++) hu[at] *= step;
  const bits = Array.from({ length: Math.ceil(masks.length / 8) }, () => new Uint8Array(count));
  let from = 2 * count;
  masks.forEach((_mask, k) => {
    const group = bits[k >> 3];
    const bit = 1 << (k & 7);
    for (let at = 0; at < count; at += 8, from++) {
      const eight = bytes[from];
      if (eight) for (let i = 0; i < 8 && at + i < count; i++) if (eight & (128 >> i)) group[at + i] |= bit;
    }
  });
  return { hu, bits, heat: from < bytes.length ? bytes.subarray(from) : null };
}

class Volume {
  /**
   * @param {Header} header
   * @param {(indices: number[]) => void} fetch  asks for slices, which come back through `add`
   * @param {() => void} changed  called when a slice has arrived
   */
  constructor(header, fetch, changed) {
    Object.assign(this, { header, fetch, changed });
    this.shape = header.shape;
    this.spacing = header.spacing;
    /** @type {({hu: Int16Array, bits: Uint8Array[], heat: Uint8Array|null}|null)[]} */
    this.slices = new Array(header.shape[0]).fill(null);
    this.held = 0;
    this.asked = new Set();
    this.cut = new Map(); // the last values cut for each plane
  }

  /** Take a packed slice. */
  async add(/** @type {number} */ z, /** @type {Uint8Array} */ packed) {
    const slice = unpackSlice(await inflate(packed), this.header);
    this.asked.delete(z);
    if (!this.slices[z]) this.held++;
    this.slices[z] = slice;
    this.changed();
  }

  /** How the slices of a plane lie: rows and columns, and their distances in mm. */
  grid(/** @type {Plane} */ plane) {
    const [[slices, rows, columns], [dz, dy, dx]] = [this.shape, this.spacing];
    if (plane === "axial") return { rows, columns, dy, dx };
    return { rows: slices, columns: plane === "coronal" ? columns : rows, dy: dz, dx: plane === "coronal" ? dx : dy };
  }

  /** Row and column of a place in the scan on the slices of a plane; coronal and sagittal ones have the head up. */
  inPlane(/** @type {Plane} */ plane, /** @type {Voxel} */ [z, y, x]) {
    if (plane === "axial") return [y, x];
    return [this.shape[0] - 1 - z, plane === "coronal" ? x : y];
  }

  /** The place in the scan at a row and column of slice `index`. @returns {Voxel} */
  inScan(/** @type {Plane} */ plane, /** @type {number} */ index, /** @type {number} */ row, /** @type {number} */ column) {
    if (plane === "axial") return [index, row, column];
    const z = this.shape[0] - 1 - row;
    return plane === "coronal" ? [z, index, column] : [z, column, index];
  }

  /** Which axial slices a slice of a plane is cut from. */
  needs(/** @type {Plane} */ plane, /** @type {number} */ index, reach = 0) {
    const last = this.shape[0] - 1;
    const [from, to] = plane === "axial" ? [Math.max(0, index - reach), Math.min(last, index + reach)] : [0, last];
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  }

  has(/** @type {Plane} */ plane, /** @type {number} */ index, reach = 0) {
    return this.needs(plane, index, reach).every((z) => this.slices[z]);
  }

  /**
   * Ask for what is missing: `wanted` at once, and then, as long as few are on their way, those around slice `z`.
   * @param {number[]} wanted
   */
  ask(wanted, /** @type {number} */ z) {
    const missing = (/** @type {number} */ at) => at >= 0 && at < this.shape[0] && !this.slices[at] && !this.asked.has(at);
    const [, rows, columns] = this.shape;
    // Until the first picture shows, nothing else is fetched that it would have to wait for.
    const reach = !this.held ? 0 : this.shape[0] * rows * columns <= SMALL ? this.shape[0] : AHEAD;
    const urgent = wanted.filter(missing).sort((a, b) => Math.abs(a - z) - Math.abs(b - z));
    // One slice in view is asked for whatever is on its way; a plane that needs all of them takes its turn.
    const chosen = urgent.slice(0, wanted.length > 2 * AHEAD ? Math.max(0, IN_FLIGHT - this.asked.size) : urgent.length);
    for (let away = 1; away <= reach && this.asked.size + chosen.length < IN_FLIGHT; away++) {
      for (const at of [z + away, z - away]) if (missing(at) && !chosen.includes(at)) chosen.push(at);
    }
    if (!chosen.length) return;
    for (const at of chosen) this.asked.add(at);
    this.fetch(chosen);
  }

  /**
   * The values of one slice of a plane: HU, bits of the masks in groups of eight, heat. A slab of more than one slice
   * has the mean, the highest or the lowest HU of its slices, and masks and heat of the middle one.
   * @param {{reach: number, projection: string}} slab
   */
  values(/** @type {Plane} */ plane, /** @type {number} */ index, { reach, projection }) {
    const key = `${index} ${reach} ${projection} ${plane === "axial" && !reach ? Boolean(this.slices[index]) : this.held}`;
    const before = this.cut.get(plane);
    if (before?.key === key) return before.values;
    const middle = this.section(plane, index);
    const values = reach ? { ...middle, hu: this.project(plane, index, reach, projection, middle.hu.length) } : middle;
    this.cut.set(plane, { key, values });
    return values;
  }

  section(/** @type {Plane} */ plane, /** @type {number} */ index) {
    const { rows, columns } = this.grid(plane);
    const count = rows * columns;
    const groups = Math.ceil(this.header.masks.length / 8);
    if (plane === "axial" && this.slices[index]) return this.slices[index];
    const hu = new Int16Array(count).fill(OUTSIDE_HU);
    const bits = Array.from({ length: groups }, () => new Uint8Array(count));
    let heat = null;
    if (plane === "axial") return { hu, bits, heat };
    const [, , wide] = this.shape;
    const [start, stride] = plane === "coronal" ? [index * wide, 1] : [index, wide];
    for (let row = 0; row < rows; row++) {
      const slice = this.slices[rows - 1 - row];
      if (!slice) continue;
      if (slice.heat) heat ??= new Uint8Array(count);
      for (let column = 0, from = start, to = row * columns; column < columns; column++, from += stride, to++) {
        hu[to] = slice.hu[from];
        for (let g = 0; g < groups; g++) bits[g][to] = slice.bits[g][from];
        if (slice.heat) heat[to] = slice.heat[from];
      }
    }
    return { hu, bits, heat };
  }

  project(/** @type {Plane} */ plane, /** @type {number} */ index, /** @type {number} */ reach, /** @type {string} */ how, /** @type {number} */ count) {
    const last = this.shape[PLANES.indexOf(plane)] - 1;
    const sum = new Float32Array(count);
    const [low, high] = [Math.max(0, index - reach), Math.min(last, index + reach)];
    for (let at = low; at <= high; at++) {
      const { hu } = this.section(plane, at);
      if (how === "mean") for (let i = 0; i < count; i++) sum[i] += hu[i];
      else if (at === low) sum.set(hu);
      else if (how === "MIP") for (let i = 0; i < count; i++) { if (hu[i] > sum[i]) sum[i] = hu[i]; }
      else for (let i = 0; i < count; i++) { if (hu[i] < sum[i]) sum[i] = hu[i]; }
    }
    const projected = new Int16Array(count);
    const parts = how === "mean" ? high - low + 1 : 1;
    for (let i = 0; i < count; i++) projected[i] = Math.round(sum[i] / parts);
    return projected;
  }

  /** HU of a voxel and the names of the masks it lies in; null where its slice has not arrived. */
  at(/** @type {Voxel} */ [z, y, x]) {
    const slice = this.slices[z];
    if (!slice) return null;
    const at = y * this.shape[2] + x;
    const masks = this.header.masks.filter((_mask, k) => slice.bits[k >> 3][at] & (1 << (k & 7)));
    return { hu: slice.hu[at], masks: masks.map(({ name }) => name) };
  }

  /** Distance of two places, mm. */
  distance(/** @type {Voxel} */ one, /** @type {Voxel} */ other) {
    return Math.hypot(...one.map((at, axis) => (at - other[axis]) * this.spacing[axis]));
  }

  /** What a circle on a slice holds: mean and standard deviation of its voxels' HU, their area, and their volume. */
  circle(/** @type {Plane} */ plane, /** @type {Voxel} */ centre, /** @type {number} */ radius) {
    const axis = PLANES.indexOf(plane);
    const { rows, columns, dy, dx } = this.grid(plane);
    const { hu } = this.section(plane, Math.round(centre[axis]));
    const [row, column] = this.inPlane(plane, centre);
    let [count, sum, squares] = [0, 0, 0];
    for (let y = Math.max(0, Math.ceil(row - radius / dy)); y <= Math.min(rows - 1, row + radius / dy); y++) {
      for (let x = Math.max(0, Math.ceil(column - radius / dx)); x <= Math.min(columns - 1, column + radius / dx); x++) {
        const value = hu[y * columns + x];
        if (((y - row) * dy) ** 2 + ((x - column) * dx) ** 2 > radius ** 2 || value < PADDING_BELOW_HU) continue;
        count++;
        sum += value;
        squares += value * value;
      }
    }
    const mean = count ? sum / count : 0;
    const area = count * dy * dx;
    return {
      plane, centre, radius_mm: radius, voxels: count, mean_hu: mean,
      sd_hu: count ? Math.sqrt(Math.max(0, squares / count - mean * mean)) : 0,
      area_mm2: area, volume_ml: (area * this.spacing[axis]) / 1000,
    };
  }
}
