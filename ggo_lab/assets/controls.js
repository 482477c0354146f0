
// The page: one state, changed by keys, wheel, fingers and controls, drawn once per screen refresh.

const PLANES = ["axial", "coronal", "sagittal"];
const FROM = { axial: "above the lowest slice", coronal: "behind the front edge", sagittal: "from the patient's right edge" };
const element = (id) => document.getElementById(id);

function radios(group, names, choose) {
  return names.map((name) => {
    const input = Object.assign(document.createElement("input"), { type: "radio", name: group, value: name });
    const label = document.createElement("label");
    label.append(input, name);
    element(group).append(label);
    input.addEventListener("change", () => choose(name));
    // After a mouse click the arrow keys should scroll on, not choose the next name; keyboard users keep their place.
    label.addEventListener("click", (event) => event.detail && element("picture").focus({ preventScroll: true }));
    return input;
  });
}

// What each curve says of a slice, behind a dash in its colour.
function sayCurves(curves, index) {
  return curves.filter(({ values }) => values[index] !== null).flatMap(({ name, color, values }) => {
    const dash = Object.assign(document.createElement("span"), { textContent: "▬ ", ariaHidden: "true" });
    dash.style.color = color;
    const value = values[index];
    const text = name === "lesions" ? `lesions fill ${Math.round(value * 100)}% of the lung in this slice` : `${name} ${Number(value.toPrecision(3))}`;
    return [dash, `${text}  `];
  });
}

