// Shows one image, with objects and detections coloured by kind, zoom and pan; two runs are shown side by side.

// Okabe and Ito's colours, which colour-blind people can tell apart, each with a dash pattern of its own.
const STYLES = {
  right: {colour: "#009e73", dash: []},
  "wrong class": {colour: "#d55e00", dash: [10, 4]},
  "badly placed": {colour: "#e69f00", dash: [8, 3, 2, 3]},
  both: {colour: "#0072b2", dash: [10, 3, 2, 3, 2, 3]},
  duplicate: {colour: "#56b4e9", dash: [2, 2]},
  background: {colour: "#f0e442", dash: [16, 4]},
  "not found": {colour: "#cc79a7", dash: [5, 4]},
  object: {colour: "#ffffff", dash: []},
  crowd: {colour: "#bbbbbb", dash: [6, 6]},
  "in a crowd": {colour: "#bbbbbb", dash: [2, 4]},
};
const DARK = new Set(["right", "wrong class", "both"]); // styles whose colours need a white outline and white text
const WHOLE = {zoom: 1, x: 0.5, y: 0.5}; // the whole image; x and y are the centre, as fractions of the image's sides
const MOST_ZOOM = 40, ZOOM_STEP = 1.25, PAN_STEP = 0.1;
const LABEL_LETTERS = 30, LABEL_HEIGHT = 16, LABEL_FONT = "12px system-ui, sans-serif";
const CLICK_PIXELS = 4; // a pointer that moves no further than this is a click
const THRESHOLD_STEPS = {"[": -0.01, ",": -0.01, "]": 0.01, ".": 0.01, "{": -0.05, "<": -0.05, "}": 0.05, ">": 0.05};

const viewer = {view: WHOLE, selected: null, canvases: [], pointers: new Map()};

// --- What is drawn on an image

// Returns the rows of each image, in order: image i has rows[first[i]..first[i + 1]].
function rowsByImage(images) {
  const first = new Int32Array(data.images.names.length + 1);
  for (const image of images) first[image + 1]++;
  for (let image = 1; image < first.length; image++) first[image] += first[image - 1];
  const next = first.slice();
  const rows = new Int32Array(images.length);
  images.forEach((image, row) => { rows[next[image]++] = row; });
  return {first, rows};
}

function rowsOf(part, image) {
  part.byImage ??= rowsByImage(part.image);
  return Array.from(part.byImage.rows.subarray(part.byImage.first[image], part.byImage.first[image + 1]));
}

function boxAt(part, row) {
  return Array.from(part.box.subarray(4 * row, 4 * row + 4));
}

// Returns an image's objects, then its detections by descending score: those above the thresholds, and those that a
// filter by score chose below them.
function itemsOf(run, image) {
  const {objects} = data, {detections} = run;
  const limits = thresholds(), {filter} = state;
  const isAbove = (row) => detections.score[row] > limits[detections.class[row]];
  const isChosen = (row) => filter.minScore !== null && detections.score[row] > Math.fround(filter.minScore) &&
    (filter.class === null || filter.class === detections.class[row]);
  const shown = rowsOf(detections, image).filter((row) => isAbove(row) || isChosen(row));
  const matched = new Set(shown.filter(isAbove).map((row) => detections.match[row]));
  const styleOfObject = (row) => (objects.crowd[row] ? "crowd" : matched.has(row) ? "object" : "not found");
  return [
    ...rowsOf(objects, image).map((row) => ({
      key: `object ${row}`, label: objects.class[row], box: boxAt(objects, row), style: styleOfObject(row),
      score: null, partner: null, isFaint: false,
    })),
    ...shown.map((row) => detectionItem(run, row, !isAbove(row))),
  ];
}

function detectionItem(run, row, isFaint) {
  const {class: label, score, kind, match, near} = run.detections;
  const style = match[row] >= 0 ? "right" : data.kinds[kind[row]] ?? "in a crowd";
  const object = match[row] >= 0 ? match[row] : near[row];
  return {
    key: `${run.name} ${row}`, label: label[row], box: boxAt(run.detections, row), style, score: score[row],
    partner: object >= 0 ? boxAt(data.objects, object) : null, isFaint,
  };
}

function itemText(item) {
  const name = shortName(item.label);
  if (item.score !== null) return `${name} ${item.score.toFixed(2)}`;
  return item.style === "object" ? name : `${name}, ${item.style}`;
}

