// Elements, made without markup: what comes from clients is only ever text.

/** An element with attributes (on… are listeners), and children: elements, or text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) {
      element.addEventListener(key.slice(2), value);
    } else if (typeof value === "boolean") {
      element.toggleAttribute(key, value);
    } else if (value !== undefined && value !== null) {
      element.setAttribute(key, value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** The same in SVG. */
export function draw(name, attributes = {}, text = null) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  if (text !== null) {
    element.textContent = text;
  }
  return element;
}

/** The element with an id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Sets a text only where it is another one: what has not changed is not read out again. */
export function say(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/**
 * A table that is a list of cards on a phone: with its roles, which browsers forget of cells that are blocks. `body` has its rows.
 */
export function cards(heads, body) {
  body.setAttribute("role", "rowgroup");
  const head = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, heads));
  return make("table", { class: "cards", role: "table" }, head, body);
}

/** Terms and their descriptions, for a dl. */
export function facts(pairs) {
  return pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value)));
}

/** Asks a yes-or-no question in the page's dialog. */
export function confirmed(question, yes) {
  const dialog = byId("dialog");
  byId("dialog-text").textContent = question;
  byId("dialog-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
  });
}
