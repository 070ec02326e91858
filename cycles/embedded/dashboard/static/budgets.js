// The tree of budgets with their bars. A click, or Enter, narrows the page to a scope.

import { byId, make, RovingList, Rows, setClass, setData, setHidden, setText } from "./dom.js";
import { count, minute, number, UNITS, unitName } from "./format.js";

const MARKS = { FROZEN: "frozen", CLOSED: "closed" };

export class Budgets {
  constructor(narrow) {
    this.list = byId("budgets");
    this.rows = new Rows(this.list, create, update);
    this.roving = new RovingList(this.list, (row) => narrow(row.dataset.scope));
  }

  show(model) {
    setText(byId("budget-count"), count(model.count));
    setText(byId("budgets-noun"), model.count === 1 ? "budget" : "budgets");
    this.rows.show(arranged([...model.budgets.entries()]));
    this.roving.refresh();
    setText(byId("budgets-note"), note(model));
  }
}

function note(model) {
  if (model.budgets.size < model.count) {
    return `The ${count(model.budgets.size)} that changed last are shown. Search or choose a scope to see others.`;
  }
  if (model.count > 0) return "";
  return model.search ? "No scope contains this text." : "No budget yet: Set creates one, below.";
}

/** Put budgets into the order of the tree, each with its level and its name below the nearest shown scope. */
function arranged(entries) {
  const sorted = entries
    .map(([key, budget]) => ({ key, budget, path: budget.scope_path, unit: budget.spent.unit }))
    .sort((a, b) => compare(a.path.replaceAll("/", "\0"), b.path.replaceAll("/", "\0")) || order(a.unit) - order(b.unit));
  const above = [];
  return sorted.map(({ key, budget, path, unit }) => {
    while (above.length && !path.startsWith(`${above.at(-1)}/`)) above.pop();
    const name = above.length ? path.slice(above.at(-1).length + 1) : path;
    const level = above.length + 1;
    if (above.at(-1) !== path) above.push(path);
    return [key, { budget, unit, name, level }];
  });
}

const order = (unit) => UNITS.indexOf(unit);
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

function create({ budget, unit }) {
  const parts = {
    name: make("span", "name"),
    mark: make("span", "mark"),
    over: make("span", "mark bad", "over limit"),
    left: make("span", "left"),
    spent: make("span", "spent"),
    reserved: make("span", "reserved"),
    debt: make("span", "debt"),
    limit: make("span", "limit"),
    numbers: make("span", "numbers"),
  };
  const head = make("span", "row-head", parts.name, parts.mark, parts.over, parts.left);
  const bar = make("span", "bar", parts.spent, parts.reserved, parts.debt, parts.limit);
  bar.setAttribute("aria-hidden", "true");
  const row = make("div", "row budget", head, bar, parts.numbers);
  row.setAttribute("role", "treeitem");
  row.tabIndex = -1;
  Object.assign(row.dataset, { testid: "budget", scope: budget.scope_path, unit });
  row.parts = parts;
  return row;
}

function update(row, { budget, unit, name, level }) {
  if (row.shown === budget && row.level === level && row.name === name) return;
  Object.assign(row, { shown: budget, level, name });
  row.setAttribute("aria-level", String(level));
  setClass(row, "indented", level > 1);
  row.style.setProperty("--level", String(Math.min(level - 1, 5)));
  const { parts } = row;
  setText(parts.name, name);
  setText(parts.mark, MARKS[budget.status] ?? "");
  setHidden(parts.mark, !(budget.status in MARKS));
  setHidden(parts.over, !budget.is_over_limit);
  setClass(row, "frozen", budget.status in MARKS);
  setText(parts.left, `${number(budget.remaining.amount, unit)} left`);
  setClass(parts.left, "low", budget.remaining.amount * 10 <= budget.allocated.amount);
  setData(row, "status", budget.status ?? "");
  drawBar(parts, budget);
  setText(parts.numbers, numbers(budget, unit));
}

function drawBar(parts, budget) {
  const [spent, reserved, debt] = [budget.spent, budget.reserved, budget.debt].map((part) => part?.amount ?? 0);
  const room = budget.allocated.amount + (budget.overdraft_limit?.amount ?? 0);
  const full = Math.max(room, spent + reserved + debt, 1);
  const width = (part) => (part > 0 ? `max(2px, ${((100 * part) / full).toFixed(2)}%)` : "0");
  parts.spent.style.width = width(spent);
  parts.reserved.style.width = width(reserved);
  parts.debt.style.width = width(debt);
  parts.limit.style.left = width(budget.allocated.amount);
  setHidden(parts.limit, budget.allocated.amount >= full);
}

function numbers(budget, unit) {
  const shown = [
    `${number(budget.spent.amount, unit)} spent`,
    budget.reserved.amount ? `${number(budget.reserved.amount, unit)} reserved` : "",
    budget.debt ? `${number(budget.debt.amount, unit)} debt` : "",
    `of ${number(budget.allocated.amount, unit)}${unit === "USD_MICROCENTS" ? "" : ` ${unitName(unit)}`}`,
    budget.exhausted_at_ms ? `used up at ${minute(budget.exhausted_at_ms)} at this pace` : "",
    budget.overdraft_limit ? `(overdraft up to ${number(budget.overdraft_limit.amount, unit)})` : "",
  ];
  return shown.filter(Boolean).join(" · ");
}
