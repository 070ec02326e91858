// Read the state, then its events, and connect again if the connection is lost.

const SILENT_MS = 10_000; // the server sends something every four seconds
const READ_PAUSE_MS = 1_000; // a state that is reset all the time is not read more often than this
const RETRY_MS = [250, 500, 1_000, 2_000];

export class Connection {
  /**
   * @param token Token of the server, or null.
   * @param handlers `state(state, isManual)`, `event(changes)`, `alive(atMs)`, `status(isLive, problem)`
   */
  constructor(token, handlers) {
    this.token = token;
    this.handlers = handlers;
    this.query = "";
    this.lastId = null;
    this.readAtMs = Infinity;
    this.failures = 0;
  }

  headers(more = {}) {
    return this.token ? { Authorization: `Bearer ${this.token}`, ...more } : more;
  }

  /** Narrow the state to a scope and a search, sort its budgets, and read it again once it was read. */
  select(choices) {
    this.query = queryOf(choices);
    if (this.lastId !== null) this.read().catch(() => {});
  }

  async run() {
    for (;;) {
      try {
        if (this.lastId === null) await this.read();
        await this.stream();
        this.handlers.status(false, "The server ended the connection.");
      } catch (error) {
        this.handlers.status(false, error.problem ?? "The server does not respond.");
      }
      const pause = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
      this.failures += 1;
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  async read() {
    const query = this.query;
    const response = await fetch(`/dashboard/state${query}`, { headers: this.headers(), cache: "no-store" });
    await requireOk(response);
    const state = await response.json();
    if (query !== this.query) return; // another scope was selected in the meantime
    this.lastId ??= state.last_event_id;
    this.handlers.state(state, response.headers.get("X-Cycles-Clock") === "manual");
  }

  /** Read the state after a pause, or earlier if another caller wants it earlier. */
  readSoon(pauseMs = READ_PAUSE_MS) {
    const atMs = performance.now() + pauseMs;
    if (this.readAtMs <= atMs) return;
    clearTimeout(this.reading);
    this.readAtMs = atMs;
    this.reading = setTimeout(() => {
      this.readAtMs = Infinity;
      this.read().catch(() => {});
    }, pauseMs);
  }

  /** Return the figures, the chart and the denials of a scope. */
  async summary(choices) {
    const response = await fetch(`/dashboard/summary${queryOf(choices)}`, { headers: this.headers(), cache: "no-store" });
    await requireOk(response);
    return response.json();
  }

  async stream() {
    const abort = new AbortController();
    const headers = this.headers({ "Last-Event-ID": String(this.lastId) });
    const response = await fetch("/dashboard/events", { headers, cache: "no-store", signal: abort.signal });
    await requireOk(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const silent = setTimeout(() => abort.abort(), SILENT_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(silent));
      if (done) return;
      this.failures = 0;
      this.handlers.status(true);
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) await this.take(event);
    }
  }

  async take(text) {
    const comment = text.match(/^: at_ms=(\d+)$/m);
    if (comment) this.handlers.alive(Number(comment[1]));
    const data = text.match(/^data: (.*)$/m);
    if (!data) return;
    const changes = JSON.parse(data[1]);
    this.lastId = changes.last_event_id;
    if (/^event: reset$/m.test(text)) this.readSoon();
    else this.handlers.event(changes);
  }

  /** Send what a control does, and return the sentence that the server responds with. */
  async control(form) {
    const headers = this.headers({ "Content-Type": "application/json" });
    const response = await fetch("/dashboard/control", { method: "POST", headers, body: JSON.stringify(form) });
    const { message } = await response.json();
    if (!response.ok) throw new Error(message);
    return message;
  }

  async bodies(id) {
    const response = await fetch(`/dashboard/requests/${id}`, { headers: this.headers(), cache: "no-store" });
    await requireOk(response);
    return response.json();
  }
}

function queryOf(choices) {
  const query = new URLSearchParams(Object.entries(choices).filter(([, value]) => value));
  return query.size ? `?${query}` : "";
}

async function requireOk(response) {
  if (response.ok) return;
  const { message } = await response.json();
  throw Object.assign(new Error(message), { problem: `The server rejects this page: ${message}.` });
}
