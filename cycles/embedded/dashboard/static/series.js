// The numbers behind the chart: what was spent and reserved over time, in one unit, by unit, scope or action.
//
// A page begins with the settled reservations of the state, so the chart reaches back to before the page was opened.

import { action, isWithin } from "./format.js";
import { endedMs } from "./model.js";

const MAX_SAMPLES = 900;
const SAMPLE_S = 1;
export const MAX_GROUPS = 5;

export class Series {
  constructor(unit, by, scope) {
    Object.assign(this, { unit, by, scope });
    this.samples = []; // {t, reserved, totals: Map of group -> spent}
    this.totals = new Map(); // by scope or action: group -> charged since the first known settlement
    this.seen = new Set(); // reservations and decisions that are counted already
  }

  /** Take the totals of the model at its time. */
  add(model) {
    const isFirst = this.samples.length === 0;
    const charges = this.newCharges(model);
    if (isFirst) this.replay(model, charges);
    else for (const charge of charges) this.count(charge);
    this.push(model.now() / 1000, model);
  }

  newCharges(model) {
    const charges = [];
    for (const row of model.reservations.values()) {
      const charged = row.charged?.amount;
      if (charged && row.charged.unit === this.unit) charges.push([`r${row.reservation_id}`, endedMs(row), charged, row]);
    }
    for (const row of model.decisions) {
      const isCharge = row.operation === "event" && row.decision !== "DENY" && row.amount?.unit === this.unit;
      if (isCharge) charges.push([`d${row.id}`, row.at_ms, row.amount.amount, row]);
    }
    const added = charges.filter(([key]) => !this.seen.has(key));
    this.seen = new Set(charges.map(([key]) => key));
    return added
      .map(([, ms, charged, row]) => ({ t: ms / 1000, charged, group: this.groupOf(row), row }))
      .sort((a, b) => a.t - b.t);
  }

  groupOf(row) {
    if (this.by === "action") return action(row.action) || "no action";
    const below = this.scope ? (row.scope_path ?? "").slice(this.scope.length + 1) : row.scope_path ?? "";
    return below.split("/").slice(0, this.scope ? 1 : 2).join("/") || this.scope;
  }

  count({ charged, group }) {
    this.totals.set(group, (this.totals.get(group) ?? 0) + charged);
  }

  /** Make samples of the past: what is spent now, less what was charged since. */
  replay(model, charges) {
    const { spent } = totalsOf(model, this.unit);
    let before = Math.max(0, spent - charges.reduce((sum, charge) => sum + charge.charged, 0));
    const reservations = [...model.reservations.values()].filter((row) => row.reserved.unit === this.unit);
    const from = Math.max(charges[0]?.t ?? Infinity, model.now() / 1000 - MAX_SAMPLES);
    for (const charge of charges) {
      before += charge.charged;
      this.count(charge);
      if (charge.t < from) continue;
      const held = reservations.filter((row) => row.created_at_ms <= charge.t * 1000 && heldUntil(row) > charge.t * 1000);
      this.append(charge.t, held.reduce((sum, row) => sum + row.reserved.amount, 0), before);
    }
  }

  push(t, model) {
    const { spent, reserved } = totalsOf(model, this.unit);
    this.append(t, reserved, spent);
  }

  append(t, reserved, spent) {
    const last = this.samples.at(-1);
    if (last && t - last.t < SAMPLE_S) this.samples.pop();
    const kept = last && t - last.t < SAMPLE_S && this.samples.length ? last.t : t;
    const top = [...this.totals].sort((a, b) => b[1] - a[1]).slice(0, 2 * MAX_GROUPS);
    this.samples.push({ t: kept, reserved, spent, totals: new Map(top) });
    if (this.samples.length > MAX_SAMPLES) this.samples.shift();
  }

  /** The groups with the highest totals. */
  groups() {
    return [...this.totals].sort((a, b) => b[1] - a[1]).slice(0, MAX_GROUPS).map(([name]) => name);
  }
}

const heldUntil = (row) => (row.status === "ACTIVE" ? Infinity : endedMs(row));

/** Spent and reserved of the outermost budgets of a unit: the budgets below them count the same amounts again. */
export function totalsOf(model, unit) {
  const budgets = [...model.budgets.values()].filter((budget) => budget.spent.unit === unit);
  budgets.sort((a, b) => a.scope_path.length - b.scope_path.length);
  const outermost = [];
  let spent = 0;
  let reserved = 0;
  for (const budget of budgets) {
    if (hasAncestor(budget.scope_path, outermost)) continue;
    outermost.push(budget.scope_path);
    spent += budget.spent.amount;
    reserved += budget.reserved.amount;
  }
  return { spent, reserved };
}

function hasAncestor(path, outermost) {
  return outermost.some((scope) => isWithin(path, scope));
}
