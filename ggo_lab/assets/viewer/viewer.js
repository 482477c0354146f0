// The viewer: one state, kept in a model that Python may share; controls around the pictures; all drawn once a frame.

const FROM = ["above the lowest slice", "behind the front edge", "from the patient's right edge"];
const PROJECTIONS = ["mean", "MIP", "MinIP"];
const MOST_ZOOM = 12;
const PLAY_MS = 80;
const KEYS = [
  ["wheel, ↑ ↓, drag", "next slice (the wheel: after a click on the picture)"],
  ["Page ↑ ↓, Home, End", "five slices; first, last slice"],
  ["A C S, T", "plane; three planes at once"],
  ["N, Shift + N", "next, previous lesion"],
  ["1 2 3 4, right drag", "window; its level and width"],
  ["O, F", "overlays on and off; outlined or filled"],
  ["+ − 0, Ctrl + wheel, pinch", "enlarge about the pointer; whole slice"],
  ["drag when enlarged, Shift + drag", "move the picture"],
  ["click, P, Shift + arrows", "read the HU there; from the middle; move"],
  ["R, E", "ruler, circle: drag, or Enter at both ends"],
  ["space", "play, pause"],
  ["Esc", "put tool and measure away"],
];
const ICONS = {
  three: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  ruler: "M3 16 16 3l5 5L8 21zM8 11l2 2M11 8l2 2M14 5l2 2",
  circle: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 11.5v1M11.5 12h1",
  previous: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  play: "M8 5v14l11-7z",
  pause: "M8 5v14M16 5v14",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  save: "M12 4v11M7 11l5 5 5-5M4 20h16",
  screen: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  help: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5v.5",
};
let viewers = 0;

