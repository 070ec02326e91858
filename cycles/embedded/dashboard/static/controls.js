// The controls: each form sends one request to the server and shows what it responds.

import { byId, make, Rows, setHidden, setText } from "./dom.js";

const NO_TOKEN =
  "Disabled, because this page has no token. Open the address that the server printed, with the part after #.";
const MACHINE_CLOCK = "Disabled, because the server uses the machine's clock. A cycles.ManualClock can be advanced.";
const INTEGERS = ["times", "status", "ms"];

export class Controls {
  constructor(connection, changed) {
    this.connection = connection;
    this.changed = changed;
    this.faults = new Rows(byId("faults"), () => make("li"), (item, text) => setText(item, text));
    byId("controls").disabled = !connection.token;
    setText(byId("controls-reason"), connection.token ? "" : NO_TOKEN);
    setHidden(byId("controls-reason"), Boolean(connection.token));
    for (const id of ["budget-form", "fault-form", "clock-form"]) {
      byId(id).addEventListener("submit", (event) => this.submit(event));
    }
    byId("fault-kind").addEventListener("change", () => showFields());
    showFields();
  }

  show(model) {
    byId("clock-fields").disabled = !model.isManual;
    setText(byId("clock-reason"), model.isManual ? "" : MACHINE_CLOCK);
    this.faults.show(model.faults.map((fault, place) => [place, faultText(fault)]));
    const scopes = [...new Set([...model.budgets.values()].map((budget) => budget.scope_path))].slice(0, 100);
    if (scopes.join() === this.scopes) return;
    this.scopes = scopes.join();
    byId("scopes").replaceChildren(...scopes.map((scope) => Object.assign(make("option"), { value: scope })));
  }

  /** Fill in the scope that the page is narrowed to. */
  setScope(scope) {
    byId("budget-form").elements.scope.value = scope;
  }

  async submit(event) {
    event.preventDefault();
    const result = byId("control-result");
    try {
      const message = await this.connection.control(formOf(event));
      result.dataset.ok = "true";
      setText(result, `Done: ${message}.`);
      this.changed();
    } catch (error) {
      result.dataset.ok = "false";
      setText(result, `Not done: ${error.message}.`);
    }
  }
}

function formOf(event) {
  const form = { do: event.submitter?.value };
  for (const element of event.target.elements) {
    if (!element.name || element.name === "do" || element.closest("[hidden]")) continue;
    const value = element.value.trim();
    if (value === "") continue;
    form[element.name] = INTEGERS.includes(element.name) || element.name === "seconds" ? numberOf(value) : value;
  }
  if (form.do === "clear_faults") return { do: form.do };
  return form;
}

/** A number if the text is one; else the text, which the server rejects with the name of the field. */
const numberOf = (text) => (Number.isFinite(Number(text)) ? Number(text) : text);

function showFields() {
  const kind = byId("fault-kind").value;
  for (const label of document.querySelectorAll("#fault-form [data-for]")) {
    setHidden(label, !label.dataset.for.split(" ").includes(kind));
  }
}

function faultText({ operation, kind, times, seconds, status }) {
  const detail = seconds !== undefined ? ` of ${seconds} s` : status !== undefined ? ` ${status}` : "";
  const requests = times === null ? "every request" : times === 1 ? "the next request" : `the next ${times} requests`;
  return `${kind.replace("_", " ")}${detail}: ${requests} of ${operation}`;
}
