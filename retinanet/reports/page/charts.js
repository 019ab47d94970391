// Draws the bars of errors and classes, and the precision-recall curves. A click on a mark, or Enter, shows its images.

const PALETTE = [ // as in reports/labels.py
  "#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#92dadd", "#a96b59", "#e76300", "#b9ac70", "#717581", "#94a4a2",
];
const MOST_COLOURED = 10; // with more classes, only the best and the worst curves are coloured

// Returns a list of bars, each a button with a name, and a function that shows their values. `most` is the value of a
// full bar, by default the largest value.
function barList(names, pick, most = null) {
  const bars = names.map((name, place) => {
    const fill = element("span", {class: "fill"});
    const number = element("span", {class: "number"});
    const bar = element("button", {type: "button", class: "bar", onclick: () => pick(place)},
      named(name), element("span", {class: "track"}, fill), number);
    return {bar, fill, number};
  });
  const show = (values) => {
    const whole = most ?? Math.max(1, ...values);
    bars.forEach(({fill, number}, place) => {
      fill.style.backgroundSize = `${100 * (values[place] || 0) / whole}% 100%`; // a width would cost a layout
      setText(number, most === null ? String(values[place]) : share(values[place]));
    });
  };
  return {list: element("div", {class: "bars"}, ...bars.map(({bar}) => bar)), bars: bars.map(({bar}) => bar), show};
}

// Returns a function that shows the number of errors of each kind and run.
function startErrors() {
  const kinds = [...data.kinds.slice(0, FALSE_KINDS), "not found"];
  const lists = data.runs.map((run, row) => barList(kinds, (place) => {
    change({run: row});
    showImages({text: kinds[place], kind: kinds[place]});
  }));
  document.getElementById("errors").append(
    element("h2", {}, "Errors"),
    element("p", {}, "The detections above the threshold by kind of error, and the objects that no detection of their " +
      "class matches at IoU 0.5. The kind of an error doesn't depend on the threshold. “Missed” in the details " +
      "counts fewer objects: those that no detection matches or nearly matches, however low its score."),
    element("div", {class: "side_by_side"}, ...lists.map(({list}, row) =>
      element("div", {}, ...(data.runs.length > 1 ? [element("h3", {}, data.runs[row].name)] : []), list))),
  );
  return (counts) => counts.forEach((each, run) => {
    const numClasses = data.classes.length;
    const totals = kinds.slice(0, FALSE_KINDS).map((_, kind) =>
      sum(each.errors.subarray(kind * numClasses, (kind + 1) * numClasses)));
    lists[run].show([...totals, sum(each.missed)]);
  });
}

// Returns a function that shows a bar for each class: one of MEASURES, of the chosen run.
function startClassBars() {
  let shown = [];
  let update = () => {};
  const choice = element("select", {id: "measure"}, ...MEASURES.map((measure, row) =>
    element("option", {value: row, selected: measure.name === "F1"}, measure.name)));
  const place = element("div");
  const build = () => {
    const measure = MEASURES[choice.value];
    const valueOf = (label) => measure.value(countsOfClass(shown[state.run], label));
    const order = [...data.classes.keys()];
    const keys = order.map(valueOf);
    order.sort((a, b) => compared(keys[a], keys[b], true));
    const {list, show} = barList(order.map(className), (row) => {
      const kind = measure.kind ?? (measure.name === "Recall" ? "not found" : "false positive");
      showImages({text: `${className(order[row])}: ${kind}`, kind, class: order[row]});
    }, measure.kind ? null : 1);
    update = () => show(order.map(valueOf));
    place.replaceChildren(list);
    update();
  };
  choice.onchange = build;
  document.getElementById("class_bars").append(
    element("h2", {}, "Class by class"),
    element("p", {class: "controls"}, element("label", {for: "measure"}, "Bars show"), choice,
      element("button", {type: "button", onclick: () => build()}, "Sort")),
    place,
  );
  return (counts) => {
    const isFirst = !shown.length;
    shown = counts;
    if (isFirst) build();
    else update();
  };
}

