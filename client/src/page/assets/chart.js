// Spending by day as bars. The same figures stand in a table beside it.

import { amount, credits } from "./format.js";
import { element } from "./tables.js";

const SVG = "http://www.w3.org/2000/svg";
/** What a day is wide, and how much of that is its bar. The picture is stretched to the room that there is. */
const [STEP, BAR] = [10, 7];
const HEIGHT = 100;
const DAY_MS = 24 * 60 * 60 * 1_000;

/** How many days are shown. */
export const DAYS = 30;

function dayOf(milliseconds) {
  return new Date(milliseconds).toISOString().slice(0, 10);
}

/** The first of the days that are shown, and the one before it: clocks may differ a little. */
export function firstDay(todayMs) {
  return dayOf(todayMs - DAYS * DAY_MS);
}

/** The last days up to `todayMs`, oldest first, each with what was spent, from days that have something. */
export function lastDays(byDay, todayMs, length = DAYS) {
  const known = new Map(byDay.map((day) => [day.group, day]));
  return Array.from({ length }, (_, index) => {
    const day = dayOf(todayMs - (length - 1 - index) * DAY_MS);
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

function bar({ group, cost }, index, most) {
  // What was spent is seen, however little it is beside the most.
  const height = Math.max(2, (cost / most) * HEIGHT);
  const made = shape("rect", { x: index * STEP + (STEP - BAR) / 2, y: HEIGHT - height, width: BAR, height });
  made.append(shape("title", {}, `${group}: ${amount(cost)}`));
  return made;
}

/**
 * The parts of a picture of `days`, as `lastDays` gives them, on one of which something was spent: a scale, the bars,
 * the first and the last day.
 */
export function spendingChart(days) {
  const most = Math.max(...days.map((day) => day.cost));
  const total = days.reduce((sum, day) => sum + day.cost, 0);
  const busiest = days.find((day) => day.cost === most);
  const svg = shape("svg", {
    viewBox: `0 0 ${days.length * STEP} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `Spending in the last ${days.length} days: ${amount(total)}. Most on ${busiest.group}: ${amount(most)}.`,
  });
  days.forEach((day, index) => day.cost > 0 && svg.append(bar(day, index, most)));
  // Said above, and drawn here beside the bars, where it isn't stretched.
  const scale = element("p", `${credits(most)} credits`, { class: "scale", "aria-hidden": "true" });
  const ends = element("p", "", { class: "ends", "aria-hidden": "true" });
  ends.append(element("span", days[0].group), element("span", days.at(-1).group));
  return [scale, svg, ends];
}
