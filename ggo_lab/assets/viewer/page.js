// The viewer on a page: what the kernel is in a notebook is here the page's own data.

class PageModel {
  constructor(data) {
    this.state = data.state;
    this.data = data;
    const { first } = data.state._scan;
    first.packed = data.slices[first.index];
    this.listeners = {};
  }

  get(/** @type {string} */ name) { return this.state[name]; }

  set(/** @type {string} */ name, value) { this.state[name] = value; }

  save_changes() {}

  on(/** @type {string} */ name, listener) { this.listeners[name] = listener; }

  off(/** @type {string} */ name) { delete this.listeners[name]; }

  send(content) {
    const { slices, lesions } = this.data;
    const answer = content.kind === "slices" ? { ...content } : { ...content, places: lesions };
    const buffers = content.kind === "slices" ? content.indices.map((z) => slices[z]) : [];
    setTimeout(() => this.listeners["msg:custom"]?.(answer, buffers));
  }
}

for (const place of document.querySelectorAll(".ggo-place")) {
  try {
    new Viewer(place, new PageModel(JSON.parse(document.getElementById(place.dataset.from).textContent)));
  } catch (error) {
    place.textContent = `This browser cannot show the scan (${error.message}). A current Firefox, Chrome, Edge or Safari can.`;
  }
}
