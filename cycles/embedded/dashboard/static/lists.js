// The lists of reservations, decisions and requests.

import { byId, make, RovingList, Rows, setClass, setData, setPath, setText } from "./dom.js";
import { action, amount, caps, count, duration, since, subject, time } from "./format.js";
import { endedMs } from "./model.js";

/** Make a row of a list: a line with the most important parts, and a second one with more. Ids are in the details. */
function row(testid, heads, more) {
  const parts = Object.fromEntries([...heads, ...more].map((name) => [name, make("span", name)]));
  const first = make("span", "row-head", ...heads.map((name) => parts[name]));
  const second = make("span", "numbers", ...more.map((name) => parts[name]));
  const element = make("div", "row", first, second);
  element.setAttribute("role", "option");
  element.setAttribute("aria-selected", "false");
  element.tabIndex = -1;
  element.dataset.testid = testid;
  element.parts = parts;
  return element;
}

/** The details of the chosen row: all of it as JSON, and the bodies of a request. */
export class Details {
  constructor(readBodies) {
    this.readBodies = readBodies;
    byId("details-close").addEventListener("click", () => this.close());
    addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  /** Return a function that opens the details of a row, whose entry `find` returns. */
  opener(title, find, hasBodies) {
    return (element) => this.open(element, title, find(element.dataset.id), hasBodies);
  }

  async open(element, title, entry, hasBodies) {
    this.selected?.setAttribute("aria-selected", "false");
    this.selected = element;
    element.setAttribute("aria-selected", "true");
    setText(byId("details-title"), `${title}: ${element.parts.name.textContent}`);
    const text = byId("details-text");
    setText(text, JSON.stringify(entry, null, 2));
    byId("details").show();
    if (!hasBodies) return;
    try {
      const { body, response } = await this.readBodies(element.dataset.id);
      text.textContent += `\n\nrequest\n${indented(body)}\n\nresponse\n${indented(response)}`;
    } catch (error) {
      text.textContent += `\n\n${error.message}`;
    }
  }

  close() {
    byId("details").close();
    this.selected?.setAttribute("aria-selected", "false");
    if (this.selected?.isConnected) this.selected.focus();
    this.selected = null;
  }
}

const isActive = (reservation) => reservation.status === "ACTIVE";
const where = (model) => (model.scope ? ` of ${model.scope}` : "");

export class Reservations {
  constructor(details) {
    this.rows = new Rows(byId("reservations"), createReservation, (element, shown) => this.update(element, shown));
    this.roving = new RovingList(
      byId("reservations"),
      details.opener("Reservation", (id) => this.model.reservations.get(id), false),
    );
    this.nowMs = 0;
  }

  show(model) {
    this.model = model;
    this.nowMs = model.now();
    const all = [...model.reservations.values()];
    const active = all.filter(isActive).sort((a, b) => b.created_at_ms - a.created_at_ms);
    const ended = all.filter((one) => !isActive(one)).sort((a, b) => endedMs(b) - endedMs(a));
    this.rows.show([...active, ...ended].map((one) => [one.reservation_id, one]));
    this.roving.refresh();
    const latest = all.length < 200 ? "" : "the latest: ";
    setText(byId("reservations-sum"), all.length ? `${latest}${count(active.length)} active, ${count(ended.length)} ended` : "");
    const none = model.scope
      ? `The ledger has no reservation${where(model)}.`
      : "No reservation yet. Point CYCLES_BASE_URL of an agent to this server to see its reservations.";
    setText(byId("reservations-note"), all.length ? "" : none);
  }

