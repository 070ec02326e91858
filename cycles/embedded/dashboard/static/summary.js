// The four figures, the denials and the spend chart of the selected period, drawn by uPlot, and the same numbers as text.

import { byId, make, Rows, setClass, setHidden, setPath, setText } from "./dom.js";
import { count, number, short, since, top, unitName } from "./format.js";

const HEIGHT = 220;
// Distances of the marks on the time axis, in seconds.
const STEPS = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000];
const MAX_DENIALS = 8;
const NAMES = { "5m": "in the last 5 minutes", "1h": "in the last hour", "24h": "in the last 24 hours" };
const LENGTHS = { "5m": 300_000, "1h": 3_600_000, "24h": 86_400_000 };

export class Summary {
  /** @param selected Called when another unit, period or grouping was selected. */
  constructor(selected) {
    this.box = byId("spend-chart");
    this.by = byId("spend-by");
    this.unit = byId("unit");
    this.period = "5m";
    this.legend = new Rows(byId("spend-legend"), createLegend, updateLegend);
    this.denials = new Rows(byId("denials"), createDenial, updateDenial);
    for (const select of [this.by, this.unit]) select.addEventListener("change", selected);
    for (const button of byId("periods").children) {
      button.addEventListener("click", () => {
        this.period = button.value;
        for (const other of byId("periods").children) other.setAttribute("aria-pressed", String(other === button));
        selected();
      });
    }
    new ResizeObserver(() => this.resize()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.names = null;
      if (this.shown) this.show(this.shown);
    });
  }

  /** What to request from the server. */
  get query() {
    return { unit: this.unit.value, period: this.period, by: this.by.value };
  }

  show(summary) {
    this.shown = summary;
    this.showUnits(summary);
    const spentIn = NAMES[this.period] ?? since(summary.from_ms);
    this.figures(summary, spentIn);
    this.showDenials(summary, this.denied(summary));
    const isEmpty = summary.units.length === 0;
    for (const part of [this.box, byId("choices")]) setHidden(part, isEmpty);
    if (isEmpty) return;
    const held = { name: "reserved", color: "--reserved", fill: true, values: summary.held, note: `${number(summary.reserved, summary.unit)} now` };
    const isTotal = this.by.value === "unit";
    const groups = summary.groups.map(({ name, spent, values }, place) => {
      return { name, color: isTotal ? "--spent" : `--series-${place}`, fill: isTotal, values, note: number(spent, summary.unit) };
    });
    const stacked = isTotal && groups.length ? { ...held, values: held.values.map((one, place) => one + groups[0].values[place]) } : held;
    const lines = [stacked, ...groups];
    const isLong = summary.held.length * summary.step_ms > 86_400_000;
    const names = [this.period, isLong, ...lines.map((line) => line.name)].join("\n");
    if (!this.plot || names !== this.names) {
      this.names = names;
      this.build(lines, isTotal && groups.length > 0, isLong);
    }
    const times = summary.held.map((_, place) => Math.min(summary.from_ms + (place + 1) * summary.step_ms, summary.at_ms) / 1000);
    this.plot.setData([times, ...lines.map((line) => line.values)]);
    this.legend.show([...groups, held].map((line) => [line.name, line]));
    setText(byId("spend-text"), `${number(summary.spent, summary.unit)} spent ${spentIn}, ${number(summary.reserved, summary.unit)} reserved now, in ${unitName(summary.unit)}.`);
  }

  showUnits({ units, unit }) {
    if (units.join() !== this.units) {
      this.units = units.join();
      this.unit.replaceChildren(...units.map((one) => Object.assign(make("option", "", unitName(one)), { value: one })));
    }
    this.unit.value = unit;
  }

  figures({ unit, spent, reserved, remaining, allocated, has_budget: hasBudget }, spentIn) {
    setText(byId("spent"), number(spent, unit));
    setText(byId("spent-period"), spentIn);
    setText(byId("reserved"), number(reserved, unit));
    setText(byId("reserved-period"), "now, by active reservations");
    setText(byId("left"), hasBudget ? number(remaining, unit) : "none");
    setText(byId("left-period"), hasBudget ? `now, of ${number(allocated, unit)}` : "no budget at this scope or below");
    setClass(byId("left"), "bad", allocated > 0 && remaining <= allocated * 0.05);
  }

  /** The words for the period of the denials: they are counted since the server began. */
  denied({ at_ms, denied }) {
    const length = LENGTHS[this.period];
    return length && denied.since_ms <= at_ms - length + 60_000 ? NAMES[this.period] : since(denied.since_ms);
  }

  showDenials({ at_ms, denied }, period) {
    const [most] = denied.most;
    setText(byId("denied"), count(denied.count));
    setClass(byId("denied"), "bad", denied.count > 0);
    setPath(byId("denied-period"), most ? `${period}; most: ${most.scope || "no scope"} (${count(most.count)})` : period);
    const minutes = Math.max(1, (at_ms - denied.since_ms) / 60_000);
    const rate = denied.count / minutes;
    const shown = rate >= 10 ? count(Math.round(rate)) : Number(rate.toPrecision(2));
    setText(byId("denials-sum"), denied.count ? `${count(denied.count)} ${period}, ${shown} a minute` : "");
    this.denials.show(denied.groups.slice(0, MAX_DENIALS).map((group) => [`${group.scope}\n${group.reason}`, group]));
    const rest = denied.group_count - Math.min(MAX_DENIALS, denied.groups.length);
    const none = `No call was denied ${period}.`;
    setText(byId("denials-note"), denied.count === 0 ? none : rest > 0 ? `${count(rest)} more pairs of scope and reason are not shown.` : "");
  }

  /** Make the chart. Between reserved and spent there is a band, so that the two areas do not mix their colours. */
  build(lines, isStacked, isLong) {
    this.plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const drawn = lines.map((line) => ({
      label: line.name,
      stroke: color(line.color),
      width: 2,
      fill: line.fill && !(isStacked && line.color === "--reserved") ? `${color(line.color)}55` : undefined,
      points: { show: false },
    }));
    const times = this.period === "5m" ? "{HH}:{mm}:{ss}" : isLong ? "{D} {MMM} {HH}:{mm}" : "{HH}:{mm}";
    const options = {
      width: Math.max(this.box.clientWidth, 200),
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      scales: { y: { range: (_, least, most) => [Math.min(0, least), top(most, this.unit.value)] } },
      axes: [
        { ...axis, values: times, space: isLong ? 120 : 80, size: 30, incrs: STEPS },
        { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => short(tick, this.unit.value)) },
      ],
      series: [{}, ...drawn],
      bands: isStacked ? [{ series: [1, 2], fill: `${color("--reserved")}66` }] : [],
    };
    this.plot = new uPlot(options, [[], ...drawn.map(() => [])], this.box);
  }

  resize() {
    const width = this.box.clientWidth;
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }
}

function createLegend({ name }) {
  return make("li", "", make("span", "swatch"), make("span", "name", name), make("span", "value"));
}

function updateLegend(item, { color, note }) {
  item.children[0].style.background = `var(${color})`;
  setText(item.children[2], note);
}

function createDenial({ scope, reason }) {
  const head = make("span", "row-head", make("span", "name"), make("span", "left"));
  setPath(head.firstChild, scope || "no scope");
  return make("li", "row", head, make("span", "numbers", make("span", "reason", reason)));
}

function updateDenial(item, { count: times }) {
  setText(item.querySelector(".left"), `${count(times)} ${times === 1 ? "time" : "times"}`);
}