function start(scan) {
  const picture = new Picture(element("picture"), scan);
  const curve = scan.curves.length || scan.marks.length ? new Curve(element("curve"), scan) : null;
  const names = [...scan.masks.map(({ name }) => name), ...(scan.heat ? ["heat"] : [])];
  const middle = scan.shape.map((n) => n >> 1);
  const kept = { axial: scan.start.index, coronal: middle[1], sagittal: middle[2] };
  const state = {
    plane: "axial", index: scan.start.index, level: scan.start.level, width: scan.start.width, shown: new Set(names),
    overlay: "outline", opacity: 0.4, zoom: 1, centreX: 0.5, centreY: 0.5,
  };
  const pointer = { inside: false, x: 0, y: 0 };
  let waiting = false;
  let playing = null;

  const count = () => scan.shape[PLANES.indexOf(state.plane)];
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const update = (changes) => {
    Object.assign(state, changes);
    if (!waiting) requestAnimationFrame(show);
    waiting = true;
  };
  const go = (index) => update({ index: clamp(index, 0, count() - 1) });
  const choosePlane = (plane) => {
    kept[state.plane] = state.index;
    update({ plane, index: kept[plane], zoom: 1, centreX: 0.5, centreY: 0.5 });
  };
  const choosePreset = (name) => update({ level: scan.windows[name][0], width: scan.windows[name][1] });
  const zoomBy = (factor) => {
    const zoom = clamp(state.zoom * factor, 1, 12);
    update(zoom === 1 ? { zoom, centreX: 0.5, centreY: 0.5 } : { zoom });
  };
  const toggleOverlays = () => update({ shown: new Set(state.shown.size ? [] : names) });
  const play = (on) => {
    clearInterval(playing);
    playing = on ? setInterval(() => go(state.index + 1 < count() ? state.index + 1 : 0), 80) : null;
    element("play").textContent = on ? "❚❚" : "▶";
    element("play").setAttribute("aria-pressed", String(on));
  };

  const planes = radios("planes", PLANES, choosePlane);
  const presets = radios("presets", Object.keys(scan.windows), choosePreset);
  const overlays = radios("overlay", ["outline", "fill"], (overlay) => update({ overlay }));
  const boxes = names.map((name) => {
    const box = Object.assign(document.createElement("input"), { type: "checkbox", value: name });
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = scan.masks.find((mask) => mask.name === name)?.color ?? `rgb(${scan.heatEnds[1]})`;
    const label = document.createElement("label");
    label.append(box, swatch, name);
    const item = document.createElement("li");
    item.append(label);
    element("legend").append(item);
    box.addEventListener("change", () => update({ shown: new Set(boxes.filter((b) => b.checked).map((b) => b.value)) }));
    return box;
  });
  element("overlays").hidden = names.length === 0;
  element("overlay").hidden = scan.masks.length === 0;
  element("slice").addEventListener("input", (event) => go(event.target.valueAsNumber));
  for (const id of ["level", "width", "opacity"]) {
    element(id).addEventListener("input", (event) => update({ [id]: event.target.valueAsNumber }));
  }
  element("play").addEventListener("click", () => play(!playing));

  function fit() {
    for (const canvas of [element("picture"), element("curve")]) {
      const { width, height } = canvas.getBoundingClientRect();
      canvas.width = Math.max(1, Math.round(width * devicePixelRatio));
      canvas.height = Math.max(1, Math.round(height * devicePixelRatio));
    }
    update({});
  }

  function show() {
    waiting = false;
    picture.draw(state);
    const last = count() - 1;
    const slider = element("slice");
    slider.max = last;
    slider.value = state.index;
    const axis = PLANES.indexOf(state.plane);
    const text = `${state.plane} ${state.index} of 0–${last} · ${(state.index * scan.spacing[axis]).toFixed(0)} mm ${FROM[state.plane]}`;
    const axialCurve = curve && state.plane === "axial";
    element("curve").hidden = !axialCurve;
    if (axialCurve) curve.draw(state.index);
    element("share").replaceChildren(...(axialCurve ? sayCurves(scan.curves, state.index) : []));
    element("caption").textContent = text;
    slider.setAttribute("aria-valuetext", text);
    // A focused slider says its value itself, and a page that plays would never stop talking.
    element("spoken").setAttribute("aria-live", playing || document.activeElement === slider ? "off" : "polite");
    planes.forEach((input) => { input.checked = input.value === state.plane; });
    presets.forEach((input) => {
      const [level, width] = scan.windows[input.value];
      input.checked = level === state.level && width === state.width;
    });
    overlays.forEach((input) => { input.checked = input.value === state.overlay; });
    boxes.forEach((box) => { box.checked = state.shown.has(box.value); });
    for (const id of ["level", "width", "opacity"]) {
      element(id).value = state[id];
      element(id).nextElementSibling.textContent = id === "opacity" ? `${Math.round(state.opacity * 100)}%` : `${state[id]}`;
    }
    probe();
  }

  function probe() {
    const at = pointer.inside ? picture.voxelAt(state, pointer.x, pointer.y) : null;
    if (at === null) {
      element("probe").textContent = "Point at the picture to read its HU.";
      return;
    }
    const [, rows, columns] = scan.shape;
    const place = [Math.floor(at / (rows * columns)), Math.floor(at / columns) % rows, at % columns];
    const mm = place.map((n, axis) => (n * scan.spacing[axis]).toFixed(0));
    const inside = scan.masks.filter(({ voxels }) => voxels[at]).map(({ name }) => name);
    const value = scan.hu[at] < -1500 ? "outside the scanner's field" : `${scan.hu[at]} ${scan.isHu ? "HU" : "(estimated HU)"}`;
    element("probe").textContent = `${value} at z ${mm[0]}, y ${mm[1]}, x ${mm[2]} mm${inside.length ? ` · in ${inside.join(", ")}` : ""}`;
  }

  gestures();
  new ResizeObserver(fit).observe(element("stage"));
  fit();
  show();

  function gestures() {
    const canvas = element("picture");
    const fingers = new Map();
    let travelled = 0;
    let spread = 0;
    const toCanvas = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * devicePixelRatio, (event.clientY - box.top) * devicePixelRatio];
    };
    const scroll = (pixels, perSlice) => {
      travelled += pixels;
      const steps = Math.trunc(travelled / perSlice);
      travelled -= steps * perSlice;
      if (steps) go(state.index - steps);
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey) zoomBy(Math.exp(-event.deltaY / 200));
      else if (Math.abs(event.deltaY) >= 50 || event.deltaMode) go(state.index - Math.sign(event.deltaY));
      else scroll(event.deltaY, 16);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event);
      travelled = spread = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      [pointer.x, pointer.y] = toCanvas(event);
      pointer.inside = true;
      const before = fingers.get(event.pointerId);
      if (!before) {
        probe();
        return;
      }
      fingers.set(event.pointerId, event);
      const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
      if (fingers.size === 2) {
        const [one, two] = [...fingers.values()];
        const now = Math.hypot(one.clientX - two.clientX, one.clientY - two.clientY);
        if (spread) zoomBy(now / spread);
        spread = now;
      } else if (event.buttons & 2) {
        update({ level: clamp(Math.round(state.level + dy * 3), -1200, 1200), width: clamp(Math.round(state.width + dx * 5), 10, 3000) });
      } else if (state.zoom > 1) {
        const { layout, scaleX, scaleY } = picture.place(state);
        update({
          centreX: clamp(state.centreX - (dx * devicePixelRatio) / (layout.columns * scaleX), 0, 1),
          centreY: clamp(state.centreY - (dy * devicePixelRatio) / (layout.rows * scaleY), 0, 1),
        });
      } else scroll(dy, 7);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => { pointer.inside = false; probe(); });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => zoomBy(state.zoom > 1 ? 0 : 2));
    if (curve) {
      const jump = (event) => go(curve.indexAt((event.clientX - curve.canvas.getBoundingClientRect().left) * devicePixelRatio));
      curve.canvas.addEventListener("pointerdown", (event) => { curve.canvas.setPointerCapture(event.pointerId); jump(event); });
      curve.canvas.addEventListener("pointermove", (event) => event.buttons && jump(event));
    }
    const keys = {
      ArrowUp: () => go(state.index + 1), ArrowRight: () => go(state.index + 1),
      ArrowDown: () => go(state.index - 1), ArrowLeft: () => go(state.index - 1),
      PageUp: () => go(state.index + 5), PageDown: () => go(state.index - 5),
      Home: () => go(0), End: () => go(count() - 1),
      a: () => choosePlane("axial"), c: () => choosePlane("coronal"), s: () => choosePlane("sagittal"),
      o: toggleOverlays, " ": () => play(!playing), "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(0.8), 0: () => zoomBy(0),
    };
    Object.keys(scan.windows).forEach((name, i) => { keys[i + 1] = () => choosePreset(name); });
    document.addEventListener("keydown", (event) => {
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      // A focused control keeps the keys that move it.
      const own = event.target.closest?.(key === " " ? "input, button, summary" : "input[type=range], input[type=radio]");
      const typed = key.length === 1 && key !== " ";
      if ((own && !typed) || event.ctrlKey || event.metaKey || event.altKey || !keys[key]) return;
      event.preventDefault();
      keys[key]();
    });
  }
}

async function open() {
  const status = element("status");
  status.textContent = "Unpacking the scan…";
  try {
    const scan = await unpackScan(JSON.parse(element("data").textContent));
    element("viewer").hidden = element("controls").hidden = false;
    start(scan);
    status.textContent = "";
    document.body.dataset.ready = "yes";
  } catch (error) {
    status.textContent = `This browser cannot show the scan (${error.message}). A current Firefox, Chrome, Edge or Safari can.`;
  }
}

open();