function icon(/** @type {keyof typeof ICONS} */ name) {
  const [svg, path] = ["svg", "path"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const clamp = (/** @type {number} */ value, /** @type {number} */ low, /** @type {number} */ high) => Math.min(high, Math.max(low, value));

class Viewer {
  /**
   * @param {HTMLElement} place  what the viewer is put into
   * @param model  keeps the state: `get`, `set`, `save_changes`, `on`, `off`, `send`, as in Jupyter's widgets
   */
  constructor(place, model) {
    this.model = model;
    this.id = `ggo-${(viewers += 1)}-${Math.random().toString(36).slice(2, 8)}`;
    this.tool = null;
    this.playing = null;
    this.frame = 0;
    this.over = null; // the picture and the point on it that the mouse is over
    this.root = make("div", { className: "ggo ggo-viewer" });
    this.root.setAttribute("data-jp-suppress-context-menu", "");
    this.root.viewer = this;
    place.append(this.root);
    this.heard = { change: () => this.changed(), "msg:custom": (/** @type {any} */ content, buffers) => this.told(content, buffers) };
    for (const [name, listener] of Object.entries(this.heard)) model.on(name, listener);
    this.keyed = (/** @type {KeyboardEvent} */ event) => this.key(event);
    // Before JupyterLab, which listens at the document, takes a letter for a command on the cell.
    window.addEventListener("keydown", this.keyed, true);
    this.sized = () => this.fit();
    window.addEventListener("resize", this.sized);
    this.observer = new ResizeObserver(this.sized);
    this.open();
  }

  /** Free everything. */
  close() {
    cancelAnimationFrame(this.frame);
    clearInterval(this.playing);
    for (const [name, listener] of Object.entries(this.heard)) this.model.off(name, listener);
    window.removeEventListener("keydown", this.keyed, true);
    window.removeEventListener("resize", this.sized);
    this.observer.disconnect();
    this.volume = this.pictures = null;
    this.root.remove();
  }

  // The state

  /** Show the scan that the model holds, in place of the one before. */
  open() {
    const header = this.model.get("_scan");
    this.header = header;
    this.lesions = this.from = null;
    this.volume = new Volume(
      header, (indices) => this.model.send({ kind: "slices", serial: header.serial, indices }), () => this.draw(),
    );
    this.build();
    this.play(Boolean(this.playing));
    this.volume.asked.add(header.first.index); // it is here, and only has to be unpacked
    this.volume.add(header.first.index, bytesOf(header.first.packed));
    this.fit();
  }

  changed() {
    const { serial } = this.model.get("_scan");
    if (serial === undefined) return; // it is being closed
    if (serial !== this.header.serial) this.open();
    this.draw();
  }

  /** What the kernel, or the page in its place, answers. */
  told(/** @type {any} */ content, /** @type {ArrayBufferView[]} */ buffers) {
    if (content.serial !== this.header.serial) return;
    if (content.kind === "slices") content.indices.forEach((z, i) => this.volume.add(z, bytesOf(buffers[i])));
    if (content.kind === "lesions") {
      this.lesions = content.places;
      this.lesion(this.step);
    }
  }

  get(/** @type {string} */ name) {
    return this.model.get(name);
  }

  /** Change the state, and tell Python once a frame. */
  set(/** @type {Record<string, any>} */ changes) {
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.unsaved = true;
    this.draw();
  }

  get axis() {
    return PLANES.indexOf(this.get("plane"));
  }

  get last() {
    return this.header.shape[this.axis] - 1;
  }

  /** The state as pictures need it. */
  view() {
    const window_ = this.get("window");
    const [level, width] = typeof window_ === "string" ? this.header.windows[window_] : window_;
    const slices = this.get("slab") / this.header.spacing[this.axis];
    return {
      cross: this.get("cross"), zoom: this.get("zoom"), centre: this.get("centre"), probe: this.get("probe"), level, width,
      shown: new Set(this.get("shown")), overlay: this.get("overlay"), opacity: this.get("opacity"),
      three: this.get("three_planes"), ruler: this.get("ruler"), circle: this.get("circle"), heatColors: this.heatColors,
      slab: { reach: Math.max(0, Math.round((slices - 1) / 2)), projection: this.get("projection") },
    };
  }

  go(/** @type {number} */ index) {
    const at = clamp(index, 0, this.last);
    this.set({ index: at, cross: this.get("cross").map((was, axis) => (axis === this.axis ? at : was)) });
  }

  choosePlane(/** @type {Plane} */ plane) {
    this.set({ plane, index: this.get("cross")[PLANES.indexOf(plane)], pointer: null });
  }

  /** Go to a voxel in every plane, and read it. */
  probeAt(/** @type {Voxel|null} */ voxel) {
    this.set(voxel ? { probe: voxel, cross: voxel, index: voxel[this.axis] } : { probe: null });
  }

  zoomTo(/** @type {number} */ zoom, /** @type {Picture} */ picture = this.picture, x = picture.canvas.width / 2, y = picture.canvas.height / 2) {
    const to = clamp(zoom, 1, MOST_ZOOM);
    this.set({ zoom: to, centre: to === 1 ? null : picture.centreFor(this.volume, this.view(), to, x, y) });
  }

  lesion(/** @type {number} */ step) {
    this.step = step;
    if (!this.lesions) {
      this.model.send({ kind: "lesions", serial: this.header.serial });
      return;
    }
    if (!this.lesions.length) return;
    const here = this.lesions.findIndex((place) => place.every((at, axis) => at === this.get("probe")?.[axis]));
    const next = here < 0 ? (step > 0 ? 0 : this.lesions.length - 1) : (here + step + this.lesions.length) % this.lesions.length;
    this.probeAt(this.lesions[next]);
  }

  play(/** @type {boolean} */ on) {
    clearInterval(this.playing);
    this.playing = on ? setInterval(() => this.go(this.get("index") < this.last ? this.get("index") + 1 : 0), PLAY_MS) : null;
    this.parts.play.replaceChildren(icon(on ? "pause" : "play"));
    this.parts.play.setAttribute("aria-label", on ? "Pause" : "Play through the slices");
  }

  /** The names of all that can lie over the slices. */
  get overlays() {
    return [...this.header.masks.map(({ name }) => name), ...(this.header.heat ? ["heat"] : [])];
  }

  toggleOverlays() {
    this.set({ shown: this.get("shown").length ? [] : this.overlays });
  }

  choose(/** @type {"ruler"|"circle"|null} */ tool) {
    this.tool = this.tool === tool ? null : tool;
    this.from = null;
    this.draw();
  }

  /** Lay the ruler or the circle from one place to another; a circle in asking mode is an answer once it is let go. */
  measure(/** @type {"ruler"|"circle"} */ tool, /** @type {Plane} */ plane, /** @type {Voxel} */ from, /** @type {Voxel} */ to, done = true) {
    const mm = this.volume.distance(from, to);
    if (tool === "ruler") this.set({ ruler: mm ? { plane, from, to, mm } : null });
    else this.set({ circle: mm ? this.volume.circle(plane, from, mm) : null });
    if (done && tool === "circle" && mm && this.get("asking") === "circle") this.set({ answer: this.get("circle") });
  }

  /** Answer the question with a voxel. */
  answer(/** @type {Voxel} */ voxel) {
    this.set({ answer: { voxel, hu: this.volume.at(voxel)?.hu ?? null } });
  }

  // What it is made of

  get picture() {
    return this.pictures[this.axis];
  }

  radios(/** @type {string} */ name, /** @type {string} */ legend, /** @type {string[]} */ values, /** @type {(value: string) => void} */ choose) {
    const inputs = values.map((value) => make("input", { type: "radio", name: `${this.id}-${name}`, value, on: { change: () => choose(value) } }));
    const labels = inputs.map((input, i) => make(
      // After a mouse click the arrow keys should scroll on, not choose the next name; keyboard users keep their place.
      "label", { on: { click: (/** @type {MouseEvent} */ event) => event.detail && this.focus() } }, input, make("span", {}, values[i]),
    ));
    return { inputs, box: make("fieldset", { className: "ggo-choices" }, make("legend", { className: "ggo-unseen" }, legend), ...labels) };
  }

  button(/** @type {keyof typeof ICONS} */ name, /** @type {string} */ label, /** @type {() => void} */ press, pressed = false) {
    const aria = pressed ? { label, pressed: "false" } : { label };
    return make("button", { type: "button", title: label, className: "ggo-icon", aria, on: { click: press } }, icon(name));
  }

  /** A slider with a field beside it that takes what is typed as typed. */
  field(/** @type {string} */ name, /** @type {number[]} */ [min, max, step], /** @type {string} */ unit, /** @type {(value: number) => void} */ take) {
    const listen = { input: (/** @type {any} */ { target }) => Number.isFinite(target.valueAsNumber) && take(target.valueAsNumber) };
    const slider = make("input", { type: "range", min, max, step, aria: { label: name }, on: listen });
    const number = make("input", { type: "number", step: "any", aria: { label: `${name}, ${unit}` }, on: listen });
    return { slider, number, box: make("div", { className: "ggo-field" }, make("span", {}, name), slider, number) };
  }

  build() {
    const { header } = this;
    const names = this.overlays;
    this.heatColors = heatScale(header.heatEnds);
    const [planes, presets, overlays, projections] = [
      this.radios("plane", "Plane", PLANES, (plane) => this.choosePlane(plane)),
      this.radios("window", "Window", Object.keys(header.windows), (window_) => this.set({ window: window_ })),
      this.radios("overlay", "Masks drawn as", ["outline", "fill"], (overlay) => this.set({ overlay })),
      this.radios("projection", "Slab shows", PROJECTIONS, (projection) => this.set({ projection })),
    ];
    const parts = (this.parts = {
      planes, presets, overlays, projections,
      three: this.button("three", "Three planes at once", () => this.set({ three_planes: !this.get("three_planes") }), true),
      ruler: this.button("ruler", "Ruler", () => this.choose("ruler"), true),
      circle: this.button("circle", "Circle: mean and spread of the HU in it", () => this.choose("circle"), true),
      play: this.button("play", "Play through the slices", () => this.play(!this.playing)),
      slice: make("input", { type: "range", min: 0, step: 1, className: "ggo-slice", aria: { label: "Slice" }, on: { input: ({ target }) => this.go(target.valueAsNumber) } }),
      number: make("input", {
        type: "number", min: 0, step: 1, aria: { label: "Number of the slice" },
        on: { input: ({ target }) => Number.isInteger(target.valueAsNumber) && this.go(target.valueAsNumber) },
      }),
      caption: make("div", { className: "ggo-caption", id: `${this.id}-caption`, aria: { role: "status" } }),
      grey: make("div", { className: "ggo-grey" }),
      reading: make("div", { className: "ggo-reading" }),
      spoken: make("div", { className: "ggo-unseen", aria: { role: "status" } }),
      waiting: make("div", { className: "ggo-waiting", hidden: true }, "loading slices …"),
      question: make("div", { className: "ggo-question", hidden: true, aria: { role: "status" } }),
      level: this.field("level", [-1200, 1200, 1], "HU", (level) => this.set({ window: [level, this.view().width] })),
      width: this.field("width", [1, 3000, 1], "HU", (width) => width > 0 && this.set({ window: [this.view().level, width] })),
      opacity: this.field("opacity", [0, 100, 1], "%", (share) => this.set({ opacity: clamp(share, 0, 100) / 100 })),
      slab: this.field("slab", [0, 50, 1], "mm", (slab) => slab >= 0 && this.set({ slab })),
      curve: header.curves.length || header.marks.length ? make("canvas", { className: "ggo-curve", aria: { hidden: "true" } }) : null,
      boxes: names.map((name) => make("input", { type: "checkbox", value: name, on: { change: () => this.set({ shown: names.filter((_n, i) => parts.boxes[i].checked) }) } })),
      help: make("dialog", { className: "ggo-help", aria: { label: "Keys and gestures" } }),
    });
    parts.stage = make("div", {
      className: "ggo-stage", tabIndex: 0,
      aria: {
        role: "application", describedby: parts.caption.id,
        label: `CT picture of ${header.name}. Arrow keys move one slice, page keys five, space plays; A, C and S choose the plane; question mark lists the keys.`,
      },
    });
    this.pictures = PLANES.map((plane) => new Picture(make("canvas", { className: "ggo-picture" }), plane));
    parts.stage.append(...this.pictures.map(({ canvas }) => canvas));
    const picture = make("div", { className: "ggo-view" }, parts.stage, parts.caption, parts.grey, parts.reading, parts.waiting);
    this.pictures.forEach((picture) => this.listen(picture));
    if (parts.curve) {
      this.curves = new Curves(parts.curve, header);
      const jump = (/** @type {PointerEvent} */ event) => {
        if (this.get("plane") !== "axial") this.choosePlane("axial");
        this.go(this.curves.indexAt((event.clientX - parts.curve.getBoundingClientRect().left) * devicePixelRatio));
      };
      parts.curve.addEventListener("pointerdown", (event) => { parts.curve.setPointerCapture(event.pointerId); this.focus(); jump(event); });
      parts.curve.addEventListener("pointermove", (event) => event.buttons && jump(event));
    } else this.curves = null;
    const lesions = header.lesions ? [
      this.button("previous", "Previous lesion", () => this.lesion(-1)), make("span", { className: "ggo-between" }, "lesion"),
      this.button("next", "Next lesion", () => this.lesion(1)),
    ] : [];
    parts.lesions = lesions.filter(({ tagName }) => tagName === "BUTTON");
    const dl = make("dl", {}, ...KEYS.flatMap(([key, does]) => [make("dt", {}, key), make("dd", {}, does)]));
    parts.help.append(make("h2", {}, "Keys and gestures"), dl, make("button", { type: "button", className: "ggo-plain", on: { click: () => parts.help.close() } }, "Close"));
    const bar = make(
      "div", { className: "ggo-bar" }, planes.box, make("div", { className: "ggo-tools" }, parts.three, parts.ruler, parts.circle, ...lesions),
      make(
        "div", { className: "ggo-tools ggo-end" }, this.button("copy", "Copy the picture", () => this.export(true)),
        this.button("save", "Save the picture", () => this.export(false)),
        this.button("screen", "Full screen", () => this.fullScreen()), this.button("help", "Keys and gestures", () => this.showHelp()),
      ),
    );
    const moving = make("div", { className: "ggo-moving" }, parts.play, parts.slice, parts.number);
    const masks = names.length ? make(
      "section", {}, make("h2", {}, "Overlays"),
      make("ul", { className: "ggo-legend" }, ...names.map((name, i) => this.legend(name, parts.boxes[i]))),
      header.masks.length ? overlays.box : null, parts.opacity.box,
    ) : null;
    const side = make(
      "div", { className: "ggo-side" },
      make("section", {}, make("h2", {}, "Window"), presets.box, parts.level.box, parts.width.box), masks,
      make("section", {}, make("h2", {}, "Thick slab"), parts.slab.box, projections.box),
    );
    const main = make("div", { className: "ggo-main" }, bar, parts.question, picture, parts.curve, moving, parts.spoken);
    this.root.replaceChildren(
      make("p", { className: "ggo-title" }, make("b", {}, header.name), make("span", {}, ` · ${header.about}`)),
      make("div", { className: "ggo-body" }, main, side), parts.help,
    );
    this.observer.disconnect();
    this.observer.observe(parts.stage);
  }

  legend(/** @type {string} */ name, /** @type {HTMLInputElement} */ box) {
    const mask = this.header.masks.find((known) => known.name === name);
    const swatch = make("span", { className: "ggo-swatch" });
    const note = make("span", { className: "ggo-fine" });
    if (mask) {
      swatch.style.background = mask.color;
      note.textContent = mask.ml >= 10 ? `${Math.round(mask.ml)} mL` : `${mask.ml.toFixed(1)} mL`;
    } else {
      const stops = [0, 64, 128, 192, 255].map((i) => `rgba(${this.heatColors[i]}, ${(i / 255) ** 2})`);
      swatch.classList.add("ggo-scale");
      swatch.style.background = `linear-gradient(90deg, ${stops}), #444`;
      note.textContent = "low to high";
    }
    return make("li", {}, make("label", {}, box, swatch, make("span", {}, name), note));
  }

  // Drawing

  /** Give every canvas the pixels of its place on the screen. */
  fit() {
    if (!this.parts) return;
    // In a frame of its own, as in Colab, the window is as high as what it holds.
    const room = window.parent === window || this.root.closest("body")?.dataset.notebook ? window.innerHeight : screen.availHeight * 0.85;
    this.root.style.setProperty("--ggo-room", `${Math.round(room)}px`);
    const size = this.get("_size");
    this.root.style.setProperty("--ggo-most", size ? `${size}px` : "720px");
    const three = this.get("three_planes");
    this.parts.stage.classList.toggle("ggo-three", three);
    this.pictures.forEach(({ canvas, plane }) => {
      canvas.hidden = !three && plane !== this.get("plane");
      canvas.classList.toggle("ggo-active", three && plane === this.get("plane"));
    });
    for (const canvas of [...this.pictures.map((picture) => picture.canvas), this.parts.curve]) {
      if (!canvas || canvas.hidden) continue;
      const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((n) => Math.max(1, Math.round(n * devicePixelRatio)));
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== height) canvas.height = height;
    }
    this.laid = `${this.get("plane")} ${three}`;
    this.draw();
  }

  draw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.show());
  }

  show() {
    this.frame = 0;
    if (!this.volume) return;
    if (this.unsaved) {
      this.unsaved = false;
      this.model.save_changes();
    }
    if (this.laid !== `${this.get("plane")} ${this.get("three_planes")}`) {
      this.fit();
      cancelAnimationFrame(this.frame);
      this.frame = 0;
    }
    const state = this.view();
    const pictures = state.three ? this.pictures : [this.picture];
    const whole = pictures.map((picture) => picture.draw(this.volume, state)).every(Boolean);
    const wanted = new Set(pictures.flatMap(({ plane }) => this.volume.needs(plane, state.cross[PLANES.indexOf(plane)], plane === "axial" ? state.slab.reach : 0)));
    this.volume.ask([...wanted], state.cross[0]);
    this.parts.waiting.hidden = whole;
    this.root.dataset.ready = String(whole);
    this.completeCircle(state);
    this.follow(state);
  }

  /** A circle that Python asks for has no numbers yet. */
  completeCircle({ circle }) {
    if (circle && circle.voxels === undefined && this.volume.has(circle.plane, Math.round(circle.centre[PLANES.indexOf(circle.plane)]))) {
      this.set({ circle: this.volume.circle(circle.plane, circle.centre, circle.radius_mm) });
    }
  }

  /** Bring every control in line with the state. */
  follow(state) {
    const { parts, header } = this;
    const [plane, index] = [this.get("plane"), state.cross[this.axis]];
    parts.planes.inputs.forEach((input) => { input.checked = input.value === plane; });
    parts.presets.inputs.forEach((input) => {
      const [level, width] = header.windows[input.value];
      input.checked = level === state.level && width === state.width;
    });
    parts.overlays.inputs.forEach((input) => { input.checked = input.value === state.overlay; });
    parts.projections.inputs.forEach((input) => {
      input.checked = input.value === state.slab.projection;
      input.disabled = !state.slab.reach;
    });
    parts.boxes.forEach((box) => { box.checked = state.shown.has(box.value); });
    for (const [part, value] of [[parts.level, state.level], [parts.width, state.width], [parts.opacity, Math.round(state.opacity * 100)], [parts.slab, this.get("slab")]]) {
      part.slider.value = value;
      // What is being typed is not written over.
      if (document.activeElement !== part.number || part.number.valueAsNumber !== value) part.number.value = value;
    }
    const transparent = state.overlay === "fill" || (header.heat && state.shown.has("heat"));
    for (const input of [parts.opacity.slider, parts.opacity.number]) {
      input.disabled = !transparent;
      input.title = transparent ? "" : "Outlines are opaque: opacity is of fills and heat.";
    }
    Object.assign(parts.slice, { max: this.last, value: index });
    parts.number.max = this.last;
    if (document.activeElement !== parts.number || parts.number.valueAsNumber !== index) parts.number.value = index;
    parts.three.setAttribute("aria-pressed", String(state.three));
    for (const tool of ["ruler", "circle"]) parts[tool].setAttribute("aria-pressed", String(this.tool === tool));
    parts.stage.classList.toggle("ggo-measuring", this.tool !== null || this.get("asking") === "circle");
    this.caption(plane, index, state);
    this.readings(state);
    if (parts.curve) this.curves.draw(state.cross[0]);
    const question = [this.get("question"), this.get("feedback")].filter(Boolean);
    parts.question.hidden = !question.length;
    if (parts.question.textContent !== question.join("")) parts.question.replaceChildren(...question.map((line) => make("p", {}, line)));
  }

  caption(/** @type {Plane} */ plane, /** @type {number} */ index, state) {
    const { parts, header } = this;
    const place = `${plane} ${index} of 0–${this.last} · ${(index * header.spacing[this.axis]).toFixed(0)} mm ${FROM[this.axis]}`;
    const slab = state.slab.reach ? ` · ${state.slab.projection} of ${2 * state.slab.reach + 1} slices` : "";
    const curves = header.curves.filter(({ values }) => plane === "axial" && values[index] !== null).map(({ name, unit, values }) =>
      name === "lesions" && !unit ? `lesions fill ${Math.round(values[index] * 100)}% of the lung in this slice` : `${name} ${Number(values[index].toPrecision(3))}${unit}`);
    const lines = [place + slab, ...curves];
    if (parts.caption.textContent !== lines.join("")) parts.caption.replaceChildren(...lines.map((line) => make("div", {}, line)));
    parts.slice.setAttribute("aria-valuetext", place);
    // A focused slider says its value itself, and a picture that plays would never stop talking.
    parts.caption.setAttribute("aria-live", this.playing || document.activeElement === parts.slice ? "off" : "polite");
    parts.grey.textContent = `L ${Math.round(state.level)}  W ${Math.round(state.width)}${state.zoom > 1 ? `  ${state.zoom.toFixed(1)}×` : ""}`;
  }

  /** What the voxel under the mouse holds, and the one that was clicked. */
  readings(state) {
    const { parts } = this;
    const over = this.over && !this.over.picture.canvas.hidden ? this.over.picture.voxel(this.volume, state, this.over.x, this.over.y) : null;
    if (String(over) !== String(this.get("pointer"))) {
      this.model.set("pointer", over);
      this.unsaved = true;
      this.draw();
    }
    const lines = [];
    if (state.probe) lines.push(`✛ ${this.reading(state.probe)}`);
    if (over) lines.push(this.reading(over));
    if (parts.reading.textContent !== lines.join("")) parts.reading.replaceChildren(...lines.map((line) => make("div", {}, line)));
    const spoken = state.probe ? this.reading(state.probe) : "";
    if (parts.spoken.textContent !== spoken) parts.spoken.textContent = spoken;
  }

  reading(/** @type {Voxel} */ voxel) {
    const found = this.volume.at(voxel);
    if (!found) return "…";
    const hu = found.hu < PADDING_BELOW_HU ? "outside the scanner's field" : `${found.hu} ${this.header.isHu ? "HU" : "(estimated HU)"}`;
    const mm = voxel.map((at, axis) => `${"zyx"[axis]} ${(at * this.header.spacing[axis]).toFixed(0)}`).join(", ");
    // While a question is open, the names of the masks would be the answer.
    const inside = found.masks.length && !this.get("question") ? ` · in ${found.masks.join(", ")}` : "";
    return `${hu} at ${mm} mm, voxel (${voxel.join(", ")})${inside}`;
  }

  // Hands

  focus() {
    this.parts.stage.focus({ preventScroll: true });
  }

  /** Mouse, pen and fingers on a picture. */
  listen(/** @type {Picture} */ picture) {
    const { canvas, plane } = picture;
    const fingers = new Map();
    let hand = null; // what a pressed button or finger does
    const at = (/** @type {MouseEvent} */ event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * devicePixelRatio, (event.clientY - box.top) * devicePixelRatio];
    };
    const spot = (/** @type {MouseEvent} */ event) => picture.spot(this.volume, this.view(), ...at(event));
    const activate = () => { if (this.get("plane") !== plane) this.choosePlane(plane); };
    let travelled = 0;
    const scroll = (/** @type {number} */ pixels, /** @type {number} */ perSlice) => {
      travelled += pixels;
      const steps = Math.trunc(travelled / perSlice);
      travelled -= steps * perSlice;
      if (steps) this.go(this.get("cross")[this.axis] - steps);
    };
    canvas.addEventListener("wheel", (event) => {
      const [x, y] = at(event);
      if (event.ctrlKey) {
        event.preventDefault();
        activate();
        this.zoomTo(this.get("zoom") * Math.exp(-event.deltaY / 200), picture, x, y);
      } else if (this.root.contains(document.activeElement)) { // otherwise the page scrolls on
        event.preventDefault();
        activate();
        if (Math.abs(event.deltaY) >= 50 || event.deltaMode) this.go(this.get("cross")[this.axis] - Math.sign(event.deltaY));
        else scroll(event.deltaY, 16);
      }
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.focus();
      activate();
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event);
      const tool = this.tool ?? (this.get("asking") === "circle" ? "circle" : null);
      travelled = 0;
      hand = {
        start: event, moved: fingers.size > 1, spread: 0, from: spot(event), tool,
        does: event.button === 2 ? "window" : event.button === 1 || event.shiftKey ? "move" : tool ? "measure" : this.get("zoom") > 1 ? "move" : "scroll",
      };
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      this.over = { picture, x, y };
      const before = fingers.get(event.pointerId);
      if (!before || !hand) {
        this.draw();
        return;
      }
      fingers.set(event.pointerId, event);
      const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
      const slack = event.pointerType === "touch" ? 8 : 3;
      hand.moved ||= Math.hypot(event.clientX - hand.start.clientX, event.clientY - hand.start.clientY) > slack;
      if (fingers.size === 2) {
        const [one, two] = [...fingers.values()];
        const spread = Math.hypot(one.clientX - two.clientX, one.clientY - two.clientY);
        const [a, b] = [at(one), at(two)];
        if (hand.spread) this.zoomTo((this.get("zoom") * spread) / hand.spread, picture, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
        if (this.get("zoom") > 1) this.set({ centre: picture.dragged(this.volume, this.view(), (dx / 2) * devicePixelRatio, (dy / 2) * devicePixelRatio) });
        hand.spread = spread;
      } else if (hand.does === "window") {
        const { level, width } = this.view();
        this.set({ window: [clamp(Math.round(level + dy * 3), -2000, 3000), clamp(Math.round(width + dx * 5), 1, 5000)] });
      } else if (hand.does === "measure") {
        if (hand.moved) this.measure(hand.tool, plane, hand.from, spot(event), false);
      } else if (hand.does === "move") {
        this.set({ centre: picture.dragged(this.volume, this.view(), dx * devicePixelRatio, dy * devicePixelRatio) });
      } else if (hand.moved) scroll(dy, clamp(420 / (this.last + 1), 2, 7));
      this.draw();
    });
    const release = (/** @type {PointerEvent} */ event) => {
      if (!fingers.delete(event.pointerId) || !hand) return;
      const [x, y] = at(event);
      if (event.type === "pointerup" && !hand.moved && hand.start.button === 0) {
        const voxel = picture.voxel(this.volume, this.view(), x, y);
        if (voxel && this.get("asking") === "point") this.answer(voxel);
        if (voxel) this.probeAt(voxel);
      } else if (event.type === "pointerup" && hand.does === "measure" && hand.moved) this.measure(hand.tool, plane, hand.from, spot(event));
      if (event.pointerType === "touch") this.over = null;
      if (!fingers.size) hand = null;
      else hand.moved = true;
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => { this.over = null; this.draw(); });
    canvas.addEventListener("contextmenu", (event) => { event.preventDefault(); event.stopPropagation(); });
    canvas.addEventListener("dblclick", (event) => this.zoomTo(this.get("zoom") > 1 ? 1 : 2, picture, ...at(event)));
  }

  key(/** @type {KeyboardEvent} */ event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (!this.root.contains(target)) return;
    if (guard(event)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // A focused control keeps the keys that move it.
    if (target.matches("input[type=number], dialog *")) return;
    if (target.matches("input[type=range], input[type=radio]") && (key.length > 1 || key === " ")) return;
    if (target.matches("button, input, select") && (key === " " || key === "Enter")) return;
    const does = this.keys(event.shiftKey)[key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  /** @returns {Record<string, () => void>} */
  keys(/** @type {boolean} */ shift) {
    const index = this.get("cross")[this.axis];
    const step = (/** @type {number} */ slices, /** @type {number} */ across, /** @type {number} */ down) => () => (shift ? this.moveProbe(across, down) : this.go(index + slices));
    return {
      ArrowUp: step(1, 0, -1), ArrowRight: step(1, 1, 0), ArrowDown: step(-1, 0, 1), ArrowLeft: step(-1, -1, 0),
      PageUp: () => this.go(index + 5), PageDown: () => this.go(index - 5), Home: () => this.go(0), End: () => this.go(this.last),
      a: () => this.choosePlane("axial"), c: () => this.choosePlane("coronal"), s: () => this.choosePlane("sagittal"),
      t: () => this.set({ three_planes: !this.get("three_planes") }), o: () => this.toggleOverlays(),
      f: () => this.set({ overlay: this.get("overlay") === "fill" ? "outline" : "fill" }),
      n: () => this.header.lesions && this.lesion(shift ? -1 : 1), " ": () => this.play(!this.playing),
      "+": () => this.zoomTo(this.get("zoom") * 1.25), "=": () => this.zoomTo(this.get("zoom") * 1.25), "-": () => this.zoomTo(this.get("zoom") / 1.25), 0: () => this.zoomTo(1),
      p: () => (this.get("probe") ? this.probeAt(null) : this.moveProbe(0, 0)), r: () => this.choose("ruler"), e: () => this.choose("circle"),
      Enter: () => this.enter(), "?": () => this.showHelp(),
      Escape: () => { this.choose(null); this.set({ ruler: null, circle: null }); },
      ...Object.fromEntries(Object.keys(this.header.windows).map((name, i) => [String(i + 1), () => this.set({ window: name })])),
    };
  }

  /** Put the probe in the middle of the view, or move it by a voxel on the picture. */
  moveProbe(/** @type {number} */ across, /** @type {number} */ down) {
    const { picture, volume } = this;
    const probe = this.get("probe");
    const { rows, columns } = volume.grid(picture.plane);
    const { width, height } = picture.canvas;
    const [row, column] = probe ? volume.inPlane(picture.plane, probe) : picture.under(volume, this.view(), width / 2, height / 2).map(Math.floor);
    this.probeAt(volume.inScan(picture.plane, this.get("cross")[this.axis], clamp(row + down, 0, rows - 1), clamp(column + across, 0, columns - 1)));
  }

  /** Where there is a tool, an end of its measure; where a question is open, the answer. */
  enter() {
    const probe = this.get("probe");
    const tool = this.tool ?? (this.get("asking") === "circle" ? "circle" : null);
    if (!probe) this.moveProbe(0, 0);
    else if (tool && this.from) {
      this.measure(tool, this.get("plane"), this.from, probe);
      this.from = null;
    } else if (tool) this.from = probe;
    else if (this.get("asking") === "point") this.answer(probe);
  }

  showHelp() {
    if (!this.parts.help.open) this.parts.help.showModal();
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.root.requestFullscreen?.();
  }

  /** Copy the pictures now shown, or save them as a file. */
  async export(/** @type {boolean} */ copy) {
    const shown = this.pictures.map(({ canvas }) => canvas).filter(({ hidden }) => !hidden);
    const sheet = make("canvas", { width: shown.reduce((sum, { width }) => sum + width, 0), height: Math.max(...shown.map(({ height }) => height)) });
    let left = 0;
    for (const canvas of shown) {
      sheet.getContext("2d").drawImage(canvas, left, 0);
      left += canvas.width;
    }
    const png = new Promise((done) => sheet.toBlob(done, "image/png"));
    if (copy) {
      await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]).then(() => this.say("The picture is copied."), () => this.say("This browser does not let a page copy pictures; save it instead."));
      return;
    }
    const address = URL.createObjectURL(await png);
    make("a", { href: address, download: `${this.header.name.replace(/[^\w.-]+/g, "_")}-${this.get("plane")}-${this.get("index")}.png` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  say(/** @type {string} */ text) {
    this.parts.spoken.textContent = text;
    this.parts.waiting.textContent = text;
    this.parts.waiting.hidden = false;
    setTimeout(() => { this.parts.waiting.textContent = "loading slices …"; this.draw(); }, 2500);
  }
}
