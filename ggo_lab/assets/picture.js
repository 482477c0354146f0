
// Drawing: one slice with its overlays, letters and scale bar, on a canvas.

const LETTERS = { axial: "RLAP", coronal: "RLHF", sagittal: "APHF" };

class Picture {
  constructor(canvas, scan) {
    this.canvas = canvas;
    this.scan = scan;
    this.context = canvas.getContext("2d");
    this.sheet = document.createElement("canvas");
    this.greys = new Uint8Array(65536);
  }

  // Where the slice lies on the canvas, in its pixels: scaled to fit, then zoomed around the view's centre.
  place(state) {
    const layout = layoutOf(this.scan, state.plane, state.index);
    const { width, height } = this.canvas;
    const [tall, broad] = [layout.rows * layout.dy, layout.columns * layout.dx];
    const perMm = Math.min(width / broad, height / tall) * state.zoom;
    return {
      layout, perMm, scaleX: perMm * layout.dx, scaleY: perMm * layout.dy,
      left: width / 2 - state.centreX * broad * perMm, top: height / 2 - state.centreY * tall * perMm,
    };
  }

  // The voxel under a point of the canvas, or null outside the slice.
  voxelAt(state, x, y) {
    const { layout, left, top, scaleX, scaleY } = this.place(state);
    const [column, row] = [Math.floor((x - left) / scaleX), Math.floor((y - top) / scaleY)];
    if (column < 0 || row < 0 || column >= layout.columns || row >= layout.rows) return null;
    return layout.start + row * layout.row + column * layout.column;
  }

  draw(state) {
    const { context, canvas } = this;
    const place = this.place(state);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.setTransform(place.scaleX, 0, 0, place.scaleY, place.left, place.top);
    this.setWindow(state.level, state.width);
    context.imageSmoothingEnabled = state.zoom < 4;
    this.lay(place.layout, (pixels, at, from) => { pixels[at] = 0xff000000 | (this.greys[this.scan.hu[from] + 32768] * 0x010101); });
    if (this.scan.heat && state.shown.has("heat")) {
      context.globalAlpha = state.opacity;
      const colors = heatColors(this.scan.heatEnds);
      this.lay(place.layout, (pixels, at, from) => { pixels[at] = colors[this.scan.heat[from]]; });
    }
    context.imageSmoothingEnabled = false;
    for (const mask of this.scan.masks.filter(({ name }) => state.shown.has(name))) {
      if (state.overlay === "fill") {
        context.globalAlpha = state.opacity;
        const color = rgba(mask.color);
        this.lay(place.layout, (pixels, at, from) => { pixels[at] = mask.voxels[from] ? color : 0; });
      } else {
        context.globalAlpha = 1;
        this.outline(mask, place);
      }
    }
    context.globalAlpha = 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.sign(state.plane, place.perMm);
  }

  // Paint one pixel per voxel on a small sheet, and lay it over the canvas in one stroke.
  lay({ start, row, column, rows, columns }, paint) {
    if (this.sheet.width !== columns || this.sheet.height !== rows) {
      this.sheet.width = columns;
      this.sheet.height = rows;
    }
    const image = new ImageData(columns, rows);
    const pixels = new Uint32Array(image.data.buffer);
    for (let at = 0, y = 0; y < rows; y++) {
      for (let x = 0, from = start + y * row; x < columns; x++, from += column) paint(pixels, at++, from);
    }
    this.sheet.getContext("2d").putImageData(image, 0, 0);
    this.context.drawImage(this.sheet, 0, 0);
  }

  setWindow(level, width) {
    if (this.level === level && this.width === width) return;
    Object.assign(this, { level, width });
    for (let i = 0; i < 65536; i++) {
      const grey = ((i - 32768 - (level - width / 2)) * 255) / width;
      this.greys[i] = Math.floor(Math.min(255, Math.max(0, grey)) + 0.5);
    }
  }

