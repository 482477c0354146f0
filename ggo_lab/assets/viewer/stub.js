// What anywidget loads for every widget. A browser never forgets a module, so the viewer's own code, a hundred times as
// long, is loaded once a page and kept: a hundred viewers opened and closed cost one.

/** The viewer's code: loaded while the kernel still draws the still picture, and waited for where it is needed. */
function loaded(model) {
  const kept = (globalThis.ggoLab ??= new Map());
  const code = model.get("_code");
  if (code && !kept.has(code)) {
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    kept.set(code, import(address).finally(() => URL.revokeObjectURL(address)));
  }
  return kept.get(code); // none of a viewer that was closed before it was shown
}

export default {
  initialize({ model }) {
    loaded(model);
  },
  async render({ model, el }) {
    return (await loaded(model))?.default.render({ model, el });
  },
};
