// Show amounts, times and names as text. Nothing here touches the page.

const UNIT_NAMES = { USD_MICROCENTS: "USD", TOKENS: "tokens", CREDITS: "credits", RISK_POINTS: "risk points" };
/** The units in the order in which the page shows them. */
export const UNITS = Object.keys(UNIT_NAMES);
const whole = new Intl.NumberFormat("en-US");
const dollars = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const cents = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 8 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const minutes = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const days = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const unitName = (unit) => UNIT_NAMES[unit] ?? unit;
export const count = (number) => whole.format(number);
export const time = (ms) => clock.format(ms);

/** A time of today or tomorrow without its seconds: "14:20"; a later one with its day. */
export function minute(ms) {
  return (ms - Date.now() < 86400000 ? minutes : days).format(ms);
}

/** The begin of a period: "since 10:02", "since 28 Nov 2026, 10:02". */
export const since = (ms) => `since ${(Date.now() - ms < 43200000 ? minutes : days).format(ms)}`;

/** An amount with its unit: "$0.05", "1,200 tokens". */
export function amount(value) {
  if (!value) return "";
  return number(value.amount, value.unit) + (value.unit === "USD_MICROCENTS" ? "" : ` ${unitName(value.unit)}`);
}

/** A number of a unit, without the unit's name: "$0.05", "1,200". */
export function number(value, unit) {
  if (unit !== "USD_MICROCENTS") return whole.format(value);
  const usd = Math.abs(value) / 1e8;
  return `${value < 0 ? "-" : ""}$${(usd >= 1 || usd === 0 ? dollars : cents).format(usd)}`;
}

/** A short form for the axis of a chart: "$1.2K", "350". */
export function short(value, unit) {
  if (unit !== "USD_MICROCENTS") return compact.format(value);
  const usd = value / 1e8;
  if (Math.abs(usd) >= 1000) return `$${compact.format(usd)}`;
  return `$${Number.isInteger(usd) ? usd : cents.format(Number(usd.toPrecision(3)))}`;
}

/** The top of an axis whose largest value is `most`: without a value, the marks still differ from each other. */
export function top(most, unit) {
  if (most > 0) return most * 1.1;
  return unit === "USD_MICROCENTS" ? 1e8 : 10;
}

/** A duration: "0.4 s", "12 s", "3 min 20 s", "2 h 5 min". */
export function duration(ms) {
  if (ms < 0) return `-${duration(-ms)}`;
  const s = ms / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** The name of an action: "llm.completion gpt-4o". */
export const action = (value) => (value ? [value.kind, value.name].filter(Boolean).join(" ") : "");

/** The scope of a row, with the dimensions of its subject, which belong to no scope. */
export function subject(row) {
  const dimensions = Object.entries(row.subject?.dimensions ?? {}).map(([name, value]) => `${name}=${value}`);
  return [row.scope_path, ...dimensions].filter(Boolean).join(" ");
}

/** Caps: "max_tokens 500, cooldown_ms 100". */
export function caps(value) {
  const shown = Object.entries(value).filter(([, item]) => item !== null);
  return shown.map(([name, item]) => `${name} ${Array.isArray(item) ? item.join(" ") : item}`).join(", ") || "no limits";
}

/** Whether a scope is `scope` or below it. */
export const isWithin = (path, scope) => !scope || path === scope || (path ?? "").startsWith(`${scope}/`);
