// One plane of a scan on a canvas: grey values, heat, masks, letters, scale bar, cross, ruler and circle.

// Letters at the left, right, top and bottom edge: Right, Left, Anterior, Posterior, Head, Foot.
const LETTERS = { axial: "RLAP", coronal: "RLHF", sagittal: "APHF" };
const CRISP = 4; // times enlarged: from here on single voxels are looked at, which smoothing would hide
const TRACED = 3; // screen pixels a voxel: from here on outlines follow the voxels' edges

/** Red, green and blue of #rrggbb. */
function rgbOf(/** @type {string} */ color) {
  const value = parseInt(color.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** A colour as ImageData keeps it in 32 bits on the little-endian machines that browsers run on. */
function packed([r, g, b], /** @type {number} */ alpha) {
  return ((Math.round(255 * alpha) << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

/** Greys of all HU under a window, by the 16 bits of the HU; the formula is that of Python's `window`. */
class Greys {
  constructor() {
    this.table = new Uint32Array(65536);
    this.bytes = new Uint8Array(65536);
  }

  set(/** @type {number} */ level, /** @type {number} */ width) {
    if (this.level === level && this.width === width) return;
    Object.assign(this, { level, width });
    for (let hu = -32768; hu < 32768; hu++) {
      const grey = Math.floor(Math.min(255, Math.max(0, ((hu - (level - width / 2)) * 255) / width)) + 0.5);
      this.bytes[hu & 0xffff] = grey;
      this.table[hu & 0xffff] = (0xff000000 | (grey * 0x010101)) >>> 0;
    }
  }
}

/** Colours of the 256 ways in which eight masks can lie over a voxel: the mask listed last lies on top. */
function mixtures(/** @type {Mask[]} */ masks, /** @type {Set<string>} */ shown, /** @type {number} */ opacity) {
  const table = new Uint32Array(256);
  for (let bits = 1; bits < 256; bits++) {
    let [r, g, b, alpha] = [0, 0, 0, 0];
    masks.forEach(({ name, color }, k) => {
      if (!(bits & (1 << k)) || !shown.has(name)) return;
      const over = opacity + alpha * (1 - opacity);
      [r, g, b] = rgbOf(color).map((value, i) => (value * opacity + [r, g, b][i] * alpha * (1 - opacity)) / (over || 1));
      alpha = over;
    });
    table[bits] = packed([r, g, b].map(Math.round), alpha);
  }
  return table;
}

class Picture {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas, /** @type {Plane} */ plane) {
    Object.assign(this, { canvas, plane });
    this.context = canvas.getContext("2d", { alpha: false });
    this.sheets = [document.createElement("canvas"), document.createElement("canvas")];
    this.greys = new Greys();
    this.traced = new Map();
  }

  /** Where the slice lies on the canvas, in its pixels: scaled to fit, enlarged, and moved as far as its edges let it. */
  place(/** @type {Volume} */ volume, state) {
    const { rows, columns, dy, dx } = volume.grid(this.plane);
    const { width, height } = this.canvas;
    const perMm = Math.min(width / (columns * dx), height / (rows * dy)) * state.zoom;
    const [scaleX, scaleY] = [perMm * dx, perMm * dy];
    const centre = state.centre ?? volume.shape.map((n) => (n - 1) / 2);
    const [row, column] = volume.inPlane(this.plane, centre);
    const along = (/** @type {number} */ room, /** @type {number} */ size, /** @type {number} */ middle) =>
      Math.min(Math.max(0, room - size), Math.max(Math.min(0, room - size), room / 2 - middle));
    return {
      rows, columns, perMm, scaleX, scaleY,
      left: along(width, columns * scaleX, (column + 0.5) * scaleX),
      top: along(height, rows * scaleY, (row + 0.5) * scaleY),
    };
  }

  /** Row and column, as fractions from the slice's top left corner, under a point of the canvas. */
  under(/** @type {Volume} */ volume, state, /** @type {number} */ x, /** @type {number} */ y) {
    const { left, top, scaleX, scaleY } = this.place(volume, state);
    return [(y - top) / scaleY, (x - left) / scaleX];
  }

  /** The voxel under a point of the canvas, or null beside the slice. @returns {Voxel|null} */
  voxel(/** @type {Volume} */ volume, state, /** @type {number} */ x, /** @type {number} */ y) {
    const [row, column] = this.under(volume, state, x, y).map(Math.floor);
    const { rows, columns } = volume.grid(this.plane);
    if (row < 0 || column < 0 || row >= rows || column >= columns) return null;
    return volume.inScan(this.plane, state.cross[PLANES.indexOf(this.plane)], row, column);
  }

  /** The place in the scan under a point, between voxels too, kept inside the slice. @returns {Voxel} */
  spot(/** @type {Volume} */ volume, state, /** @type {number} */ x, /** @type {number} */ y) {
    const [row, column] = this.under(volume, state, x, y);
    const { rows, columns } = volume.grid(this.plane);
    const inside = (/** @type {number} */ at, /** @type {number} */ n) => Math.min(n - 1, Math.max(0, at - 0.5));
    const index = state.cross[PLANES.indexOf(this.plane)];
    return volume.inScan(this.plane, index, inside(row, rows), inside(column, columns));
  }

  /** The centre of the view that keeps what is under a point there when the zoom changes. @returns {Voxel} */
  centreFor(/** @type {Volume} */ volume, state, /** @type {number} */ zoom, /** @type {number} */ x, /** @type {number} */ y) {
    const { scaleX, scaleY } = this.place(volume, state);
    const [row, column] = this.under(volume, state, x, y);
    const grow = zoom / state.zoom;
    return this.clamped(
      volume, { ...state, zoom },
      row - (y - this.canvas.height / 2) / (scaleY * grow), column - (x - this.canvas.width / 2) / (scaleX * grow),
    );
  }

  /** The centre of the view after it was dragged by so many pixels of the canvas. @returns {Voxel} */
  dragged(/** @type {Volume} */ volume, state, /** @type {number} */ dx, /** @type {number} */ dy) {
    const { scaleX, scaleY } = this.place(volume, state);
    const [row, column] = this.under(volume, state, this.canvas.width / 2, this.canvas.height / 2);
    return this.clamped(volume, state, row - dy / scaleY, column - dx / scaleX);
  }

  /** @returns {Voxel} */
  clamped(/** @type {Volume} */ volume, state, /** @type {number} */ row, /** @type {number} */ column) {
    const { rows, columns, scaleX, scaleY } = this.place(volume, state);
    const { width, height } = this.canvas;
    const along = (/** @type {number} */ at, /** @type {number} */ n, /** @type {number} */ seen) =>
      Math.min(Math.max(seen / 2, n - seen / 2), Math.max(Math.min(seen / 2, n - seen / 2), at));
    const index = state.cross[PLANES.indexOf(this.plane)];
    return volume.inScan(
      this.plane, index, along(row, rows, height / scaleY) - 0.5, along(column, columns, width / scaleX) - 0.5,
    );
  }

  /** Draw the slice. @returns {boolean} whether all that it is cut from was there */
  draw(/** @type {Volume} */ volume, state) {
    const { context, canvas } = this;
    const index = state.cross[PLANES.indexOf(this.plane)];
    const place = this.place(volume, state);
    const whole = volume.has(this.plane, index, state.slab.reach);
    // A slice that has not arrived: what was there before stays, rather than a flash of black.
    if (!whole && this.plane === "axial" && (this.drawn || !volume.held)) return false;
    this.drawn = true;
    const values = volume.values(this.plane, index, state.slab);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.setTransform(place.scaleX, 0, 0, place.scaleY, place.left, place.top);
    this.layGrey(values, place, state);
    this.layMasks(volume, values, place, state, index);
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.measures(volume, place, state, index);
    this.crosses(volume, place, state, index);
    this.signs(place.perMm);
    return whole;
  }

  sheet(/** @type {number} */ which, { rows, columns }) {
    const sheet = this.sheets[which];
    if (sheet.width !== columns || sheet.height !== rows || !sheet.pixels) {
      Object.assign(sheet, { width: columns, height: rows });
      sheet.image = new ImageData(columns, rows);
      sheet.pixels = new Uint32Array(sheet.image.data.buffer);
    }
    return sheet;
  }

  lay(/** @type {HTMLCanvasElement} */ sheet, /** @type {boolean} */ smooth) {
    sheet.getContext("2d").putImageData(sheet.image, 0, 0);
    this.context.imageSmoothingEnabled = smooth;
    this.context.drawImage(sheet, 0, 0);
  }

  layGrey({ hu, heat }, place, { level, width, zoom, shown, opacity, heatColors }) {
    const sheet = this.sheet(0, place);
    const { pixels } = sheet;
    const bits = new Uint16Array(hu.buffer, hu.byteOffset, hu.length);
    this.greys.set(level, width);
    const { table, bytes } = this.greys;
    for (let i = 0; i < bits.length; i++) pixels[i] = table[bits[i]];
    if (heat && shown.has("heat")) {
      for (let i = 0; i < bits.length; i++) {
        const share = heat[i] / 255;
        const alpha = opacity * share * share; // low heat leaves the picture as it is; Python's still does the same
        if (alpha < 0.004) continue;
        const grey = bytes[bits[i]] * (1 - alpha);
        const [r, g, b] = heatColors[heat[i]];
        pixels[i] = packed([Math.round(grey + alpha * r), Math.round(grey + alpha * g), Math.round(grey + alpha * b)], 1);
      }
    }
    this.lay(sheet, zoom < CRISP);
  }

  layMasks(/** @type {Volume} */ volume, { bits }, place, state, /** @type {number} */ index) {
    const { masks } = volume.header;
    const seen = masks.filter(({ name }) => state.shown.has(name));
    if (!seen.length) return;
    if (state.overlay === "outline" && Math.min(place.scaleX, place.scaleY) >= TRACED * devicePixelRatio) {
      for (const mask of seen) this.trace(volume, masks.indexOf(mask), mask.color, bits, place, index);
      return;
    }
    const sheet = this.sheet(1, place);
    const { pixels } = sheet;
    const { rows, columns } = place;
    pixels.fill(0);
    bits.forEach((group, g) => {
      const eight = masks.slice(8 * g, 8 * g + 8);
      const filled = state.overlay === "fill";
      const colors = mixtures(eight, state.shown, filled ? state.opacity : 1);
      if (filled) {
        for (let i = 0; i < group.length; i++) if (group[i]) pixels[i] = colors[group[i]];
        return;
      }
      for (let y = 0, i = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++, i++) {
          const here = group[i];
          if (!here) continue;
          let core = here; // at the picture's edge an outline stays open
          if (x) core &= group[i - 1];
          if (x < columns - 1) core &= group[i + 1];
          if (y) core &= group[i - columns];
          if (y < rows - 1) core &= group[i + columns];
          const rim = here & ~core;
          if (rim && colors[rim]) pixels[i] = colors[rim];
        }
      }
    });
    this.lay(sheet, false);
  }

  /** Follow the edges between voxels inside and outside a mask, crisp at any zoom. */
  trace(/** @type {Volume} */ volume, /** @type {number} */ k, /** @type {string} */ color, /** @type {Uint8Array[]} */ bits, place, /** @type {number} */ index) {
    const { context } = this;
    const { rows, columns, left, top, scaleX, scaleY } = place;
    const key = `${k} ${index} ${volume.held}`;
    let edges = this.traced.get(k);
    if (edges?.key !== key) {
      const [group, bit] = [bits[k >> 3], 1 << (k & 7)];
      const inside = (/** @type {number} */ y, /** @type {number} */ x) =>
        y >= 0 && x >= 0 && y < rows && x < columns && (group[y * columns + x] & bit) !== 0;
      const lines = [];
      for (let y = 0; y <= rows; y++) {
        for (let x = 0, start = -1; x <= columns; x++) {
          const edge = x < columns && inside(y, x) !== inside(y - 1, x);
          if (edge && start < 0) start = x;
          if (!edge && start >= 0) { lines.push(start, y, x, y); start = -1; }
        }
      }
      for (let x = 0; x <= columns; x++) {
        for (let y = 0, start = -1; y <= rows; y++) {
          const edge = y < rows && inside(y, x) !== inside(y, x - 1);
          if (edge && start < 0) start = y;
          if (!edge && start >= 0) { lines.push(x, start, x, y); start = -1; }
        }
      }
      edges = { key, lines };
      this.traced.set(k, edges);
    }
    context.setTransform(1, 0, 0, 1, left, top);
    context.beginPath();
    const { lines } = edges;
    for (let i = 0; i < lines.length; i += 4) {
      context.moveTo(lines[i] * scaleX, lines[i + 1] * scaleY);
      context.lineTo(lines[i + 2] * scaleX, lines[i + 3] * scaleY);
    }
    context.strokeStyle = color;
    context.lineWidth = 1.5 * devicePixelRatio;
    context.lineCap = "square";
    context.stroke();
    context.setTransform(1, 0, 0, 1, 0, 0);
  }

  /** Stroke a path bright in a dark halo, to be seen on any tissue. */
  stroke(/** @type {Path2D} */ path, /** @type {string} */ color, /** @type {number} */ width) {
    const { context } = this;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = "#000b";
    context.lineWidth = (width + 2) * devicePixelRatio;
    context.stroke(path);
    context.strokeStyle = color;
    context.lineWidth = width * devicePixelRatio;
    context.stroke(path);
  }

  write(/** @type {string} */ text, /** @type {number} */ x, /** @type {number} */ y, /** @type {CanvasTextAlign} */ align, /** @type {CanvasTextBaseline} */ baseline, /** @type {number} */ size) {
    const { context } = this;
    context.font = `600 ${size}px system-ui, sans-serif`;
    Object.assign(context, { textAlign: align, textBaseline: baseline, lineJoin: "round", lineWidth: size / 4, strokeStyle: "#000c" });
    context.strokeText(text, x, y);
    context.fillStyle = "#ebebeb";
    context.fillText(text, x, y);
  }

  point(/** @type {Volume} */ volume, { left, top, scaleX, scaleY }, /** @type {Voxel} */ voxel) {
    const [row, column] = volume.inPlane(this.plane, voxel);
    return [left + (column + 0.5) * scaleX, top + (row + 0.5) * scaleY];
  }

  /** The ruler and the circle, on the slices that they lie on. */
  measures(/** @type {Volume} */ volume, place, { ruler, circle }, /** @type {number} */ index) {
    const axis = PLANES.indexOf(this.plane);
    const size = 13 * devicePixelRatio;
    if (ruler && ruler.plane === this.plane && Math.round(ruler.from[axis]) === index) {
      const [a, b] = [ruler.from, ruler.to].map((end) => this.point(volume, place, end));
      const path = new Path2D();
      path.moveTo(a[0], a[1]);
      path.lineTo(b[0], b[1]);
      for (const [x, y] of [a, b]) {
        path.moveTo(x + 3 * devicePixelRatio, y);
        path.arc(x, y, 3 * devicePixelRatio, 0, 7);
      }
      this.stroke(path, "#7ee8fa", 1.5);
      this.write(`${ruler.mm.toFixed(1)} mm`, Math.max(a[0], b[0]) + 8 * devicePixelRatio, (a[1] + b[1]) / 2, "left", "middle", size);
    }
    if (circle && circle.plane === this.plane && Math.round(circle.centre[axis]) === index) {
      const [x, y] = this.point(volume, place, circle.centre);
      const radius = circle.radius_mm * place.perMm;
      const path = new Path2D();
      path.arc(x, y, Math.max(radius, 1), 0, 7);
      this.stroke(path, "#7ee8fa", 1.5);
      if (circle.voxels === undefined) return;
      const said = [`${Math.round(circle.mean_hu)} ± ${Math.round(circle.sd_hu)} HU`, `${(circle.area_mm2 / 100).toFixed(2)} cm² · ${circle.volume_ml.toFixed(2)} mL`];
      said.forEach((line, i) => this.write(line, x, y + radius + (6 + 17 * i) * devicePixelRatio, "center", "top", size));
    }
  }

  /** The probe's cross, and where the other two planes cut this one. */
  crosses(/** @type {Volume} */ volume, place, { probe, three, cross }, /** @type {number} */ index) {
    const axis = PLANES.indexOf(this.plane);
    const unit = devicePixelRatio;
    if (three) {
      const [x, y] = this.point(volume, place, cross);
      const path = new Path2D(`M0 ${y}H${x - 14 * unit}M${x + 14 * unit} ${y}H${this.canvas.width}M${x} 0V${y - 14 * unit}M${x} ${y + 14 * unit}V${this.canvas.height}`);
      this.context.strokeStyle = "#7ee8fa90";
      this.context.lineWidth = unit;
      this.context.stroke(path);
    }
    if (probe && probe[axis] === index) {
      const [x, y] = this.point(volume, place, probe);
      const path = new Path2D();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        path.moveTo(x + 5 * unit * dx, y + 5 * unit * dy);
        path.lineTo(x + 15 * unit * dx, y + 15 * unit * dy);
      }
      this.stroke(path, "#fff", 1.5);
    }
  }

  signs(/** @type {number} */ perMm) {
    const { width, height } = this.canvas;
    const size = Math.round(Math.min(22, Math.max(12, width / devicePixelRatio / 34)) * devicePixelRatio);
    const edge = size * 0.5;
    const [left, right, top, bottom] = LETTERS[this.plane];
    this.write(left, edge, height / 2, "left", "middle", size);
    this.write(right, width - edge, height / 2, "right", "middle", size);
    this.write(top, width / 2, edge, "center", "top", size);
    this.write(bottom, width / 2, height - edge, "center", "bottom", size);
    const lengthMm = [100, 50, 20, 10, 5, 2].find((mm) => mm * perMm < width / 4) ?? 1;
    const [x, y, tick] = [width - edge, height - edge, size / 3];
    this.stroke(new Path2D(`M${x - lengthMm * perMm} ${y - tick}V${y}H${x}V${y - tick}`), "#ebebeb", 1.5);
    this.write(lengthMm >= 10 ? `${lengthMm / 10} cm` : `${lengthMm} mm`, x - (lengthMm * perMm) / 2, y - tick, "center", "bottom", size * 0.85);
  }
}

/** The 256 colours of heat between its two ends. */
function heatScale([cold, hot]) {
  return Array.from({ length: 256 }, (_, i) => cold.map((low, channel) => Math.round(low + ((hot[channel] - low) * i) / 255)));
}

/** Values per axial slice under the picture. All curves have one scale, from 0 to the highest value. */
class Curves {
  constructor(/** @type {HTMLCanvasElement} */ canvas, { curves, marks, shape }) {
    Object.assign(this, { canvas, curves, marks, last: shape[0] - 1 });
    this.top = Math.max(1e-9, ...curves.flatMap(({ values }) => values.map((value) => value ?? 0)));
  }

  x(/** @type {number} */ index) {
    const margin = 10 * devicePixelRatio;
    return margin + (index * (this.canvas.width - 2 * margin)) / Math.max(1, this.last);
  }

  indexAt(/** @type {number} */ x) {
    const share = (x - this.x(0)) / (this.x(this.last) - this.x(0) || 1);
    return Math.min(this.last, Math.max(0, Math.round(share * this.last)));
  }

  draw(/** @type {number} */ index) {
    const { canvas } = this;
    const context = canvas.getContext("2d");
    const unit = devicePixelRatio;
    const [floor, room] = [canvas.height - 3 * unit, canvas.height - 13 * unit];
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (const { values, color } of this.curves) {
      const line = new Path2D();
      values.forEach((value, z) => line.lineTo(this.x(z), floor - (room * Math.max(0, value ?? 0)) / this.top));
      if (this.curves.length === 1) {
        const area = new Path2D(line);
        area.lineTo(this.x(this.last), floor);
        area.lineTo(this.x(0), floor);
        context.globalAlpha = 0.3;
        context.fillStyle = color;
        context.fill(area);
        context.globalAlpha = 1;
      }
      context.strokeStyle = color;
      context.lineWidth = 1.5 * unit;
      context.stroke(line);
    }
    context.fillStyle = "#ebebeb";
    for (const z of this.marks) {
      const x = this.x(z);
      context.fill(new Path2D(`M${x - 4 * unit} 0H${x + 4 * unit}L${x} ${7 * unit}Z`));
    }
    context.fillRect(Math.round(this.x(index)) - unit, 0, 2 * unit, canvas.height);
  }
}
