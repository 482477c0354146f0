// Names for screen readers, and peace from the notebook's one-letter commands, for all controls of a viewer: core
// ipywidgets have neither. It runs as an inline handler inside a viewer's box (`this`), for what is in the box now and
// for what comes later. A control is named by its visible label, or by a class such as "ggo-name-window-preset".
const root = this.closest(".ggo-panel");

const nameOf = (widget) => {
  const given = [...widget.classList].find((found) => found.startsWith("ggo-name-"));
  return given ? given.slice("ggo-name-".length).replaceAll("-", " ") : widget.querySelector(".widget-label")?.textContent;
};
const set = (element, values) => {
  for (const [attribute, value] of Object.entries(values)) element?.setAttribute(attribute, value);
};
const nameAll = () => {
  for (const widget of root.querySelectorAll(".widget-slider")) {
    const name = nameOf(widget);
    const handles = widget.querySelectorAll("[role=slider]");
    handles.forEach((handle, i) => set(handle, { "aria-label": handles.length === 1 ? name : `${name}, ${["from", "to"][i]}` }));
    set(widget.querySelector(".widget-readout"), { role: "textbox", "aria-label": name });
  }
  for (const widget of root.querySelectorAll(".widget-toggle-buttons")) {
    set(widget, { role: "group", "aria-label": nameOf(widget) });
    for (const button of widget.querySelectorAll("button")) set(button, { "aria-pressed": button.classList.contains("mod-active") });
  }
  for (const widget of root.querySelectorAll(".widget-select")) {
    if (!widget.querySelector("label")?.textContent.trim()) set(widget.querySelector("select"), { "aria-label": nameOf(widget) });
  }
  for (const widget of root.querySelectorAll(".widget-play")) {
    const [play, stop, repeat] = widget.querySelectorAll("button");
    set(play, { "aria-label": play.querySelector(".fa-pause") ? "pause" : "play", title: "play or pause" });
    set(stop, { "aria-label": "stop and go back to the first", title: "stop and go back to the first" });
    set(repeat, { "aria-label": "repeat", title: "repeat", "aria-pressed": repeat.classList.contains("mod-active") });
  }
  for (const spoken of root.querySelectorAll(".ggo-status > .widget-html-content")) set(spoken, { role: "status" });
  for (const picture of root.querySelectorAll(".ggo-stage > img")) set(picture, { alt: "" }); // the pad over it has the name
};

// Whoever means the viewer should not cut a cell with X. Commands with Ctrl, such as saving, still go through. JupyterLab
// looks for the attribute at what has the focus.
this.guard ??= (event) => {
  if (!root.isConnected) window.removeEventListener("keydown", this.guard, true);
  if (!root.contains(event.target)) return;
  const command = event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter");
  event.target.toggleAttribute("data-lm-suppress-shortcuts", !command);
};

// A viewer inside another one is looked after by the outer one.
if (!root.parentElement.closest(".ggo-panel")) {
  nameAll();
  window.addEventListener("keydown", this.guard, true); // before JupyterLab, which listens at the document
  if (!this.watch) {
    let soon;
    this.watch = new MutationObserver(() => { clearTimeout(soon); soon = setTimeout(nameAll, 100); });
    this.watch.observe(root, { subtree: true, childList: true, attributeFilter: ["class"] });
  }
}