function shortName(label) {
  const letters = Array.from(className(label));
  return letters.length > LABEL_LETTERS ? `${letters.slice(0, LABEL_LETTERS).join("")}…` : letters.join("");
}

// --- Drawing

// Draws an image and its items on a canvas of `size` (CSS pixels), as `view` shows them. With `isSmall`, lines are thin
// and there is no text. `selected` is the key of an item.
function drawScene(canvas, size, image, items, view, {isSmall = false, selected = null} = {}) {
  const context = prepared(canvas, size);
  const place = placeOf(size, image, view);
  const picture = pictureOf(image);
  const width = data.images.width[image] * place.scale, height = data.images.height[image] * place.scale;
  context.imageSmoothingEnabled = place.scale < 4; // whoever zooms in wants to see pixels
  if (picture) context.drawImage(picture, place.left, place.top, width, height);
  else {
    context.strokeStyle = "#888888";
    context.strokeRect(place.left + 0.5, place.top + 0.5, width - 1, height - 1);
  }
  const rank = (item) => rankOf(item, selected);
  const ordered = [...items].sort((a, b) => rank(a) - rank(b));
  if (!isSmall) for (const item of ordered) drawPair(context, place, item);
  for (const item of ordered) drawBox(context, place, item, isSmall ? 1.5 : item.key === selected ? 4 : 2);
  if (!isSmall) drawLabels(context, size, place, ordered.reverse(), selected);
}

// Returns the rank of an item: items of a higher rank are drawn later, so that those that matter most aren't covered.
function rankOf(item, selected) {
  if (item.key === selected) return 3;
  if (item.style === "not found") return 2;
  return item.score ?? -1;
}

// Returns the empty drawing context of a canvas with sharp pixels.
function prepared(canvas, {width, height}) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}

// Returns where an image is drawn: its scale and its top-left corner.
function placeOf(size, image, view) {
  const width = data.images.width[image], height = data.images.height[image];
  const scale = Math.min(size.width / width, size.height / height) * view.zoom;
  return {scale, left: size.width / 2 - view.x * width * scale, top: size.height / 2 - view.y * height * scale};
}

function onCanvas(place, [left, top, width, height]) {
  return [place.left + left * place.scale, place.top + top * place.scale, width * place.scale, height * place.scale];
}

function inkOn(style) {
  return DARK.has(style) ? "#ffffff" : "#000000";
}

function stroke(context, item, width, draw) {
  const {colour, dash} = STYLES[item.style];
  context.globalAlpha = item.isFaint ? 0.6 : 1;
  context.setLineDash([]);
  context.strokeStyle = inkOn(item.style);
  context.lineWidth = width + 1.5;
  draw(); // visible on any picture
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = width;
  draw();
  context.globalAlpha = 1;
}

function drawBox(context, place, item, width) {
  const box = onCanvas(place, item.box);
  stroke(context, item, width, () => context.strokeRect(...box));
}

// Joins the middle of a detection with the middle of the object that it matches or nearly matches.
function drawPair(context, place, item) {
  if (!item.partner) return;
  const ends = [item.box, item.partner].map((box) => {
    const [left, top, width, height] = onCanvas(place, box);
    return [left + width / 2, top + height / 2];
  });
  stroke(context, item, 1.5, () => {
    context.beginPath();
    context.moveTo(...ends[0]);
    context.lineTo(...ends[1]);
    context.stroke();
  });
  context.fillStyle = STYLES[item.style].colour;
  for (const [x, y] of ends) {
    context.beginPath();
    context.arc(x, y, 3, 0, 2 * Math.PI);
    context.fill();
  }
}

// Draws the text of the items, in order; text that would cover earlier text is left out.
function drawLabels(context, size, place, items, selected) {
  context.font = LABEL_FONT;
  context.textBaseline = "middle";
  context.direction = "ltr";
  const taken = [];
  for (const item of items) {
    if (item.style === "object" && !item.text && item.key !== selected) continue; // its detection has the same label
    const text = item.text ?? itemText(item);
    const width = context.measureText(text).width + 8;
    const box = onCanvas(place, item.box);
    const left = Math.max(0, Math.min(box[0] - 1, size.width - width));
    const corner = [box[1] - LABEL_HEIGHT, box[1] + box[3], box[1]].find((top) =>
      top >= 0 && top + LABEL_HEIGHT <= size.height && !covers(taken, left, top, width));
    if (corner === undefined || box[0] > size.width || box[0] + box[2] < 0) continue;
    taken.push([left, corner, width]);
    context.fillStyle = STYLES[item.style].colour;
    context.fillRect(left, corner, width, LABEL_HEIGHT);
    context.fillStyle = inkOn(item.style);
    context.fillText(text, left + 4, corner + LABEL_HEIGHT / 2 + 1);
  }
}

