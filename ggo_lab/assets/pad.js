// The picture of a SliceViewer in a notebook. Core widgets have no keys, wheel or pointer; this runs as an inline
// handler of the pad that lies over the picture (`this`), and tells the kernel through a hidden core text field. What
// it tells are sums and positions, never single events, so nothing is lost when a busy kernel skips some of them.
if (!this.ready) {
  this.ready = true;
  const pad = this;
  const stage = pad.closest(".ggo-stage");
  const picture = stage.querySelector("img");
  const wire = stage.querySelector(".ggo-wire input");
  // The field may fall back for a moment to what the kernel has confirmed; what was told last counts.
  let last = { turn: 0, steps: 0, zooms: 0, keys: "", gesture: null, hover: null };
  const tell = (change) => {
    const field = wire.value ? JSON.parse(wire.value) : last;
    if (field.turn > last.turn) last = field; // told by another view of this widget
    last.turn += 1;
    change(last);
    wire.value = JSON.stringify(last);
    wire.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const taken = (event) => { event.preventDefault(); event.stopPropagation(); };
  const step = (steps) => tell((told) => { told.steps += steps; });
  const zoom = (zooms) => tell((told) => { told.zooms += zooms; });
  const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5 };
  const signs = { Home: "[", End: "]" };
  const arrows = { ArrowUp: "^", ArrowRight: ">", ArrowDown: "v", ArrowLeft: "<" };
  let travelled = 0;
  let start = null;

  const share = (event) => {
    const box = picture.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  pad.onwheel = (event) => {
    taken(event);
    if (event.ctrlKey) zoom(-Math.sign(event.deltaY));
    else if (Math.abs(event.deltaY) >= 50 || event.deltaMode) step(-Math.sign(event.deltaY));
    else {
      travelled += event.deltaY;
      const whole = Math.trunc(travelled / 16);
      travelled -= whole * 16;
      if (whole) step(-whole);
    }
  };
  pad.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key;
    if (event.shiftKey && arrows[key]) tell((told) => { told.keys += arrows[key]; });
    else if (steps[key]) step(steps[key]);
    else if (key === "+" || key === "=") zoom(1);
    else if (key === "-") zoom(-1);
    else if (signs[key] || "acsop01234 ".includes(key)) tell((told) => { told.keys += signs[key] ?? key; });
    else return;
    taken(event);
  };
  pad.onpointerdown = (event) => {
    pad.setPointerCapture(event.pointerId);
    start = { at: share(event), x: event.clientX, y: event.clientY, moved: false, name: Date.now() };
    told(event, "down");
  };
  pad.onpointermove = (event) => {
    if (!start) {
      tell((all) => { all.hover = share(event); });
      return;
    }
    start.moved ||= Math.hypot(event.clientX - start.x, event.clientY - start.y) > 4;
    if (start.moved) told(event, "drag");
  };
  pad.onpointerup = (event) => {
    if (start && !start.moved) told(event, "click");
    start = null;
  };
  pad.onpointerleave = () => tell((all) => { all.hover = null; });
  pad.onpointercancel = () => { start = null; };
  function told(event, kind) {
    const { name, at } = start;
    tell((all) => { all.gesture = { name, kind, from: at, to: share(event) }; });
  }
}
