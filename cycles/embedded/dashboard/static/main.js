// The page: token, scope and search, and when to draw what.

import { Budgets } from "./budgets.js";
import { Summary } from "./summary.js";
import { Connection } from "./connection.js";
import { Controls } from "./controls.js";
import { byId, make, setHidden, setText } from "./dom.js";
import { time } from "./format.js";
import { Decisions, Details, Requests, Reservations } from "./lists.js";
import { Model } from "./model.js";

const TOKEN = "cycles-dashboard-token";
const BUDGETS_MS = 200;
const LISTS_MS = 300;
const SUMMARY_MS = 1_000;
const IDLE_SUMMARY_MS = 5_000; // the period moves on without an event too
const FORECAST_MS = 60_000; // a forecast ends when nothing more is spent, and no event says so
const RESORT_MS = 10_000; // budgets that are not shown may belong to the first ones now

/** The token of the fragment, which leaves the address bar, or the one that this tab used before a reload. */
function takeToken() {
  const given = location.hash.slice(1);
  if (given) {
    sessionStorage.setItem(TOKEN, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return given || sessionStorage.getItem(TOKEN);
}

const model = new Model();
const connection = new Connection(takeToken(), { state: onState, event: onEvent, alive: onAlive, status: onStatus });
const budgets = new Budgets((scope) => narrow(scope));
const details = new Details((id) => connection.bodies(id));
const reservations = new Reservations(details);
const decisions = new Decisions(() => drawNow(), details);
const requests = new Requests(details);
const summary = new Summary(() => readSummary());
const controls = new Controls(connection, () => drawNow());
let isLive = false;
let isPaused = false;
let lastContactMs = null;
let problem = "";
let hasChanged = false;
let readings = 0;

// --- what arrives ---------------------------------------------------------------------------------------------------

function onState(state, isManual) {
  model.read(state, isManual);
  drawNow();
  readSummary();
  if (state.budgets.some((budget) => budget.exhausted_at_ms)) connection.readSoon(FORECAST_MS);
}

function onEvent(changes) {
  if (model.merge(changes)) connection.readSoon();
  else if (changes.budgets && model.budgets.size < model.count) connection.readSoon(RESORT_MS);
  hasChanged = true;
}

function onAlive(atMs) {
  model.setTime(atMs);
}

function onStatus(live, why = "") {
  isLive = live;
  problem = why;
  if (live) lastContactMs = Date.now();
  showConnection();
}

function showConnection() {
  const badge = byId("connection");
  setText(badge, isLive ? "live" : "offline");
  document.body.classList.toggle("offline", !isLive);
  const since = lastContactMs === null ? "" : ` What you see is from ${time(lastContactMs)}.`;
  setText(byId("alert"), isLive ? "" : `${problem}${since} Trying to connect again.`);
  setHidden(byId("alert"), isLive);
}

async function readSummary() {
  hasChanged = false;
  drawn.summary = performance.now();
  readings += 1;
  const reading = readings;
  const found = await connection.summary({ scope: model.scope, ...summary.query }).catch(() => null);
  if (found && reading === readings) summary.show(found);
}

// --- drawing --------------------------------------------------------------------------------------------------------

const drawn = { budgets: 0, lists: 0, summary: 0 };

function draw(nowMs) {
  const isDue = (name, everyMs) => {
    if (nowMs - drawn[name] < everyMs) return false;
    drawn[name] = nowMs;
    return true;
  };
  if (isDue("budgets", BUDGETS_MS)) budgets.show(model);
  if (isDue("lists", LISTS_MS)) {
    reservations.show(model);
    decisions.show(model);
    requests.show(model);
    controls.show(model);
    setText(byId("clock"), `${model.isManual ? "manual clock" : "server"} ${time(model.now())}`);
  }
  if (isDue("summary", hasChanged ? SUMMARY_MS : IDLE_SUMMARY_MS)) readSummary();
}

function drawNow() {
  Object.assign(drawn, { budgets: -Infinity, lists: -Infinity });
  draw(performance.now());
}

function onFrame(nowMs) {
  if (isLive && !isPaused) draw(nowMs);
  requestAnimationFrame(onFrame);
}

// --- scope and search -----------------------------------------------------------------------------------------------

function narrow(scope, { remember = true } = {}) {
  model.scope = scope;
  const address = scope ? `?scope=${encodeURIComponent(scope)}` : location.pathname;
  if (remember) history.pushState(null, "", address);
  controls.setScope(scope);
  showCrumbs();
  select();
}

function showCrumbs() {
  const crumbs = byId("crumbs");
  const segments = model.scope ? model.scope.split("/") : [];
  const paths = ["", ...segments.map((_, place) => segments.slice(0, place + 1).join("/"))];
  const buttons = paths.map((path, place) => {
    const button = make("button", "", place ? segments[place - 1] : "All scopes");
    button.type = "button";
    if (path === model.scope) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => narrow(path));
    return button;
  });
  crumbs.replaceChildren(...buttons);
}

let typing;
byId("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    model.search = event.target.value.trim().toLowerCase();
    select();
  }, 150);
});

byId("sort").addEventListener("change", (event) => {
  model.sort = event.target.value;
  select();
});

function select() {
  connection.select({ scope: model.scope, search: model.search, sort: model.sort });
}

byId("pause").addEventListener("click", (event) => {
  isPaused = !isPaused;
  event.target.setAttribute("aria-pressed", String(isPaused));
  setText(event.target, isPaused ? "Continue" : "Pause");
  if (isPaused) setText(byId("clock"), `paused at ${time(model.now())}`);
  document.body.classList.toggle("paused", isPaused);
});

const scopeOfAddress = () => new URLSearchParams(location.search).get("scope") ?? "";
addEventListener("popstate", () => narrow(scopeOfAddress(), { remember: false }));

narrow(scopeOfAddress(), { remember: false });
requestAnimationFrame(onFrame);
connection.run();
