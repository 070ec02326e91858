// What the page knows: the state that was read, with the changes of each event merged into it.

import { isWithin, UNITS } from "./format.js";

const MAX_BUDGETS = 500;
const MAX_ROWS = 200;
const MIN_ENDED = 50;

/** The used share of a budget: what is spent, reserved and owed. */
export function share({ allocated, remaining }) {
  if (allocated.amount <= 0) return remaining.amount <= 0 ? 1 : 0;
  return 1 - remaining.amount / allocated.amount;
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const path = (budget) => budget.scope_path.replaceAll("/", "\0");
const unit = (budget) => UNITS.indexOf(budget.spent.unit);
const byName = (a, b) => compare(path(a), path(b)) || unit(a) - unit(b);
const ORDERS = {
  share: (a, b) => share(b) - share(a) || byName(a, b),
  name: byName,
  left: (a, b) => unit(a) - unit(b) || a.remaining.amount - b.remaining.amount || byName(a, b),
};

export const keyOf = (budget) => `${budget.scope_path}\n${budget.spent.unit}`;

export class Model {
  constructor() {
    this.scope = "";
    this.search = "";
    this.isManual = false;
    this.atMs = 0;
    this.receivedMs = 0;
    this.count = 0;
    this.sort = "share";
    this.budgets = new Map();
    this.reservations = new Map();
    this.decisions = [];
    this.requests = [];
    this.faults = [];
  }

  /** The server's time now: a manual clock does not run. */
  now() {
    return this.isManual ? this.atMs : this.atMs + performance.now() - this.receivedMs;
  }

  setTime(atMs) {
    this.atMs = atMs;
    this.receivedMs = performance.now();
  }

  read(state, isManual) {
    this.isManual = isManual;
    this.setTime(state.at_ms);
    this.count = state.budget_count;
    this.keptSinceMs = state.kept_since_ms;
    this.budgets = new Map(state.budgets.map((budget) => [keyOf(budget), budget]));
    this.reservations = new Map(state.reservations.map((row) => [row.reservation_id, row]));
    this.decisions = state.decisions;
    this.requests = state.requests;
    this.faults = state.faults;
  }

  /** Merge an event; return whether the state must be read again. */
  merge(changes) {
    this.setTime(changes.at_ms);
    this.mergeBudgets(changes.budgets ?? []);
    for (const row of (changes.reservations ?? []).toReversed()) {
      if (isWithin(row.scope_path, this.scope)) this.reservations.set(row.reservation_id, row);
    }
    this.dropReservations();
    for (const name of ["decisions", "requests"]) {
      const known = this[name][0]?.id ?? 0;
      const added = (changes[name] ?? []).filter((row) => row.id > known && isWithin(row.scope_path, this.scope));
      this[name] = [...added, ...this[name]].slice(0, MAX_ROWS);
    }
    this.faults = changes.faults ?? this.faults;
    if (changes.budget_count === undefined) return false;
    if (this.scope || this.search) return true;
    this.count = changes.budget_count;
    return false;
  }

  mergeBudgets(changed) {
    for (const budget of changed) {
      const fits = isWithin(budget.scope_path, this.scope) && budget.scope_path.includes(this.search);
      if (fits) this.budgets.set(keyOf(budget), budget);
    }
    const extra = this.budgets.size - MAX_BUDGETS;
    if (extra > 0) this.budgets = new Map(this.sorted().slice(0, MAX_BUDGETS).map((budget) => [keyOf(budget), budget]));
  }

  /** The known budgets in the selected order. */
  sorted() {
    return [...this.budgets.values()].sort(ORDERS[this.sort]);
  }

  /** Keep 200 reservations, at least 50 of them ended ones if there are so many; the oldest go first. */
  dropReservations() {
    const extra = this.reservations.size - MAX_ROWS;
    if (extra <= 0) return;
    const rows = [...this.reservations.values()];
    const ended = rows.filter((row) => row.status !== "ACTIVE").sort((a, b) => endedMs(a) - endedMs(b));
    const active = rows.filter((row) => row.status === "ACTIVE").sort((a, b) => a.created_at_ms - b.created_at_ms);
    const surplus = ended.splice(0, Math.max(0, ended.length - MIN_ENDED));
    for (const row of [...surplus, ...active, ...ended].slice(0, extra)) this.reservations.delete(row.reservation_id);
  }
}

/** When a reservation was settled or expired. */
export const endedMs = (row) => row.finalized_at_ms ?? row.expires_at_ms;
