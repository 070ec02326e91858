// The lists of reservations, decisions and requests.

import { byId, make, RovingList, Rows, setClass, setData, setHidden, setText } from "./dom.js";
import { action, amount, caps, count, duration, subject, time } from "./format.js";
import { endedMs } from "./model.js";

/** Make a row of a list: a line with the most important parts, and a second one with details. */
function row(tag, testid, heads, details) {
  const parts = Object.fromEntries([...heads, ...details].map((name) => [name, make("span", name)]));
  const first = make("span", "row-head", ...heads.map((name) => parts[name]));
  const second = make("span", "numbers", ...details.map((name) => parts[name]));
  const element = make(tag, "row", first, second);
  element.dataset.testid = testid;
  element.parts = parts;
  return element;
}

const isActive = (reservation) => reservation.status === "ACTIVE";

export class Reservations {
  constructor() {
    this.rows = new Rows(byId("reservations"), createReservation, (element, shown) => this.update(element, shown));
    this.nowMs = 0;
  }

  show(model) {
    this.nowMs = model.now();
    const all = [...model.reservations.values()];
    const active = all.filter(isActive).sort((a, b) => b.created_at_ms - a.created_at_ms);
    const ended = all.filter((one) => !isActive(one)).sort((a, b) => endedMs(b) - endedMs(a));
    this.rows.show([...active, ...ended].map((one) => [one.reservation_id, one]));
    const latest = all.length < 200 ? "" : "the latest: ";
    setText(byId("reservations-sum"), all.length ? `${latest}${count(active.length)} active, ${count(ended.length)} settled` : "");
    const none = "No reservation yet. Point CYCLES_BASE_URL of an agent to this server to see its reservations.";
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
      setText(parts.scope, subject(one));
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
  const element = row("li", "reservation", ["badge", "name", "left"], details);
  element.dataset.id = one.reservation_id;
  element.title = `reservation ${one.reservation_id}`;
  return element;
}

function settledText(one) {
  if (isActive(one)) return "";
  if (one.status === "COMMITTED") return `charged ${amount(one.charged)}, released ${amount(one.released)}`;
  return `charged nothing, released ${amount(one.released)}`;
}

// --- decisions ------------------------------------------------------------------------------------------------------

export class Decisions {
  constructor(changed) {
    this.rows = new Rows(byId("decisions"), createDecision, () => {});
    this.filter = byId("decisions-filter");
    this.filter.addEventListener("change", changed);
  }

  show(model) {
    const wanted = this.filter.value;
    const shown = model.decisions.filter((one) => !wanted || one.decision === wanted);
    this.rows.show(shown.map((one) => [one.id, one]));
    const none = wanted ? `None of the last ${count(model.decisions.length)} decisions is ${wanted}.` : "No decision yet.";
    setText(byId("decisions-note"), shown.length ? "" : none);
  }
}

function createDecision(one) {
  const element = row("li", "decision", ["badge", "name", "left"], ["time", "scope", "reason", "id"]);
  const { parts } = element;
  Object.assign(element.dataset, { decision: one.decision, id: String(one.id) });
  parts.badge.textContent = one.decision;
  parts.name.textContent = [one.operation === "reserve" ? "" : one.operation, action(one.action)].join(" ").trim();
  parts.left.textContent = amount(one.amount);
  parts.time.textContent = time(one.at_ms);
  parts.scope.textContent = subject(one);
  parts.reason.textContent = reasonOf(one);
  parts.id.textContent = `request ${one.request_id ?? "without id"}`;
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
  constructor(readBodies) {
    this.readBodies = readBodies;
    this.list = byId("requests");
    this.rows = new Rows(this.list, createRequest, () => {});
    this.roving = new RovingList(this.list, (element) => this.open(element));
    byId("request-close").addEventListener("click", () => this.close());
  }

  show(model) {
    this.rows.show(model.requests.map((one) => [one.id, one]));
    this.roving.refresh();
    setText(byId("requests-sum"), model.requests.length ? `the last ${count(model.requests.length)}` : "");
    setText(byId("requests-note"), model.requests.length ? "" : "No request yet.");
  }

  async open(element) {
    this.selected?.setAttribute("aria-selected", "false");
    this.selected = element;
    element.setAttribute("aria-selected", "true");
    setText(byId("request-body-title"), ["badge", "name", "left"].map((part) => element.parts[part].textContent).join(" "));
    const text = byId("request-text");
    setText(text, "reading");
    setHidden(byId("request-body"), false);
    byId("request-body").scrollIntoView({ block: "nearest" });
    try {
      const { body, response } = await this.readBodies(element.dataset.id);
      setText(text, `request\n${indented(body)}\n\nresponse\n${indented(response)}`);
    } catch (error) {
      setText(text, `${error.message}`);
    }
  }

  close() {
    setHidden(byId("request-body"), true);
    this.selected?.setAttribute("aria-selected", "false");
    if (this.selected?.isConnected) this.selected.focus();
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
  const element = row("div", "request", ["badge", "name", "left"], ["time", "target", "replay", "fault", "id"]);
  const { parts } = element;
  element.setAttribute("role", "option");
  element.setAttribute("aria-selected", "false");
  element.tabIndex = -1;
  Object.assign(element.dataset, { id: String(one.id), class: String(one.status ?? "none")[0] });
  parts.badge.textContent = one.status ?? "lost";
  parts.name.textContent = one.operation ?? "unknown path";
  parts.left.textContent = `${one.took_ms.toFixed(1)} ms`;
  parts.time.textContent = time(one.at_ms);
  parts.target.textContent = `${one.method} ${one.target}`;
  parts.replay.textContent = one.replay ? "replay: the stored response of its idempotency key" : "";
  parts.fault.textContent = one.fault ? `fault: ${one.fault.replace("_", " ")}` : "";
  parts.id.textContent = one.request_id ? `request ${one.request_id}` : "";
  return element;
}