  // Follow the edges between voxels inside and outside, crisp at any zoom.
  outline({ voxels, color }, { layout: { start, row, column, rows, columns }, left, top, scaleX, scaleY }) {
    const { context } = this;
    const inside = (y, x) => y >= 0 && x >= 0 && y < rows && x < columns && voxels[start + y * row + x * column] === 1;
    context.setTransform(1, 0, 0, 1, left, top);
    context.beginPath();
    for (let y = 0; y <= rows; y++) {
      for (let x = 0; x <= columns; x++) {
        const here = inside(y, x);
        if (here !== inside(y - 1, x)) {
          context.moveTo(x * scaleX, y * scaleY);
          context.lineTo((x + 1) * scaleX, y * scaleY);
        }
        if (here !== inside(y, x - 1)) {
          context.moveTo(x * scaleX, y * scaleY);
          context.lineTo(x * scaleX, (y + 1) * scaleY);
        }
      }
    }
    context.strokeStyle = color;
    context.lineWidth = 1.5 * devicePixelRatio;
    context.lineCap = "square";
    context.stroke();
    context.setTransform(scaleX, 0, 0, scaleY, left, top);
  }

  sign(plane, perMm) {
    const { context, canvas: { width, height } } = this;
    const size = Math.round(Math.max(13 * devicePixelRatio, width / 36));
    const edge = size * 0.5;
    const write = (text, x, y, align, baseline) => {
      context.textAlign = align;
      context.textBaseline = baseline;
      context.lineWidth = size / 4;
      context.strokeStyle = "#000a";
      context.strokeText(text, x, y);
      context.fillStyle = "#ebebeb";
      context.fillText(text, x, y);
    };
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.lineJoin = "round";
    const [left, right, top, bottom] = LETTERS[plane];
    write(left, edge, height / 2, "left", "middle");
    write(right, width - edge, height / 2, "right", "middle");
    write(top, width / 2, edge, "center", "top");
    write(bottom, width / 2, height - edge, "center", "bottom");
    const lengthMm = [100, 50, 10, 5].find((mm) => mm * perMm < width / 3) ?? 1;
    const [x, y] = [width - edge, height - edge];
    const bar = new Path2D(`M${x - lengthMm * perMm} ${y - size / 3}V${y}H${x}V${y - size / 3}`);
    context.lineWidth = size / 3;
    context.strokeStyle = "#000a";
    context.stroke(bar);
    context.lineWidth = Math.max(1.5, size / 9);
    context.strokeStyle = "#ebebeb";
    context.stroke(bar);
    write(lengthMm >= 10 ? `${lengthMm / 10} cm` : `${lengthMm} mm`, x - (lengthMm * perMm) / 2, y - size / 2, "center", "bottom");
  }
}

// A colour #rrggbb as ImageData keeps it in 32 bits on the little-endian machines that browsers run on.
function rgba(color, alpha = 255) {
  const value = parseInt(color.slice(1), 16);
  return ((alpha << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}

function heatColors([cold, hot]) {
  const colors = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const [r, g, b] = cold.map((low, channel) => Math.round(low + ((hot[channel] - low) * i) / 255));
    colors[i] = ((i << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  return colors;
}

// Values per axial slice under the picture; a click jumps there. All curves have one scale, from 0 to the highest value.
class Curve {
  constructor(canvas, { curves, marks, shape }) {
    Object.assign(this, { canvas, curves, marks, last: shape[0] - 1 });
    this.top = Math.max(1e-9, ...curves.flatMap(({ values }) => values.map((value) => value ?? 0)));
  }

  x(index) {
    const margin = 8 * devicePixelRatio;
    return margin + (index * (this.canvas.width - 2 * margin)) / Math.max(1, this.last);
  }

  indexAt(x) {
    const share = (x - this.x(0)) / (this.x(this.last) - this.x(0) || 1);
    return Math.min(this.last, Math.max(0, Math.round(share * this.last)));
  }

  draw(index) {
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
