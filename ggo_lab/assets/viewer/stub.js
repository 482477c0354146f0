// What anywidget loads for every widget. A browser never forgets a module, so the viewer's own code, a hundred times as
// long, is loaded once a page and kept: a hundred viewers opened and closed cost one.

export default {
  async render({ model, el }) {
    const kept = (globalThis.ggoLab ??= new Map());
    const code = model.get("_code");
    if (!code) return undefined; // closed before it was shown
    if (!kept.has(code)) {
      const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      kept.set(code, import(address).finally(() => URL.revokeObjectURL(address)));
    }
    return (await kept.get(code)).default.render({ model, el });
  },
};
