// The list of budgets with their bars. A click, or Enter, narrows the page to a scope.

import { byId, make, RovingList, Rows, setClass, setData, setHidden, setPath, setText } from "./dom.js";
import { count, minute, number, unitName } from "./format.js";
import { keyOf, share } from "./model.js";

const MARKS = { FROZEN: "frozen", CLOSED: "closed" };
const SORTED = { share: "with the largest share used", name: "that come first by name", left: "with the least left" };
const FEW = 6; // so many budgets are above the other lists, not beside them
const ROWS = innerWidth > 900 ? 50 : 15;

export class Budgets {
  constructor(narrow) {
    this.most = ROWS;
    this.rows = new Rows(byId("budgets"), create, update);
    this.roving = new RovingList(byId("budgets"), (row) => narrow(row.dataset.scope));
    byId("budgets-more").addEventListener("click", () => {
      this.most += 2 * ROWS;
      this.show(this.model);
    });
  }

  show(model) {
    this.model = model;
    setText(byId("budget-count"), count(model.count));
    setText(byId("budgets-noun"), model.count === 1 ? "budget" : "budgets");
    const shown = model.sorted().slice(0, this.most);
    this.rows.show(arranged(shown, model.sort === "name"));
    this.roving.refresh();
    setClass(document.body, "few", model.budgets.size <= FEW);
    setText(byId("budgets-note"), note(model, shown.length));
    setHidden(byId("budgets-more"), shown.length === model.budgets.size);
  }
}

function note(model, shown) {
  if (shown < model.count) {
    const hidden = `The ${count(shown)} ${SORTED[model.sort]} are shown, ${count(model.count - shown)} are not.`;
    return shown < model.budgets.size ? hidden : `${hidden} Search, or choose a scope, to see them.`;
  }
  if (model.count > 0) return "";
  return model.search ? "No scope contains this text." : "No budget yet: Set creates one, below.";
}

/** Give each budget its level and its name: by name it is that below the nearest shown scope, else the whole scope. */
function arranged(budgets, isTree) {
  const above = [];
  return budgets.map((budget) => {
    const [path, unit] = [budget.scope_path, budget.spent.unit];
    if (!isTree) return [keyOf(budget), { budget, unit, name: path, level: 1 }];
    while (above.length && !path.startsWith(`${above.at(-1)}/`)) above.pop();
    const name = above.length ? path.slice(above.at(-1).length + 1) : path;
    const level = above.length + 1;
    if (above.at(-1) !== path) above.push(path);
    return [keyOf(budget), { budget, unit, name, level }];
  });
}

function create({ budget, unit }) {
  const parts = {
    name: make("span", "name"),
    mark: make("span", "mark"),
    over: make("span", "mark bad", "over limit"),
    share: make("span", "left share"),
    spent: make("span", "spent"),
    reserved: make("span", "reserved"),
    debt: make("span", "debt"),
    limit: make("span", "limit"),
    numbers: make("span", "numbers"),
    forecast: make("span", "forecast"),
  };
  const head = make("span", "row-head", parts.name, parts.mark, parts.over, parts.share);
  const bar = make("span", "bar", parts.spent, parts.reserved, parts.debt, parts.limit);
  bar.setAttribute("aria-hidden", "true");
  const row = make("div", "row budget", head, bar, make("span", "foot", parts.numbers, parts.forecast));
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
  setPath(parts.name, name);
  setText(parts.mark, MARKS[budget.status] ?? "");
  setHidden(parts.mark, !(budget.status in MARKS));
  setHidden(parts.over, !budget.is_over_limit);
  setClass(row, "frozen", budget.status in MARKS);
  const used = share(budget);
  const isUsedUp = budget.remaining.amount <= 0;
  setText(parts.share, isUsedUp ? "used up" : `${used < 1 && used > 0.99 ? (100 * used).toFixed(1) : Math.round(100 * used)}% used`);
  setData(row, "level", isUsedUp ? "out" : used > 0.95 ? "red" : used > 0.8 ? "amber" : "");
  setData(row, "status", budget.status ?? "");
  drawBar(parts, budget);
  setText(parts.numbers, numbers(budget, unit));
  setText(parts.forecast, budget.exhausted_at_ms ? `used up at ${minute(budget.exhausted_at_ms)} at this pace` : "");
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
    `${number(budget.remaining.amount, unit)} left of ${number(budget.allocated.amount, unit)}${unit === "USD_MICROCENTS" ? "" : ` ${unitName(unit)}`}`,
    `${number(budget.spent.amount, unit)} spent${budget.period ? ` this ${budget.period}` : ""}`,
    budget.reserved.amount ? `${number(budget.reserved.amount, unit)} reserved` : "",
    budget.debt ? `${number(budget.debt.amount, unit)} debt` : "",
    budget.overdraft_limit ? `(overdraft up to ${number(budget.overdraft_limit.amount, unit)})` : "",
  ];
  return shown.filter(Boolean).join(" · ");
}