function covers(taken, left, top, width) {
  return taken.some(([x, y, its]) => x < left + width && left < x + its && Math.abs(y - top) < LABEL_HEIGHT);
}

// Returns the list of colours, with the dash of each.
function colours() {
  const parts = Object.keys(STYLES).map((style) => element("li", {}, swatch(style), style));
  return element("details", {class: "colours"}, element("summary", {}, "Colours"), element("ul", {}, ...parts));
}

function swatch(style) {
  const canvas = element("canvas", {class: "dashes", "aria-hidden": "true"});
  const context = prepared(canvas, {width: 34, height: 12});
  stroke(context, {style}, 3, () => {
    context.beginPath();
    context.moveTo(2, 6);
    context.lineTo(32, 6);
    context.stroke();
  });
  return canvas;
}

// --- The dialog

function startViewer() {
  viewer.dialog = document.getElementById("viewer");
  const button = (text, label, onclick) =>
    element("button", {type: "button", "aria-label": label, title: label, onclick}, text);
  viewer.name = element("bdi", {class: "file"});
  viewer.place = element("span", {class: "place"});
  viewer.note = element("p", {class: "note"});
  viewer.list = element("div", {class: "items"});
  viewer.pictures = element("div", {class: "pictures"});
  viewer.slider = element("input", {
    type: "range", min: "0", max: "1", step: "0.01", id: "viewer-threshold",
    oninput: (event) => change({common: Number(event.target.value)}),
  });
  viewer.threshold = element("output", {for: "viewer-threshold"});
  const heading = element("h2", {id: "viewer-heading"}, viewer.name);
  const bar = element("div", {class: "tools"},
    heading, viewer.place,
    button("‹", "Previous image (p or ←)", () => step(-1)),
    button("›", "Next image (n or →)", () => step(1)),
    button("−", "Smaller (-)", () => zoomBy(1 / ZOOM_STEP)),
    button("+", "Larger (+)", () => zoomBy(ZOOM_STEP)),
    button("Fit", "Whole image (0)", () => look(WHOLE)),
    element("span", {class: "threshold"}, element("label", {for: "viewer-threshold"}, "Threshold ([ and ])"),
      viewer.slider, viewer.threshold),
    element("button", {type: "button", class: "close", title: "Escape", onclick: closeImage}, "Close"));
  const help = element("p", {class: "keys"},
    "Keys: n or → for the next image, p or ← for the previous one, + and − to zoom, Shift with arrows to move, 0 for " +
    "the whole image, [ and ] for the threshold (with Shift in larger steps), ↑ and ↓ in the list, Escape to close.");
  viewer.dialog.setAttribute("aria-labelledby", "viewer-heading");
  viewer.dialog.append(bar, viewer.note,
    element("div", {class: "stage"}, viewer.pictures, element("div", {class: "side"}, viewer.list, colours(), help)));
  for (const run of data.runs) addPicture(run);
  viewer.dialog.addEventListener("keydown", onViewerKey);
  viewer.dialog.addEventListener("close", () => change({image: null}));
  new ResizeObserver(() => drawViewer()).observe(viewer.pictures);
  onChange(followInViewer);
}

function addPicture(run) {
  const canvas = element("canvas", {role: "img", tabindex: "0"});
  const title = element("figcaption", {}, `${run.name}: `, element("bdi", {}, printable(run.source)));
  title.hidden = data.runs.length === 1;
  viewer.pictures.append(element("figure", {}, title, element("div", {class: "canvas"}, canvas)));
  viewer.canvases.push(canvas);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-Math.max(-100, Math.min(100, event.deltaY)) / 300), pointOf(event));
  }, {passive: false});
  canvas.addEventListener("pointerdown", onPointerDown);
  canvas.addEventListener("pointermove", onPointerMove);
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, onPointerUp);
}

function openImage(image) {
  change({image});
}

function closeImage() {
  viewer.dialog.close();
}

function step(by) {
  const place = grid.images.indexOf(state.image) + by;
  if (place >= 0 && place < grid.images.length) change({image: grid.images[place]});
}

function followInViewer(names) {
  if (names.has("image")) showImage();
  else if (state.image !== null && (names.has("common") || names.has("own") || names.has("filter"))) fillViewer();
}

