// Spending by day as bars. The same figures stand in a table beside it.

import { amount, credits } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 720;
const HEIGHT = 190;
const LEFT = 4;
const TOP = 24;
const BOTTOM = 26;
const DAY_MS = 24 * 60 * 60 * 1_000;

/** How many days are shown. */
export const DAYS = 30;

/** The last days up to `todayMs`, oldest first, each with what was spent, from days that have something. */
export function lastDays(byDay, todayMs, length = DAYS) {
  const known = new Map(byDay.map((day) => [day.group, day]));
  return Array.from({ length }, (_, index) => {
    const day = new Date(todayMs - (length - 1 - index) * DAY_MS).toISOString().slice(0, 10);
    return known.get(day) ?? { group: day, requests: 0, cost: 0 };
  });
}

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) {
    made.setAttribute(attribute, value);
  }
  made.textContent = text;
  return made;
}

/** The picture of `days`, as `lastDays` gives them. */
export function spendingChart(days) {
  const most = Math.max(...days.map((day) => day.cost), 1);
  const total = days.reduce((sum, day) => sum + day.cost, 0);
  const busiest = days.find((day) => day.cost === most);
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const summary = busiest === undefined ? "Nothing was spent." : `Most on ${busiest.group}: ${amount(most)}.`;
  svg.setAttribute("aria-label", `Spending in the last ${days.length} days: ${amount(total)}. ${summary}`);
  const base = HEIGHT - BOTTOM;
  const step = (WIDTH - 2 * LEFT) / days.length;
  svg.append(shape("line", { class: "guide", x1: LEFT, x2: WIDTH - LEFT, y1: TOP, y2: TOP }));
  svg.append(shape("text", { x: LEFT, y: TOP - 7 }, `${credits(most)} credits`));
  days.forEach((day, index) => {
    if (day.cost === 0) {
      return;
    }
    // What was spent is seen, however little it is beside the most.
    const height = Math.max(2, (day.cost / most) * (base - TOP));
    const bar = shape("rect", { x: LEFT + index * step + 2, y: base - height, width: step - 4, height, rx: 2 });
    bar.append(shape("title", {}, `${day.group}: ${amount(day.cost)}`));
    svg.append(bar);
  });
  svg.append(shape("line", { x1: LEFT, x2: WIDTH - LEFT, y1: base, y2: base }));
  svg.append(shape("text", { x: LEFT, y: HEIGHT - 8 }, days[0].group));
  svg.append(shape("text", { x: WIDTH - LEFT, y: HEIGHT - 8, "text-anchor": "end" }, days.at(-1).group));
  return svg;
}