// Returns a function that draws the precision-recall curves of the chosen run, with a dot at each class's threshold.
function startCurves() {
  const canvas = element("canvas", {
    tabindex: 0, role: "application", "aria-label": "Precision-recall curves", "aria-describedby": "curve_help curve_point",
  });
  const legend = element("div", {class: "legend"});
  const point = element("output", {id: "curve_point", class: "readout"});
  const wrap = element("div", {class: "chart"}, canvas);
  document.getElementById("curves").append(
    element("h2", {}, "Precision and recall"),
    element("p", {id: "curve_help"}, "At IoU 0.5; a dot is at the threshold. A click on a curve, or Enter, shows the " +
      "images with false positives above the score there. Keys: left and right move along a curve, up and down " +
      "to another class."),
    point, element("div", {class: "curves"}, wrap, legend));
  const curvesOf = new Map(); // of each run, made when it is first shown
  const base = document.createElement("canvas"); // axes and curves, which don't follow the threshold
  let cursor = null, counts = [], box = null, coloured = [];

  const curves = () => {
    const run = chosenRun();
    if (!curvesOf.has(run)) curvesOf.set(run, data.classes.map((_, label) => numObjects[label] ? curveOf(run, label) : null));
    return curvesOf.get(run);
  };
  const colourOf = (label) => {
    const place = coloured.indexOf(label);
    return place < 0 ? colour("quiet") : PALETTE[place % PALETTE.length];
  };
  const x = (recall) => box.left + recall * box.width;
  const y = (value) => box.top + (1 - value) * box.height;
  const trace = (context, values) => {
    context.beginPath();
    values.forEach((value, step) => context.lineTo(x(step / 100), y(value)));
    context.stroke();
  };

  const drawBase = () => {
    const width = Math.max(280, Math.min(760, wrap.clientWidth));
    const height = Math.round(Math.min(440, width * 0.66));
    box = {left: 40, top: 26, width: width - 52, height: height - 68};
    const context = sizedContext(base, width, height);
    context.font = "12px system-ui, sans-serif";
    context.strokeStyle = colour("line");
    context.fillStyle = colour("quiet");
    for (let step = 0; step <= 5; step++) {
      const at = step / 5;
      context.beginPath();
      context.moveTo(x(0), y(at)); context.lineTo(x(1), y(at));
      context.moveTo(x(at), y(0)); context.lineTo(x(at), y(1));
      context.stroke();
      context.textAlign = "right"; context.textBaseline = "middle";
      context.fillText(at.toFixed(1), x(0) - 6, y(at));
      context.textAlign = "center"; context.textBaseline = "top";
      context.fillText(at.toFixed(1), x(at), y(0) + 6);
    }
    context.fillText("recall", x(0.5), y(0) + 24);
    context.textAlign = "left";
    context.fillText("precision", 4, 2);
    const all = curves();
    const ap = all.map((curve) => curve ? sum(curve.values) / 101 : NaN);
    const known = [...data.classes.keys()].filter((label) => all[label]).sort((a, b) => ap[b] - ap[a]);
    coloured = known.length <= MOST_COLOURED ? known : [...known.slice(0, 4), ...known.slice(-4)];
    context.lineWidth = 0.7;
    context.globalAlpha = 0.5;
    context.strokeStyle = colour("quiet");
    for (const label of known) if (!coloured.includes(label)) trace(context, all[label].values);
    context.globalAlpha = 1;
    context.lineWidth = 2;
    for (const label of coloured) {
      context.strokeStyle = colourOf(label);
      trace(context, all[label].values);
    }
    legend.replaceChildren(...coloured.map((label) => {
      const swatch = element("span", {class: "swatch"});
      swatch.style.background = colourOf(label);
      const name = element("button", {type: "button", class: "plain", onclick: () => move(label, 50)},
        swatch, named(className(label)), ` ${ap[label].toFixed(3)}`);
      return name;
    }), ...(known.length > coloured.length ? [`AP50 of the best and the worst of ${known.length} classes`] : ["AP50"]));
  };
  const draw = () => {
    const context = sizedContext(canvas, box.left + box.width + 12, box.top + box.height + 42);
    context.drawImage(base, 0, 0, box.left + box.width + 12, box.top + box.height + 42);
    const its = counts[state.run];
    for (const label of cursor && !coloured.includes(cursor.label) ? [...coloured, cursor.label] : coloured) {
      const {right, wrong, missed} = countsOfClass(its, label);
      if (!(right + wrong)) continue;
      context.fillStyle = colourOf(label);
      context.strokeStyle = colour("paper");
      context.beginPath();
      context.arc(x(recall(right, missed)), y(precision(right, wrong)), 5, 0, 7);
      context.fill(); context.stroke();
    }
    if (!cursor) return;
    const {values} = curves()[cursor.label];
    context.strokeStyle = colour("text");
    context.lineWidth = 3;
    trace(context, values);
    context.beginPath();
    context.arc(x(cursor.step / 100), y(values[cursor.step]), 8, 0, 7);
    context.stroke();
  };
  const move = (label, step) => {
    const {values, scores} = curves()[label];
    while (step > 0 && Number.isNaN(scores[step])) step--; // the class never reaches this recall
    cursor = {label, step};
    setText(point, `${className(label)}: recall ${(step / 100).toFixed(2)}, precision ${values[step].toFixed(3)}, ` +
      (Number.isNaN(scores[step]) ? "no detection" : `score ${scores[step].toFixed(3)}`));
    draw();
  };
  const open = () => {
    const score = curves()[cursor.label].scores[cursor.step];
    if (Number.isNaN(score)) return;
    const least = thresholdBelow(score);
    const text = `${className(cursor.label)}: false positives above score ${score.toFixed(3)}`;
    showImages({text, kind: "false positive", class: cursor.label, minScore: least});
  };
  // Returns the curve nearest to the mouse.
  const nearest = (event) => {
    const step = Math.round(Math.min(1, Math.max(0, (event.offsetX - box.left) / box.width)) * 100);
    const away = (label) => Math.abs(y(curves()[label].values[step]) - event.offsetY);
    const labels = [...data.classes.keys()].filter((label) => curves()[label]);
    const least = Math.min(...labels.map(away));
    // Coloured curves lie over the others.
    const near = (label) => away(label) <= least + 1;
    return [coloured.find(near) ?? labels.find(near), step];
  };
  canvas.onmousemove = (event) => { if (coloured.length) move(...nearest(event)); };
  canvas.onclick = (event) => { if (coloured.length) { move(...nearest(event)); open(); } };
  canvas.onkeydown = (event) => {
    if (!coloured.length) return;
    const labels = [...data.classes.keys()].filter((label) => curves()[label]);
    const {label, step} = cursor ?? {label: coloured[0], step: 50};
    const turned = (by) => labels[(labels.indexOf(label) + by + labels.length) % labels.length];
    if (event.key === "ArrowLeft") move(label, Math.max(0, step - 1));
    else if (event.key === "ArrowRight") move(label, Math.min(100, step + 1));
    else if (event.key === "ArrowUp") move(turned(-1), step);
    else if (event.key === "ArrowDown") move(turned(1), step);
    else if (event.key === "Enter" && cursor) open();
    else return;
    event.preventDefault();
  };
  canvas.onfocus = () => { if (!cursor && coloured.length) move(coloured[0], 50); };
  return (newCounts, {isNew}) => {
    counts = newCounts;
    if (isNew) drawBase();
    draw();
  };
}
