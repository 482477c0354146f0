// The panel beside the picture in a PredictionViewer: a list to choose from, and what there is to say of a scan.

const DASHES = ["", "7 3", "2 3", "9 3 2 3", "1 4"]; // a line a class, to be told apart without its colour
const PLOT = { width: 290, height: 150, left: 34, top: 8, bottom: 30 };

function svg(/** @type {string} */ tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const percent = (/** @type {number} */ share) => `${Math.round(100 * share)}%`;

/** A small grey picture. */
function thumbnail({ rows, columns, bytes }, /** @type {string} */ label) {
  const canvas = make("canvas", { width: columns, height: rows, className: "ggo-thumbnail", aria: { role: "img", label } });
  const grey = bytesOf(bytes);
  const image = new ImageData(columns, rows);
  new Uint32Array(image.data.buffer).forEach((_pixel, i, pixels) => { pixels[i] = 0xff000000 | (grey[i] * 0x010101); });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

class Predictions {
  constructor(/** @type {HTMLElement} */ place, model) {
    this.model = model;
    this.id = `ggo-predictions-${Math.random().toString(36).slice(2, 8)}`;
    const ask = (/** @type {string} */ trait) => (/** @type {any} */ value) => model.send({ trait, value });
    const change = (/** @type {(value: any) => void} */ take) => ({ change: ({ target }) => take(target.type === "number" || target.type === "range" ? target.valueAsNumber : target.value) });
    const sure = () => Number.isFinite(this.least.valueAsNumber + this.most.valueAsNumber) && ask("confidence")([this.least.valueAsNumber / 100, this.most.valueAsNumber / 100]);
    this.choice = make("select", { id: `${this.id}-choice`, on: change(ask("choice")) });
    this.least = make("input", { type: "number", min: 0, max: 100, aria: { label: "least sure, %" }, on: { change: sure } });
    this.most = make("input", { type: "number", min: 0, max: 100, aria: { label: "most sure, %" }, on: { change: sure } });
    this.list = make("select", { size: 6, className: "ggo-list", aria: { label: "scans" }, on: change(ask("name")) });
    this.explained = make("select", { id: `${this.id}-explained`, on: change(ask("explained")) });
    this.sentence = make("p", { className: "ggo-sentence", aria: { role: "status" } });
    this.bars = make("table", { className: "ggo-bars" });
    this.wait = make("p", { className: "ggo-fine", aria: { role: "status" } });
    this.involvement = make("input", { type: "range", min: 0, step: 0.01, aria: { label: "involvement" }, on: { ...change(ask("involvement")), input: ({ target }) => { this.involved.textContent = percent(target.valueAsNumber); } } });
    this.involved = make("output");
    this.reset = make("button", { type: "button", className: "ggo-plain", on: { click: () => ask("involvement")(null) } }, "as it is");
    this.trace = make("button", { type: "button", className: "ggo-plain", on: { click: () => ask("trace")(null) } });
    this.plot = make("div");
    this.turns = make("p", { className: "ggo-fine" });
    this.whatIf = make(
      "section", {}, make("h2", {}, "What if there were more disease, or less?"),
      make("div", { className: "ggo-field" }, make("span", {}, "involved"), this.involvement, this.involved),
      make("div", { className: "ggo-tools" }, this.reset, this.trace), this.plot, this.turns,
    );
    this.score = make("p", { className: "ggo-fine" });
    this.slices = make("div", { className: "ggo-row" });
    this.similar = make("div", { className: "ggo-row" });
    this.alike = make("section", {}, make("h2", {}, "The most similar training scans"), this.similar, make(
      "p", { className: "ggo-fine" },
      "Similar to the network: nearest in the numbers that its last layer reads. 1 is how far two training scans usually lie apart.",
    ));
    this.seen = make("section", {}, make("h2", {}, "What the network sees"), this.slices);
    this.opened = make(
      "div", { className: "ggo-opened" }, this.whatIf,
      make("section", {}, make("div", { className: "ggo-labelled" }, make("label", { htmlFor: this.explained.id }, "Grad-CAM of"), this.explained), this.score),
      this.seen, this.alike,
    );
    this.root = make(
      "div", { className: "ggo ggo-predictions" },
      make("div", { className: "ggo-labelled" }, make("label", { htmlFor: this.choice.id }, "show"), this.choice),
      make("div", { className: "ggo-labelled" }, make("span", {}, "how sure"), make("span", { className: "ggo-tools" }, this.least, "to", this.most, "%")),
      this.list, this.sentence, this.bars, this.wait, this.opened,
    );
    place.append(this.root);
    this.heard = { "change:listed": () => this.showList(), "change:detail": () => this.showDetail(), "change:at": () => this.showAt() };
    for (const [name, listener] of Object.entries(this.heard)) model.on(name, listener);
    this.keyed = (/** @type {KeyboardEvent} */ event) => this.root.contains(event.target) && guard(event);
    window.addEventListener("keydown", this.keyed, true);
    this.ask = ask;
    this.showList();
    this.showDetail();
  }

  close() {
    for (const [name, listener] of Object.entries(this.heard)) this.model.off(name, listener);
    window.removeEventListener("keydown", this.keyed, true);
    this.root.remove();
  }

  showList() {
    const { lists, choice, confidence, rows, name } = this.model.get("listed");
    this.choice.replaceChildren(...lists.map(([key, count]) => make("option", { value: key }, `${key} (${count})`)));
    this.choice.value = choice;
    [this.least.value, this.most.value] = confidence.map((share) => Math.round(100 * share));
    this.list.replaceChildren(...rows.map(([key, line]) => make("option", { value: key, title: line }, line)));
    this.list.value = name;
  }

  showDetail() {
    const detail = this.model.get("detail");
    const { sentence, noun, bars, message, explained, slices, similar } = detail;
    this.sentence.textContent = sentence;
    this.bars.replaceChildren(
      make("caption", { className: "ggo-fine" }, bars.some(({ isTrue }) => isTrue) ? `Framed: the true ${noun}.` : `The true ${noun} is not known, or there is none.`),
      ...bars.map(({ name, color, share, isTrue }) => {
        const bar = make("span", { className: "ggo-bar-fill" });
        bar.style.width = `${100 * share}%`;
        bar.style.background = color;
        return make("tr", { className: isTrue ? "ggo-true" : "" }, make("th", { scope: "row" }, name), make("td", {}, make("span", { className: "ggo-bar-rail" }, bar)), make("td", {}, percent(share)));
      }),
    );
    this.wait.textContent = message;
    this.opened.hidden = !slices.length;
    this.explained.replaceChildren(...explained.options.map((value) => make("option", { value }, value)));
    this.explained.value = explained.value;
    this.score.textContent = explained.score;
    this.slices.replaceChildren(...slices.map(({ index, picture }) => make(
      "button", { type: "button", className: "ggo-card", aria: { label: `Go to slice ${index}`, pressed: "false" }, on: { click: () => this.ask("slice")(index) } },
      thumbnail(picture, `what the network sees of slice ${index}`), make("span", {}, `slice ${index}`),
    )));
    this.alike.hidden = !similar.length;
    this.similar.replaceChildren(...similar.map(({ name, label, distance, picture }) => make(
      "div", { className: "ggo-card" }, thumbnail(picture, `${name}, ${label}`), make("b", {}, label), make("span", {}, name), make("span", { className: "ggo-fine" }, `distance ${distance.toFixed(2)}`),
    )));
    this.showWhatIf(detail.what_if);
    this.showAt();
  }

  showAt() {
    const { slices } = this.model.get("detail");
    [...this.slices.children].forEach((card, i) => card.setAttribute("aria-pressed", String(slices[i].index === this.model.get("at"))));
  }

  showWhatIf(found) {
    this.whatIf.hidden = !found;
    if (!found) return;
    this.involvement.max = found.most;
    this.involvement.value = found.now;
    this.involved.textContent = percent(found.now);
    this.reset.disabled = found.now === found.own;
    this.trace.disabled = !found.left;
    this.trace.textContent = found.left ? `draw the curve: about ${found.seconds} s` : "the curve is drawn";
    this.turns.textContent = found.turns;
    this.plot.replaceChildren(this.draw(found));
  }

  /** The probabilities over the involvement: a line a class, the classes' bands behind them. */
  draw({ answers, own, now, classes, spoken }) {
    const { width, height, left, top, bottom } = PLOT;
    const x = (/** @type {number} */ involvement) => left + involvement * (width - left - 8);
    const y = (/** @type {number} */ share) => top + (1 - share) * (height - top - bottom);
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spoken, class: "ggo-plot" });
    classes.forEach(({ band }, i) => {
      if (band && band[1] > band[0] && i % 2) drawing.append(svg("rect", { x: x(band[0]), y: top, width: x(band[1]) - x(band[0]), height: y(0) - top, class: "ggo-band" }));
    });
    for (const share of [0, 0.5, 1]) {
      drawing.append(svg("path", { d: `M${x(0)} ${y(share)}H${x(1)}`, class: "ggo-grid" }), svg("text", { x: left - 5, y: y(share) + 4, "text-anchor": "end" }, percent(share)));
    }
    for (const edge of [0, 0.25, 0.5, 0.75, 1]) drawing.append(svg("text", { x: x(edge), y: height - bottom + 14, "text-anchor": edge < 1 ? "middle" : "end" }, percent(edge)));
    drawing.append(svg("text", { x: x(0.5), y: height - 3, "text-anchor": "middle" }, "lung involved"));
    for (const [at, dash] of [[own, ""], [now, "3 3"]]) drawing.append(svg("path", { d: `M${x(at)} ${top}V${y(0)}`, class: "ggo-now", "stroke-dasharray": dash }));
    classes.forEach(({ name, color }, label) => {
      const points = answers.map(([involvement, shares]) => [x(involvement), y(shares[label])]);
      drawing.append(svg("polyline", { points: points.join(" "), stroke: color, "stroke-dasharray": DASHES[label % DASHES.length], class: "ggo-line" }));
      for (const [cx, cy] of points) drawing.append(svg("circle", { cx, cy, r: 2.8, fill: color }, svg("title", {}, name)));
    });
    return drawing;
  }
}

export default {
  render({ model, el }) {
    const panel = new Predictions(el, model);
    return () => panel.close();
  },
};