function showImage() {
  if (state.image === null) {
    if (viewer.dialog.open) viewer.dialog.close();
    if (grid.isDirty) updateGrid();
    else if (viewer.shown !== undefined) focusCard(Math.max(0, grid.images.indexOf(viewer.shown)));
    return;
  }
  Object.assign(viewer, {view: WHOLE, selected: null, shown: state.image});
  if (!viewer.dialog.open) {
    viewer.dialog.showModal();
    viewer.canvases[0].focus(); // not a button, which the space bar would press
  }
  fillViewer();
  whenPictureIsThere(state.image, () => { if (state.image !== null) fillViewer(); });
}

function fillViewer() {
  const image = state.image;
  viewer.name.textContent = printable(data.images.names[image]);
  const place = grid.images.indexOf(image);
  viewer.place.textContent = place < 0 ? "" : `${place + 1} of ${grid.images.length.toLocaleString("en")}`;
  viewer.note.textContent = noteOf(image) && `No picture: ${noteOf(image)}`;
  viewer.slider.value = state.common;
  viewer.threshold.textContent = state.common.toFixed(2);
  viewer.items = data.runs.map((run) => itemsOf(run, image));
  fillList();
  drawViewer();
}

function drawViewer() {
  if (state.image === null) return;
  viewer.canvases.forEach((canvas, index) => {
    drawScene(canvas, sizeOf(canvas), state.image, viewer.items[index], viewer.view, {selected: viewer.selected});
    const count = viewer.items[index].length;
    canvas.setAttribute("aria-label", `${printable(data.images.names[state.image])}, ${count} boxes, listed beside it`);
  });
}

// --- The list of objects and detections

function fillList() {
  const hadFocus = viewer.list.contains(document.activeElement);
  const parts = data.runs.flatMap((run, index) => [
    element("h3", {}, data.runs.length > 1 ? `${run.name}: objects and detections` : "Objects and detections"),
    element("ul", {}, ...viewer.items[index].map((item) => element("li", {}, itemButton(item)))),
  ]);
  viewer.list.replaceChildren(...parts);
  if (hadFocus) (itemButtons().find((each) => each.dataset.key === viewer.selected) ?? itemButtons()[0])?.focus();
}

function itemButton(item) {
  const score = item.score === null ? "" : ` ${item.score.toFixed(3)}`;
  return element("button", {
    type: "button", class: "plain item", "data-key": item.key, "aria-pressed": String(item.key === viewer.selected),
    onclick: () => select(item.key), onfocus: () => select(item.key),
  }, swatch(item.style), element("span", {}, element("bdi", {}, className(item.label)),
    `${score}, ${item.style}${item.isFaint ? ", below the threshold" : ""}`));
}

function itemButtons() {
  return [...viewer.list.querySelectorAll("button")];
}

function select(key) {
  viewer.selected = key;
  for (const each of itemButtons()) each.setAttribute("aria-pressed", String(each.dataset.key === key));
  drawViewer();
}

// --- Zoom and pan

function look(view) {
  viewer.view = view;
  drawViewer();
}

// Zooms about a point of the canvas, by default its middle.
function zoomBy(factor, point = null) {
  const {canvas, x, y} = point ?? {canvas: viewer.canvases[0], x: 0, y: 0};
  const zoom = Math.min(MOST_ZOOM, Math.max(1, viewer.view.zoom * factor));
  const before = sidesOf(canvas, viewer.view), after = sidesOf(canvas, {...viewer.view, zoom});
  const moved = {
    zoom, x: viewer.view.x + x / before.width - x / after.width,
    y: viewer.view.y + y / before.height - y / after.height,
  };
  look(within(moved, sizeOf(canvas), state.image));
}

// Moves the view by CSS pixels.
function panBy(canvas, right, down) {
  const sides = sidesOf(canvas, viewer.view);
  const moved = {...viewer.view, x: viewer.view.x - right / sides.width, y: viewer.view.y - down / sides.height};
  look(within(moved, sizeOf(canvas), state.image));
}

// Returns the sides of the whole image in CSS pixels, as a view shows it.
function sidesOf(canvas, view) {
  const {scale} = placeOf(sizeOf(canvas), state.image, view);
  return {width: data.images.width[state.image] * scale, height: data.images.height[state.image] * scale};
}

