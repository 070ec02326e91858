// What the page knows: the state that was read, with the changes of each event merged into it.

import { isWithin } from "./format.js";

const MAX_BUDGETS = 500;
const MAX_ROWS = 200;
const MIN_ENDED = 50;
// In a storm of changes the list of budgets keeps its rows; otherwise a changed budget takes the place of the oldest.
const MAX_SWAPS = 5;

const keyOf = (budget) => `${budget.scope_path}\n${budget.spent.unit}`;

export class Model {
  constructor() {
    this.scope = "";
    this.search = "";
    this.isManual = false;
    this.atMs = 0;
    this.receivedMs = 0;
    this.count = 0;
    this.budgets = new Map(); // the latest change last
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
    this.budgets = new Map(state.budgets.toReversed().map((budget) => [keyOf(budget), budget]));
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
    const fits = (budget) => isWithin(budget.scope_path, this.scope) && budget.scope_path.includes(this.search);
    const fitting = changed.toReversed().filter(fits);
    const swaps = fitting.filter((budget) => !this.budgets.has(keyOf(budget))).length;
    for (const budget of fitting) {
      const key = keyOf(budget);
      const isNew = !this.budgets.delete(key);
      if (isNew && this.budgets.size >= MAX_BUDGETS) {
        if (swaps > MAX_SWAPS) continue;
        this.budgets.delete(this.budgets.keys().next().value);
      }
      this.budgets.set(key, budget);
    }
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
