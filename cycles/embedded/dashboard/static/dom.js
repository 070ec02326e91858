// Small helpers for the page: make elements, change only what differs, and lists that are one tab stop.

export const byId = (id) => document.getElementById(id);

/** Make an element with a class and children (elements or text). */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Set the text of an element if it differs. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set a scope as text that breaks after a slash. */
export function setPath(element, path) {
  if (element.textContent !== path) element.replaceChildren(...path.split(/(?<=\/)/).flatMap((part) => [part, make("wbr")]));
}

/** Set a property or data attribute if it differs. */
export function setData(element, name, value) {
  if (element.dataset[name] !== value) element.dataset[name] = value;
}

export function setClass(element, name, on) {
  if (element.classList.contains(name) !== on) element.classList.toggle(name, on);
}

export function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

/**
 * Rows of a list by key. `show` makes, updates, orders and removes elements, and touches nothing that is right already.
 */
export class Rows {
  constructor(list, create, update) {
    this.list = list;
    this.create = create;
    this.update = update;
    this.elements = new Map();
  }

  show(entries) {
    const wanted = new Set(entries.map(([key]) => key));
    for (const [key, element] of this.elements) {
      if (!wanted.has(key)) {
        element.remove();
        this.elements.delete(key);
      }
    }
    let next = this.list.firstElementChild;
    for (const [key, value] of entries) {
      let element = this.elements.get(key);
      if (!element) {
        element = this.create(value, key);
        this.elements.set(key, element);
      }
      this.update(element, value);
      if (element === next) next = next.nextElementSibling;
      else this.list.insertBefore(element, next);
    }
  }
}

/**
 * A list with one tab stop: arrow keys, Home, End and Page keys move, Enter and Space activate, a click does both.
 */
export class RovingList {
  constructor(list, activate) {
    this.list = list;
    this.activate = activate;
    list.addEventListener("keydown", (event) => this.onKey(event));
    list.addEventListener("click", (event) => {
      const row = event.target.closest("[role=treeitem], [role=option]");
      if (row && !String(getSelection())) this.use(row);
    });
    list.addEventListener("focusin", (event) => this.mark(event.target));
  }

  /** Ensure that exactly one row can be reached with the tab key. Call it after rows changed. */
  refresh() {
    if (!this.current?.isConnected) this.mark(this.list.firstElementChild);
  }

  mark(row) {
    if (!row || row.parentElement !== this.list || row === this.current) return;
    if (this.current) this.current.tabIndex = -1;
    row.tabIndex = 0;
    this.current = row;
  }

  use(row) {
    this.mark(row);
    this.activate(row);
  }

  onKey(event) {
    const row = document.activeElement;
    if (row?.parentElement !== this.list || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.use(row);
      return;
    }
    const rows = [...this.list.children];
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -rows.length, End: rows.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const place = Math.min(Math.max(rows.indexOf(row) + steps[event.key], 0), rows.length - 1);
    this.mark(rows[place]);
    rows[place].focus();
  }
}