// Returns the view, moved so that as little empty space as possible is visible around the image.
function within(view, size, image) {
  const {scale} = placeOf(size, image, view);
  const inside = (value, side, shown) => {
    const half = Math.min(0.5, shown / 2 / (side * scale));
    return Math.min(1 - half, Math.max(half, value));
  };
  return {
    zoom: view.zoom, x: inside(view.x, data.images.width[image], size.width),
    y: inside(view.y, data.images.height[image], size.height),
  };
}

function sizeOf(canvas) {
  return {width: canvas.clientWidth, height: canvas.clientHeight};
}

// Returns the position of a pointer relative to the middle of its canvas.
function pointOf(event) {
  const canvas = event.currentTarget, box = canvas.getBoundingClientRect();
  return {canvas, x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2};
}

function onPointerDown(event) {
  event.currentTarget.setPointerCapture(event.pointerId);
  viewer.pointers.set(event.pointerId, {...pointOf(event), moved: 0});
}

function onPointerMove(event) {
  const before = viewer.pointers.get(event.pointerId);
  if (!before) return;
  const now = pointOf(event);
  const other = [...viewer.pointers].find(([id]) => id !== event.pointerId)?.[1];
  const moved = before.moved + Math.hypot(now.x - before.x, now.y - before.y);
  viewer.pointers.set(event.pointerId, {...now, moved});
  if (other) zoomBy(distance(now, other) / Math.max(1, distance(before, other)), now);
  else if (moved > CLICK_PIXELS) panBy(now.canvas, now.x - before.x, now.y - before.y);
}

function onPointerUp(event) {
  const pointer = viewer.pointers.get(event.pointerId);
  viewer.pointers.delete(event.pointerId);
  if (event.type === "pointerup" && pointer && pointer.moved <= CLICK_PIXELS) selectAt(pointOf(event));
}

function distance(a, b) {
  return Math.hypot(a.x - b.x, a.y - b.y);
}

// Selects the smallest box at a point.
function selectAt({canvas, x, y}) {
  const size = sizeOf(canvas);
  const place = placeOf(size, state.image, viewer.view);
  const at = [x + size.width / 2, y + size.height / 2];
  const hit = viewer.items[viewer.canvases.indexOf(canvas)].filter((item) => {
    const [left, top, width, height] = onCanvas(place, item.box);
    return at[0] >= left && at[0] <= left + width && at[1] >= top && at[1] <= top + height;
  }).sort((a, b) => a.box[2] * a.box[3] - b.box[2] * b.box[3])[0];
  select(hit?.key ?? null);
  itemButtons().find((each) => each.dataset.key === hit?.key)?.scrollIntoView({block: "nearest"});
}

// --- Keys

function onViewerKey(event) {
  const typesInto = event.target === viewer.slider && /^(Arrow|Home|End|Page)/.test(event.key);
  const isShortcut = hasModifier(event) && !event.getModifierState("AltGraph");
  if (typesInto || isShortcut) return;
  const run = event.shiftKey ? PAN_KEYS[event.key] ?? VIEWER_KEYS[event.key] : VIEWER_KEYS[event.key];
  if (run) run();
  else if (event.key in THRESHOLD_STEPS) moveThreshold(THRESHOLD_STEPS[event.key]);
  else return;
  event.preventDefault();
}

const PAN_KEYS = {
  ArrowLeft: () => panByKey(1, 0), ArrowRight: () => panByKey(-1, 0),
  ArrowUp: () => panByKey(0, 1), ArrowDown: () => panByKey(0, -1),
};
const VIEWER_KEYS = {
  n: () => step(1), ArrowRight: () => step(1), p: () => step(-1), ArrowLeft: () => step(-1),
  "+": () => zoomBy(ZOOM_STEP), "=": () => zoomBy(ZOOM_STEP), "-": () => zoomBy(1 / ZOOM_STEP), 0: () => look(WHOLE),
  ArrowDown: () => focusItem(1), ArrowUp: () => focusItem(-1),
};

function panByKey(right, down) {
  const canvas = viewer.canvases[0];
  panBy(canvas, right * PAN_STEP * canvas.clientWidth, down * PAN_STEP * canvas.clientHeight);
}

function focusItem(by) {
  const buttons = itemButtons();
  const at = buttons.findIndex((each) => each.dataset.key === viewer.selected);
  buttons[Math.min(buttons.length - 1, Math.max(0, at + by))]?.focus();
}

// Moves the threshold by `by`, in whole hundredths, so that it stays a short number.
function moveThreshold(by) {
  const hundredths = Math.round(state.common * 100) + Math.round(by * 100);
  change({common: Math.min(1, Math.max(0, hundredths / 100))});
}
