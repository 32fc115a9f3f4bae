// Tables that stay tables for screen readers where CSS shows their rows as cards.

/** An element with a text and attributes. */
export function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  if (text !== "") {
    made.textContent = text;
  }
  for (const [attribute, value] of Object.entries(attributes)) {
    made.setAttribute(attribute, value);
  }
  return made;
}

/**
 * Shows rows in a table; without any, `note` says so instead. A column is `{label, cell, number, long}`, where `cell`
 * gives a text or an element for a row. The first one names the row; `long` ones may be broken anywhere.
 */
export function showTable(table, columns, rows, note, nothing) {
  table.hidden = rows.length === 0;
  note.textContent = rows.length === 0 ? nothing : "";
  // Display properties other than a table's own take the meaning away in some browsers; roles give it back.
  table.setAttribute("role", "table");
  const head = element("tr", "", { role: "row" });
  head.append(...columns.map((column) =>
    element("th", column.label, { role: "columnheader", scope: "col", class: kindOf(column) })));
  table.tHead.setAttribute("role", "rowgroup");
  table.tHead.replaceChildren(head);
  const [body] = table.tBodies;
  body.setAttribute("role", "rowgroup");
  body.replaceChildren(...rows.map((row) => bodyRow(columns, row)));
}

function kindOf({ number, long }) {
  return [number ? "number" : "", long ? "long" : ""].join(" ").trim();
}

function bodyRow(columns, row) {
  const line = element("tr", "", { role: "row" });
  columns.forEach((column, index) => {
    const { label, cell } = column;
    const names = index === 0;
    const made = element(names ? "th" : "td", "", {
      role: names ? "rowheader" : "cell",
      "data-label": label,
      class: kindOf(column),
    });
    if (names) {
      made.scope = "row";
    }
    // One child, so that a card's label stands beside all of it.
    const content = cell(row);
    made.append(content instanceof Node ? content : element("span", content));
    line.append(made);
  });
  return line;
}

/** Shows pairs of names and values in a description list. */
export function showFacts(list, facts) {
  list.replaceChildren(...facts.map(([name, value]) => {
    const pair = element("div");
    const told = element("dd");
    told.append(value);
    pair.append(element("dt", name), told);
    return pair;
  }));
}

/** Changes a text only where it differs, so that screen readers are not told the same again. */
export function say(target, text) {
  if (target.textContent !== text) {
    target.textContent = text;
  }
  if (target.classList.contains("error")) {
    target.hidden = text === "";
  }
}