  update(element, one) {
    const { parts } = element;
    const left = one.expires_at_ms - this.nowMs;
    if (element.shown !== one) {
      setClass(element, "fading", Boolean(element.shown) && !isActive(one));
      setClass(element, "settled", !isActive(one));
      element.shown = one;
      setData(element, "status", one.status);
      setText(parts.badge, isActive(one) ? "active" : one.status.toLowerCase());
      setText(parts.name, action(one.action));
      setText(parts.left, amount(isActive(one) ? one.reserved : one.charged));
      setPath(parts.scope, subject(one));
      setText(parts.extensions, one.extensions ? `${one.extensions} of ${one.max_extensions} extensions` : "");
      setText(parts.released, settledText(one));
    }
    if (!isActive(one)) {
      setText(parts.age, `${duration(Math.max(0, this.nowMs - endedMs(one)))} ago`);
      setText(parts.countdown, "");
      return;
    }
    setText(parts.age, `age ${duration(Math.max(0, this.nowMs - one.created_at_ms))}`);
    setText(parts.countdown, left > 0 ? `${duration(left)} left` : `grace period, expired ${duration(-left)} ago`);
    setClass(parts.countdown, "low", left < 10_000);
  }
}

function createReservation(one) {
  const details = ["scope", "age", "countdown", "extensions", "released"];
  const element = row("reservation", ["badge", "name", "left"], details);
  element.dataset.id = one.reservation_id;
  return element;
}

function settledText(one) {
  if (isActive(one)) return "";
  if (one.status === "COMMITTED") return `charged ${amount(one.charged)}, released ${amount(one.released)}`;
  return `charged nothing, released ${amount(one.released)}`;
}

// --- decisions ------------------------------------------------------------------------------------------------------

export class Decisions {
  constructor(changed, details) {
    this.roving = new RovingList(
      byId("decisions"),
      details.opener("Decision", (id) => this.model.decisions.find((one) => String(one.id) === id), true),
    );
    this.rows = new Rows(byId("decisions"), createDecision, () => {});
    this.filter = byId("decisions-filter");
    this.filter.addEventListener("change", changed);
  }

  show(model) {
    this.model = model;
    const wanted = this.filter.value;
    const shown = model.decisions.filter((one) => !wanted || one.decision === wanted);
    this.rows.show(shown.map((one) => [one.id, one]));
    this.roving.refresh();
    const all = model.decisions.length;
    const none = wanted && all ? `None of the last ${count(all)} decisions${where(model)} is ${wanted}.` : noneKept("decision", model);
    setText(byId("decisions-note"), shown.length ? "" : none);
  }
}

/** The page keeps the last requests of all scopes; the ledger keeps none of them. */
const noneKept = (what, model) => `No ${what}${where(model)} ${since(model.keptSinceMs)}: earlier ones are not kept.`;

function createDecision(one) {
  const element = row("decision", ["badge", "name", "left"], ["time", "scope", "reason"]);
  const { parts } = element;
  Object.assign(element.dataset, { decision: one.decision, id: String(one.id) });
  parts.badge.textContent = one.decision;
  parts.name.textContent = [one.operation === "reserve" ? "" : one.operation, action(one.action)].join(" ").trim();
  parts.left.textContent = amount(one.amount);
  parts.time.textContent = time(one.at_ms);
  setPath(parts.scope, subject(one));
  parts.reason.textContent = reasonOf(one);
  return element;
}

function reasonOf(one) {
  const dry = one.dry_run ? "dry run" : "";
  if (one.decision === "ALLOW_WITH_CAPS") return [dry, `caps: ${caps(one.caps ?? {})}`].filter(Boolean).join(", ");
  if (one.decision !== "DENY") return dry;
  const missing = one.missing ? `${amount(one.missing)} missing, ${amount(one.remaining)} left` : "";
  const at = one.denied_by ? `${one.denied_by}: ${one.rule}` : one.rule;
  return [dry, one.reason, at, missing].filter(Boolean).join(", ");
}

// --- requests -------------------------------------------------------------------------------------------------------

export class Requests {
  constructor(details) {
    this.rows = new Rows(byId("requests"), createRequest, () => {});
    this.roving = new RovingList(
      byId("requests"),
      details.opener("Request", (id) => this.model.requests.find((one) => String(one.id) === id), true),
    );
  }

  show(model) {
    this.model = model;
    this.rows.show(model.requests.map((one) => [one.id, one]));
    this.roving.refresh();
    setText(byId("requests-sum"), model.requests.length ? `the last ${count(model.requests.length)}` : "");
    setText(byId("requests-note"), model.requests.length ? "" : noneKept("request", model));
  }
}

function indented(text) {
  if (!text) return "(empty)";
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function createRequest(one) {
  const element = row("request", ["badge", "name", "left"], ["time", "scope", "replay", "fault"]);
  const { parts } = element;
  Object.assign(element.dataset, { id: String(one.id), class: String(one.status ?? "none")[0] });
  parts.badge.textContent = one.status ?? "lost";
  parts.name.textContent = one.operation ?? "unknown path";
  parts.left.textContent = `${one.took_ms.toFixed(1)} ms`;
  parts.time.textContent = time(one.at_ms);
  setPath(parts.scope, one.operation ? one.scope_path ?? "" : `${one.method} ${one.target}`);
  parts.replay.textContent = one.replay ? "replay: the stored response of its idempotency key" : "";
  parts.fault.textContent = one.fault ? `fault: ${one.fault.replace("_", " ")}` : "";
  return element;
}
