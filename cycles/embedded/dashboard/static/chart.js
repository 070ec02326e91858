// The spend chart, drawn by uPlot, and the same numbers as text.

import { byId, make, Rows, setHidden, setText } from "./dom.js";
import { duration, number, short, time, top, UNITS, unitName } from "./format.js";
import { Series } from "./series.js";

const HEIGHT = 220;
// Distances of the marks on the time axis.
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

export class Chart {
  constructor() {
    this.box = byId("spend-chart");
    this.by = byId("spend-by");
    this.unit = byId("spend-unit");
    this.legend = new Rows(byId("spend-legend"), createLegend, updateLegend);
    for (const select of [this.by, this.unit]) select.addEventListener("change", () => this.restart());
    new ResizeObserver(() => this.resize()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  /** Begin again: another scope, unit or grouping was selected. */
  restart() {
    this.series = null;
    this.redraw();
  }

  redraw() {
    this.plot?.destroy();
    this.plot = null;
    if (this.model) this.show(this.model);
  }

  show(model) {
    this.model = model;
    this.showUnits(model);
    setHidden(this.box, !this.unit.value);
    setHidden(byId("spend-choices"), !this.unit.value);
    if (!this.unit.value) return;
    this.series ??= new Series(this.unit.value, this.by.value, model.scope);
    this.series.add(model);
    const lines = this.lines();
    const names = lines.map((line) => line.name).join("\n");
    if (!this.plot || names !== this.names) {
      this.names = names;
      this.build(lines);
    }
    this.plot.setData([this.series.samples.map((sample) => sample.t), ...lines.map((line) => line.values)]);
    this.describe(lines);
  }

  showUnits(model) {
    const known = new Set([...model.budgets.values()].map((budget) => budget.spent.unit));
    for (const row of model.reservations.values()) known.add(row.reserved.unit);
    const units = [...known].sort((a, b) => UNITS.indexOf(a) - UNITS.indexOf(b));
    if (units.join() === this.units) return;
    this.units = units.join();
    const selected = this.unit.value;
    this.unit.replaceChildren(...units.map((unit) => Object.assign(make("option", "", unitName(unit)), { value: unit })));
    if (units.includes(selected)) this.unit.value = selected;
  }

  /**
   * The lines of the chart: for a unit two areas, reserved on top of spent; else one line for each group. Spent counts
   * from the first sample: beside everything that was ever spent, the last minutes would be a flat line.
   */
  lines() {
    const { samples } = this.series;
    const base = samples[0].spent;
    const reserved = { name: "reserved now", color: "--reserved", fill: true, amount: samples.at(-1).reserved };
    if (this.by.value === "unit") {
      const spent = { name: `spent since ${time(samples[0].t * 1000)}`, color: "--spent", fill: true };
      return [
        { ...reserved, values: samples.map((one) => one.spent - base + one.reserved) },
        { ...spent, values: samples.map((one) => one.spent - base), amount: samples.at(-1).spent - base },
      ];
    }
    const groups = this.series.groups().map((name, place) => {
      const values = samples.map((one) => one.totals.get(name) ?? null);
      return { name, color: `--series-${place}`, values, amount: values.at(-1) ?? 0 };
    });
    return [{ ...reserved, values: samples.map((one) => one.reserved) }, ...groups];
  }

  /** Make the chart. Between reserved and spent there is a band, so that the two areas do not mix their colours. */
  build(lines) {
    this.plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const isStacked = this.by.value === "unit";
    const drawn = lines.map((line) => ({
      label: line.name,
      stroke: color(line.color),
      width: 2,
      fill: line.fill && !(isStacked && line.color === "--reserved") ? `${color(line.color)}55` : undefined,
      points: { show: false },
    }));
    const options = {
      width: Math.max(this.box.clientWidth, 200),
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      scales: { y: { range: (_, least, most) => [Math.min(0, least), top(most, this.unit.value)] } },
      axes: [
        { ...axis, values: "{HH}:{mm}:{ss}", space: 90, size: 30, incrs: SECONDS },
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

  describe(lines) {
    const { samples, unit } = this.series;
    const [first, last] = [samples[0], samples.at(-1)];
    const seconds = last.t - first.t;
    const gained = last.spent - first.spent;
    const rate = seconds >= 1 && gained > 0 ? `, ${number(gained / seconds, unit).replace(/(\.\d{4})\d+/, "$1")} a second` : "";
    const period = seconds >= 1 ? ` In the last ${duration(seconds * 1000)}: ${number(gained, unit)} spent${rate}.` : "";
    const now = `${number(last.spent, unit)} spent and ${number(last.reserved, unit)} reserved in ${unitName(unit)}.`;
    setText(byId("spend-text"), now + period);
    this.legend.show([...lines.slice(1), lines[0]].map((line) => [line.name, { ...line, unit }]));
    setHidden(byId("spend-legend"), lines.length === 0);
  }
}

function createLegend({ name }) {
  const item = make("li", "", make("span", "swatch"), make("span", "name", name), make("span", "value"));
  return item;
}

function updateLegend(item, { color, amount, unit }) {
  item.children[0].style.background = `var(${color})`;
  setText(item.children[2], number(amount, unit));
}
