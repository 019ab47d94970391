// Draws the confusion matrix of the chosen run at the common threshold, as a heat map with keyboard navigation.

const FONT = "13px system-ui, sans-serif";
const MOST_IN_MATRIX = 100; // classes; if there are more, the classes most confused with others

// Returns a function that draws the matrix and returns its counts.
function startConfusion() {
  const canvas = element("canvas", {
    tabindex: 0, role: "application", "aria-label": "Confusion matrix", "aria-describedby": "matrix_help matrix_cell",
  });
  const cell = element("output", {id: "matrix_cell", class: "readout"});
  const heading = element("h2", {}, "Confusion");
  const wrap = element("div", {class: "wide chart"}, canvas);
  document.getElementById("confusion").append(
    heading,
    element("p", {id: "matrix_help"}, "Rows are true classes, columns the predicted classes, at the common " +
      "threshold and IoU 0.5; colours show fractions of the row. A click, or Enter, shows the images of a cell. Arrow " +
      "keys move to another cell."),
    cell, wrap);
  const base = document.createElement("canvas"); // names and grid, which don't follow the threshold
  const classes = classesInMatrix();
  const size = classes.length + 1;
  let table = new Int32Array(size * size), totals = [], cursor = null, side = 0, left = 0, top = 0;

  const nameOf = (place, other) => place < classes.length ? className(classes[place]) : other;
  const drawBase = () => {
    const most = Math.min(170, wrap.clientWidth * 0.3); // for names
    const measured = base.getContext("2d");
    measured.font = FONT;
    const names = ["background", ...classes.map(className)];
    left = top = Math.min(most, 10 + Math.max(...names.map((name) => measured.measureText(fitted(measured, name, most)).width)));
    side = Math.max(12, Math.min(44, Math.floor((wrap.clientWidth - left - 2) / size)));
    const context = sizedContext(base, left + side * size + 2, top + side * size + 2);
    context.font = side < 15 ? `${side - 1}px system-ui, sans-serif` : FONT;
    context.fillStyle = colour("text");
    context.strokeStyle = colour("line");
    context.textBaseline = "middle";
    for (let place = 0; place < size; place++) {
      context.textAlign = "right";
      context.fillText(fitted(context, nameOf(place, "background"), left - 8), left - 6, top + (place + 0.5) * side);
      context.save();
      context.translate(left + (place + 0.5) * side, top - 6);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(fitted(context, nameOf(place, "not found"), top - 8), 0, 0);
      context.restore();
    }
    context.beginPath();
    for (let line = 0; line <= size; line++) {
      context.moveTo(left, top + line * side); context.lineTo(left + size * side, top + line * side);
      context.moveTo(left + line * side, top); context.lineTo(left + line * side, top + size * side);
    }
    context.stroke();
  };
  const draw = () => {
    const width = left + side * size + 2, height = top + side * size + 2;
    const context = sizedContext(canvas, width, height);
    context.drawImage(base, 0, 0, width, height);
    context.fillStyle = colour("fill");
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const count = table[row * size + column];
        if (!count) continue;
        context.globalAlpha = 0.08 + 0.92 * count / totals[row];
        context.fillRect(left + column * side + 0.5, top + row * side + 0.5, side - 1, side - 1);
      }
    }
    context.globalAlpha = 1;
    if (side >= 24) {
      context.font = "12px system-ui, sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillStyle = colour("text");
      table.forEach((count, place) => {
        if (!count) return;
        const at = [left + (place % size + 0.5) * side, top + (Math.floor(place / size) + 0.5) * side];
        context.fillText(count, ...at, side - 2);
      });
    }
    if (cursor) {
      context.strokeStyle = colour("text");
      context.lineWidth = 2;
      context.strokeRect(left + cursor.column * side, top + cursor.row * side, side, side);
    }
  };
  const say = () => {
    if (!cursor) return setText(cell, "");
    const count = table[cursor.row * size + cursor.column];
    const truth = nameOf(cursor.row, "background"), taken = nameOf(cursor.column, "");
    const verb = cursor.column === classes.length ? "not found" : cursor.row === cursor.column
      ? "found as such" : `taken for ${taken}`;
    setText(cell, `${truth}, ${verb}: ${count}`);
  };
  const move = (row, column) => {
    const kept = (place) => Math.max(0, Math.min(size - 1, place));
    cursor = {row: kept(row), column: kept(column)};
    say();
    draw();
  };
  const open = () => {
    const labelAt = (place) => place < classes.length ? classes[place] : BACKGROUND;
    if (cursor.row === classes.length && cursor.column === classes.length) return; // background can't be "not found"
    showImages({text: cell.textContent.replace(/: \d+$/, ""), trueClass: labelAt(cursor.row),
      foundClass: labelAt(cursor.column)});
  };
  const at = (event) => [Math.floor((event.offsetY - top) / side), Math.floor((event.offsetX - left) / side)];
  canvas.onmousemove = (event) => move(...at(event));
  canvas.onclick = (event) => {
    const [row, column] = at(event);
    if (row < 0 || column < 0) return;
    move(row, column);
    open();
  };
  canvas.onkeydown = (event) => {
    const {row, column} = cursor ?? {row: 0, column: 0};
    if (event.key === "ArrowLeft") move(row, column - 1);
    else if (event.key === "ArrowRight") move(row, column + 1);
    else if (event.key === "ArrowUp") move(row - 1, column);
    else if (event.key === "ArrowDown") move(row + 1, column);
    else if (event.key === "Enter" && cursor) open();
    else return;
    event.preventDefault();
  };
  canvas.onfocus = () => { if (!cursor) move(0, 0); };
  return (_, {isNew}) => {
    table = confusionAt(chosenRun(), state.common, classes);
    totals = Array.from({length: size}, (_, row) => sum(table.subarray(row * size, (row + 1) * size)));
    setText(heading, `Confusion at score ${thresholdText(state.common)}` +
      (data.runs.length > 1 ? `: ${chosenRun().name}` : "") +
      (classes.length < data.classes.length ? ` (the ${classes.length} classes most confused)` : ""));
    if (isNew) drawBase();
    draw();
    say();
    return table;
  };
}

// Returns the labels of the classes in the matrix, ascending.
function classesInMatrix() {
  if (data.classes.length <= MOST_IN_MATRIX) return [...data.classes.keys()];
  const times = new Int32Array(data.classes.length);
  const {class: label, any, score} = chosenRun().detections;
  for (let row = 0; row < label.length && score[row] > Math.fround(state.common); row++) {
    const truth = any[row] < 0 ? label[row] : data.objects.class[any[row]];
    if (truth !== label[row]) {
      times[truth]++;
      times[label[row]]++;
    }
  }
  return [...data.classes.keys()].sort((a, b) => times[b] - times[a]).slice(0, MOST_IN_MATRIX).sort((a, b) => a - b);
}
