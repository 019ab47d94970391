// Shows the table of the classes, which depends on the thresholds, and the table of differences between two runs.

// The columns that depend on the thresholds: the `value` for a class's counts, and the `kind` that a click shows.
const MEASURES = [
  {name: "Right", about: "true positives", value: ({right}) => right, kind: "right"},
  {name: "False positives", value: ({wrong}) => wrong, kind: "false positive"},
  {name: "Not found", about: "objects that no detection above the threshold matches", value: ({missed}) => missed,
    kind: "not found"},
  {name: "Precision", value: ({right, wrong}) => precision(right, wrong)},
  {name: "Recall", value: ({right, missed}) => recall(right, missed)},
  {name: "F1", value: ({right, wrong, missed}) => f1(right, wrong, missed)},
];

function countsOfClass(counts, label) {
  return {right: counts.right[label], wrong: counts.wrong[label], missed: counts.missed[label]};
}

function countsOfAll(counts) {
  return {right: sum(counts.right), wrong: sum(counts.wrong), missed: sum(counts.missed)};
}

// Returns a function that shows the counts of each run and returns, for each run, a list of values for each name in
// MEASURES: first the value for all classes together, then the value for each class.
function startClassTable() {
  const hasTwo = data.runs.length > 1;
  const averages = averagesShown();
  const columns = [
    {name: "Class", value: (label) => className(label)},
    {name: "Objects", value: (label) => numObjects[label]},
    ...averages.map(([name, key]) => ({name, value: (label) => Number.parseFloat(data.runs[0][key][label])})),
    {name: "Threshold", value: (label) => thresholds()[label]},
    ...MEASURES.flatMap((measure) => data.runs.map((run, row) => ({
      name: hasTwo ? `${measure.name} ${run.name}` : measure.name,
      about: measure.about,
      value: (label) => measure.value(countsOfClass(shown[row], label)),
    }))),
  ];
  let shown = [];
  const body = element("tbody");
  const rows = [null, ...data.classes.keys()].map(classRow);
  body.append(...rows.map((row) => row.row));
  const heads = columns.map((column) => element("th", {scope: "col", title: column.about ?? null},
    element("button", {type: "button", class: "plain", onclick: () => sortBy(column)}, column.name)));
  const sortBy = (column) => {
    const head = heads[columns.indexOf(column)];
    const down = head.getAttribute("aria-sort") !== "descending" && column.name !== "Class"
      || head.getAttribute("aria-sort") === "ascending";
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keys = data.classes.map((_, label) => column.value(label));
    const order = [...data.classes.keys()].sort((a, b) => compared(keys[a], keys[b], down));
    body.append(...order.map((label) => rows[label + 1].row));
  };
  const onEmpty = element("p");
  document.getElementById("numbers").append(
    element("h2", {}, "Classes"),
    ...classThresholds(),
    element("div", {class: "high"}, element("table", {class: "classes"},
      element("thead", {}, element("tr", {}, ...heads)), body)),
    onEmpty,
  );
  return (counts) => {
    shown = counts;
    const values = counts.map((each, run) => {
      const all = [countsOfAll(each), ...data.classes.map((_, label) => countsOfClass(each, label))];
      return Object.fromEntries(MEASURES.map((measure, place) => [measure.name, all.map((its, row) => {
        const value = measure.value(its);
        setText(rows[row].cells[place * counts.length + run], measure.kind ? String(value) : share(value));
        return value;
      })]));
    });
    setText(onEmpty, numEmpty ? "False positives per image without objects: " + counts.map((each, run) =>
      `${hasTwo ? data.runs[run].name + " " : ""}${share(each.wrongOnEmpty / numEmpty)}`).join(", ") +
      ` (${numEmpty} of ${isEmpty.length} images)` : "All images have objects.");
    return values;
  };
}

// Returns the columns that don't follow the thresholds: the name of each, and the run's fields for each class and for
// all classes. Two runs are compared in a table of their own instead.
function averagesShown() {
  return data.runs.length > 1 ? [] : [["AP", "class_ap", "ap"], ["AP50", "class_ap50", "ap50"], ["AR", "class_ar"]];
}

// Returns the row of a class, or of all classes if `label` is null, and the cells in it that follow the thresholds.
function classRow(label) {
  const name = label === null ? "All classes" : className(label);
  const objects = label === null ? sum(numObjects) : numObjects[label];
  const averages = averagesShown().map(([, key, ofAll]) =>
    element("td", {}, label === null ? data.runs[0][ofAll] ?? "" : data.runs[0][key][label]));
  const cells = [], places = [];
  for (const measure of MEASURES) {
    for (const [run, {name: runName}] of data.runs.entries()) {
      const show = () => {
        change({run});
        showImages({text: `${name}: ${measure.kind}${data.runs.length > 1 ? `, ${runName}` : ""}`, kind: measure.kind,
          class: label});
      };
      const cell = measure.kind
        ? element("button", {type: "button", class: "plain figure", onclick: show})
        : element("span", {class: "figure"});
      cells.push(cell);
      places.push(element("td", {}, cell));
    }
  }
  const row = element("tr", label === null ? {class: "all"} : {},
    element("th", {scope: "row"}, label === null ? name : named(name)), element("td", {}, String(objects)), ...averages,
    element("td", {}, ...(label === null ? [] : ownThreshold(label, name))), ...places);
  return {row, cells};
}

// Returns the input of the threshold of a class and the button that sets it to the best F1.
function ownThreshold(label, name) {
  const input = element("input", {
    type: "number", min: 0, max: 1, step: 0.01, placeholder: "common", "aria-label": `Threshold of ${name}`,
  });
  input.onchange = () => {
    const value = typedThreshold(input);
    if (value !== null || input.value === "") setOwn(label, value);
    else show();
  };
  const show = () => { input.value = state.own[label] === null ? "" : thresholdText(state.own[label]); };
  onChange((names) => { if (names.has("own")) show(); });
  const best = element("button", {type: "button", "aria-label": `Best F1 of ${name}`, title: "Best F1",
    onclick: () => setOwn(label, bestThreshold(chosenRun(), label))}, "F1");
  const reach = element("button", {type: "button", "aria-label": `Recall of at least the number above, for ${name}`,
    title: "Recall of at least the number above", onclick: () => {
      const wanted = Number(document.getElementById("least_recall").value);
      if (wanted > 0) setOwn(label, recallThreshold(chosenRun(), label, wanted));
    }}, "R");
  return [input, best, reach];
}

// Orders two values of a column; NaN is last.
function compared(a, b, down) {
  if (typeof a === "string") return down ? b.localeCompare(a) : a.localeCompare(b);
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return down ? b - a : a - b;
}

// Shows the AP of two runs with the intervals of their differences, which Python computed.
function startComparison() {
  if (!data.comparison) return;
  const head = ["", "A", "B", "B - A", "B higher in"].map((name) => element("th", {scope: "col"}, name));
  const rows = data.comparison.differences.map(([name, a, b, difference, wins]) => element("tr", {},
    element("th", {scope: "row"}, named(printable(name))),
    ...[share(a ?? NaN), share(b ?? NaN), difference, wins === null ? "-" : `${(wins * 100).toFixed(1)}%`]
      .map((text) => element("td", {}, text))));
  document.getElementById("numbers").append(
    element("h2", {id: "differences"}, "Average precision"),
    element("p", {}, "In brackets: 95% intervals of the difference, from the same draws of the images for both runs. " +
      "They don't depend on the threshold; the numbers that do have no intervals."),
    element("div", {class: "wide"}, element("table", {}, element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...rows))));
}
