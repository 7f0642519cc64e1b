// Keeps the page up to date: a View a second by server-sent events. It only sets texts and attributes; never HTML.
"use strict";

const ATTRIBUTES = new Set([
  "d", "x", "y", "y1", "y2", "width", "height", "data-kind", "data-tone", "data-flow", "data-state",
]);

function at(scope, path) {
  return path.split(".").reduce((value, name) => (value == null ? undefined : value[name]), scope);
}

function setText(element, value) {
  const text = value == null ? "" : String(value);
  if (element.textContent !== text) element.textContent = text;
}

function setAttributes(element, scope) {
  for (const pair of element.dataset.bind.split(" ")) {
    const [name, path] = pair.split("=");
    const value = String(at(scope, path) ?? "");
    if (ATTRIBUTES.has(name) && element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
}

// What belongs to a row is bound to the row alone.
function within(root, selector) {
  const own = root.matches?.(selector) ? [root] : [];
  return own.concat([...root.querySelectorAll(selector)]);
}

function show(root, scope, isRow) {
  const foreign = (element) => !isRow && element.parentElement.closest("[data-list]") !== null;
  for (const element of within(root, "[data-text]")) if (!foreign(element)) setText(element, at(scope, element.dataset.text));
  for (const element of within(root, "[data-bind]")) if (!foreign(element)) setAttributes(element, scope);
}

function newRow(id) {
  const first = document.getElementById(id).content.firstElementChild;
  return document.importNode(first.tagName === "svg" ? first.firstElementChild : first, true);
}

function showList(list, rows) {
  while (list.childElementCount > rows.length) list.lastElementChild.remove();
  while (list.childElementCount < rows.length) list.append(newRow(list.dataset.row));
  rows.forEach((row, index) => show(list.children[index], row, true));
}

function showView(view) {
  show(document.documentElement, view, false);
  for (const list of document.querySelectorAll("[data-list]")) showList(list, at(view, list.dataset.list) ?? []);
  for (const element of document.querySelectorAll("[data-hide-empty]")) {
    element.hidden = (at(view, element.dataset.hideEmpty) ?? []).length === 0;
  }
}

function showLive(live) {
  document.getElementById("live").dataset.live = live ? "yes" : "no";
  setText(document.getElementById("live-text"), live ? "Live," : "Not live, as of");
}

const events = new EventSource("events");
events.addEventListener("view", (event) => {
  showView(JSON.parse(event.data));
  showLive(true);
});
events.addEventListener("error", () => showLive(false));
