// Elements, keys and bytes: what all parts of the viewer are made with.

/**
 * Make an element; what is not an attribute or a property of it is a child. Text is always text, never markup.
 * @returns {any}
 */
function make(/** @type {string} */ tag, /** @type {Record<string, any>} */ { on = {}, aria = {}, ...set } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), set);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(name === "role" ? name : `aria-${name}`, value);
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * Spare the notebook: whoever means the viewer should not cut a cell with X. Commands, such as saving, go through.
 * Called before JupyterLab, which listens at the document, hears of the key. @returns {boolean} whether it is a command
 */
function guard(/** @type {KeyboardEvent} */ event) {
  const command = event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter");
  event.target.toggleAttribute("data-lm-suppress-shortcuts", !command);
  return command;
}

/** Bytes as they come from a kernel, or as text from a page. @returns {Uint8Array} */
function bytesOf(/** @type {ArrayBufferView|ArrayBuffer|string} */ packed_) {
  if (typeof packed_ === "string") return Uint8Array.from(atob(packed_), (letter) => letter.charCodeAt(0));
  if (packed_ instanceof ArrayBuffer) return new Uint8Array(packed_);
  return new Uint8Array(packed_.buffer, packed_.byteOffset, packed_.byteLength);
}
