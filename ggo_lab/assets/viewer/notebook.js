// The viewer in a notebook: the model is the widget's, and its kernel sends the slices.

export default {
  render({ model, el }) {
    const viewer = new Viewer(el, model);
    // The still picture that stands where no kernel answers has done its duty.
    for (const still of document.querySelectorAll(`[data-ggo-still="${model.get("_still")}"]`)) still.hidden = true;
    return () => viewer.close();
  },
};
