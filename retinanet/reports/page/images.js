// Sorts, filters and shows the grid of images. Only cards near the window exist, so that a large set stays usable.

const LEAST_CARD_WIDTH = 172, CARD_GAP = 12, CARD_TEXT_HEIGHT = 58; // CSS pixels; the height is as in images.css
const CARD_SHAPE = 0.75; // height of a card's picture as a fraction of its width
const ROWS_BEYOND = 2; // rows of cards that exist above and below the window
const PRINTED_CARDS = 24;
const MOST_PICTURES = 300; // decoded pictures that stay in memory
const GRID_DELAY = 120; // ms without a change of the threshold before the grid follows, so that the slider stays smooth
// COCO's limits of the areas, in square pixels.
const SIZES = {small: [0, 32 * 32], medium: [32 * 32, 96 * 96], large: [96 * 96, Infinity]};
const KINDS_TO_CHOOSE = ["right", "false positive", ...data.kinds.filter((kind) => kind !== "missed"), "not found"];

const grid = {
  sort: "wrong", size: "", search: "",
  images: [], // the indices of the images that match, in order
  counts: null, // of each image, among the boxes that the filter chooses
  columns: 1, cardWidth: LEAST_CARD_WIDTH,
  current: 0, // the place of the card that the Tab key reaches
  cards: new Map(), // the list items that exist, by place
  isDirty: true, timer: 0,
};

// Each sort has its text and the value of an image; high values come first.
const SORTS = {
  wrong: ["most false positives", (image) => grid.counts.wrong[image]],
  missed: ["most objects not found", (image) => grid.counts.missed[image]],
  misplaced: ["most badly placed boxes", (image) => grid.counts.misplaced[image]],
  f1: ["lowest F1 (at the best threshold)", (image) => -chosenRun().f1[image]],
  name: ["file name", () => 0],
};
const COMPARING_SORTS = {
  gained: ["most gained by B", (image) => gainOf(image)],
  lost: ["most lost by B", (image) => -gainOf(image)],
};

function gainOf(image) {
  return data.runs[1].f1[image] - data.runs[0].f1[image];
}

function startImages() {
  if (data.runs.length === 2) Object.assign(SORTS, COMPARING_SORTS);
  grid.list = element("ul", {class: "cards", "aria-label": "Images"});
  grid.status = element("p", {role: "status", class: "matching"});
  document.getElementById("images").append(filterBar(), grid.status, colours(), grid.list);
  grid.list.addEventListener("keydown", moveAmongCards);
  window.addEventListener("scroll", () => requestAnimationFrame(() => showCards()), {passive: true});
  new ResizeObserver(() => layOut()).observe(grid.list.parentElement);
  window.addEventListener("beforeprint", () => { if (state.tab === "images") showCards(PRINTED_CARDS); });
  window.addEventListener("afterprint", () => layOut());
  onChange(followState);
}

function followState(names) {
  if (["common", "own", "run", "filter"].some((name) => names.has(name))) grid.isDirty = true;
  if (names.has("filter")) showFilter();
  clearTimeout(grid.timer);
  // While one image is open, its neighbours stay the same.
  if (state.image !== null || state.tab !== "images") return;
  if (!grid.isDirty) return;
  if (!names.has("common") && !names.has("own")) updateGrid();
  else grid.timer = setTimeout(updateGrid, GRID_DELAY);
}

// --- Filters

function filterBar() {
  const choices = (pairs) => pairs.map(([value, text]) => element("option", {value}, text));
  const select = (name, pairs, onchange) => {
    grid[`${name}Select`] = element("select", {onchange, id: `images-${name}`}, ...choices(pairs));
    const heading = `${name[0].toUpperCase()}${name.slice(1)}`;
    return [element("label", {for: `images-${name}`}, heading), grid[`${name}Select`]];
  };
  const score = (name, text) => {
    grid[name] = element("input", {
      type: "number", min: "0", max: "1", step: "0.05", "aria-label": text, oninput: filterByControls,
    });
    return grid[name];
  };
  grid.searchBox = element("input", {
    type: "search", id: "images-search", placeholder: "part of a file name",
    oninput: (event) => chooseInGrid({search: event.target.value.trim().toLowerCase()}),
  });
  const fields = [
    select("sort", Object.entries(SORTS).map(([name, [text]]) => [name, text]),
      (event) => chooseInGrid({sort: event.target.value})),
    select("class", [["", "all classes"], ...data.classes.map((_, label) => [label, className(label)])],
      filterByControls),
    select("kind", [["", "all kinds"], ...KINDS_TO_CHOOSE.map((kind) => [kind, kind])], filterByControls),
    select("size", [["", "all sizes"], ["small", "small (below 32² pixels)"], ["medium", "medium"],
      ["large", "large (96² and above)"]], (event) => chooseInGrid({size: event.target.value})),
    [element("span", {}, "Score"), element("span", {class: "scores"},
      score("minScore", "Score above"), "to", score("maxScore", "Score at most"))],
    [element("label", {for: "images-search"}, "File name"), grid.searchBox],
  ];
  grid.clearButton = element("button", {type: "button", onclick: clearFilters}, "Show all images");
  return element("div", {class: "filters", role: "search"},
    ...fields.map((parts) => element("div", {class: "field"}, ...parts)), grid.clearButton);
}

function chooseInGrid(values) {
  Object.assign(grid, values);
  updateGrid();
}

function filterByControls() {
  const label = grid.classSelect.value;
  const filter = {
    ...NO_FILTER, kind: grid.kindSelect.value || null, class: label === "" ? null : Number(label),
    minScore: typedThreshold(grid.minScore), maxScore: typedThreshold(grid.maxScore),
  };
  change({filter: {...filter, text: textOf(filter)}});
}

function textOf(filter) {
  return [filter.class === null ? null : className(filter.class), filter.kind].filter(Boolean).join(", ");
}

// Shows the filter in the controls, whether a chart or a control has set it.
function showFilter() {
  const {filter} = state;
  grid.classSelect.value = filter.class ?? "";
  grid.kindSelect.value = filter.kind ?? "";
  for (const name of ["minScore", "maxScore"]) {
    // A number that is being typed, such as 0., must stay as it is.
    if (document.activeElement !== grid[name]) grid[name].value = filter[name] ?? "";
  }
}

function clearFilters() {
  grid.size = grid.search = grid.sizeSelect.value = grid.searchBox.value = "";
  grid.isDirty = true;
  if (state.filter === NO_FILTER) updateGrid();
  else change({filter: NO_FILTER});
}

// --- What matches, in order

function updateGrid() {
  clearTimeout(grid.timer);
  const {detections, objects, images} = chosenInGrid();
  grid.counts = countsOf(detections, objects);
  const names = data.images.names;
  const places = Array.from(names.keys()).filter((image) =>
    images[image] && (!grid.search || names[image].toLowerCase().includes(grid.search)));
  const valueOf = SORTS[grid.sort][1];
  const values = Float64Array.from(names, (_, image) => (images[image] ? valueOf(image) : 0));
  places.sort((a, b) => values[b] - values[a] || (names[a] < names[b] ? -1 : Number(names[a] > names[b])));
  grid.images = places;
  grid.isDirty = false;
  sayHowMany();
  forgetCards();
  grid.current = 0;
  layOut();
}

// Returns the detections, objects and images that the filters choose, without the search for a name.
function chosenInGrid(run = chosenRun()) {
  const chosen = chosenBy(run, state.filter, state.common, thresholds());
  if (!grid.size) return chosen;
  const [least, below] = SIZES[grid.size];
  const keep = (mask, {box, image}) => {
    for (let row = 0; row < mask.length; row++) {
      const area = box[4 * row + 2] * box[4 * row + 3];
      mask[row] &= area >= least && area < below;
      if (mask[row]) chosen.images[image[row]] = 1;
    }
  };
  chosen.images.fill(0);
  keep(chosen.detections, run.detections);
  keep(chosen.objects, data.objects);
  return chosen;
}

// Returns how many detections and objects of each image are chosen, and how many of these are wrong, badly placed and
// not found.
function countsOf(detections, objects) {
  const {image, match, ignored, kind} = chosenRun().detections;
  const numImages = data.images.names.length;
  const [chosen, wrong, misplaced, missed] = Array.from({length: 4}, () => new Int32Array(numImages));
  const badlyPlaced = data.kinds.indexOf("badly placed");
  detections.forEach((isChosen, row) => {
    if (!isChosen) return;
    chosen[image[row]]++;
    if (match[row] < 0 && !ignored[row]) wrong[image[row]]++;
    if (kind[row] === badlyPlaced) misplaced[image[row]]++;
  });
  const isMatched = matchedObjects(chosenRun());
  objects.forEach((isChosen, object) => {
    if (!isChosen) return;
    chosen[data.objects.image[object]]++;
    if (!isMatched[object]) missed[data.objects.image[object]]++;
  });
  return {chosen, wrong, misplaced, missed};
}

// Marks the objects that a detection above the thresholds matches.
function matchedObjects(run) {
  const {score, class: label, match} = run.detections;
  const limits = thresholds();
  const isMatched = new Uint8Array(data.objects.class.length);
  match.forEach((object, row) => {
    if (object >= 0 && score[row] > limits[label[row]]) isMatched[object] = 1;
  });
  return isMatched;
}

function sayHowMany() {
  const count = grid.images.length.toLocaleString("en"), all = data.images.names.length.toLocaleString("en");
  const about = state.filter.text ? `: ${state.filter.text}` : "";
  grid.status.textContent = `${count} of ${all} images match${about}`;
}

// --- Cards

function layOut() {
  const width = grid.list.clientWidth;
  if (!width) return; // another tab is shown
  const columns = Math.max(1, Math.floor((width + CARD_GAP) / (LEAST_CARD_WIDTH + CARD_GAP)));
  const cardWidth = Math.floor((width + CARD_GAP) / columns) - CARD_GAP;
  if (columns !== grid.columns || cardWidth !== grid.cardWidth) forgetCards();
  Object.assign(grid, {columns, cardWidth});
  const rows = Math.ceil(grid.images.length / columns);
  grid.list.style.height = `${Math.max(0, rows * (cardHeight() + CARD_GAP) - CARD_GAP)}px`;
  showCards();
}

function cardHeight() {
  return Math.round(grid.cardWidth * CARD_SHAPE) + CARD_TEXT_HEIGHT;
}

function forgetCards() {
  for (const card of grid.cards.values()) card.remove();
  grid.cards.clear();
}

// Makes the cards near the window, or the first `printed` cards, and removes the others.
function showCards(printed) {
  if (state.tab !== "images") return;
  const rowHeight = cardHeight() + CARD_GAP;
  const above = -grid.list.getBoundingClientRect().top;
  const firstRow = Math.max(0, Math.floor(above / rowHeight) - ROWS_BEYOND);
  const lastRow = Math.ceil((above + window.innerHeight) / rowHeight) + ROWS_BEYOND;
  const isPrinted = printed > 0;
  const first = isPrinted ? 0 : firstRow * grid.columns;
  const end = Math.min(grid.images.length, isPrinted ? printed : lastRow * grid.columns);
  for (const [place, card] of grid.cards) {
    if (place >= first && place < end) continue;
    if (!isPrinted && card.contains(document.activeElement)) continue; // scrolling must not lose the focus
    card.remove();
    grid.cards.delete(place);
  }
  for (let place = first; place < end; place++) {
    if (!grid.cards.has(place)) addCard(place);
  }
}

function addCard(place) {
  const image = grid.images[place];
  const canvas = element("canvas", {"aria-hidden": "true"});
  const note = element("span", {class: "note"});
  const button = element("button", {
    type: "button", class: "plain card", tabindex: place === grid.current ? "0" : "-1",
    onclick: () => openImage(image),
    onfocus: () => setCurrent(place),
  }, canvas, element("bdi", {class: "file"}, printable(data.images.names[image])),
  element("span", {class: "counts"}, countsText(image)), note);
  const card = element("li", {"aria-setsize": grid.images.length, "aria-posinset": place + 1}, button);
  const left = (place % grid.columns) * (grid.cardWidth + CARD_GAP);
  const top = Math.floor(place / grid.columns) * (cardHeight() + CARD_GAP);
  Object.assign(card.style, {width: `${grid.cardWidth}px`, height: `${cardHeight()}px`,
    transform: `translate(${left}px, ${top}px)`});
  // The cards are kept in the order of the images, because screen readers read them in that order.
  const next = [...grid.cards.keys()].filter((other) => other > place).sort((a, b) => a - b)[0];
  grid.list.insertBefore(card, grid.cards.get(next) ?? null);
  grid.cards.set(place, card);
  drawCard(canvas, note, image);
}

function countsText(image) {
  const {chosen, wrong, missed} = grid.counts;
  const {filter} = state;
  const isSpecific = [filter.kind, filter.trueClass, filter.foundClass].some((value) => value !== null);
  const counts = isSpecific
    ? `${chosen[image]} ${chosen[image] === 1 ? "box matches" : "boxes match"}`
    : `${wrong[image]} false, ${missed[image]} not found`;
  if (data.runs.length < 2) return counts;
  return `${counts}\nF1 of B ${gainOf(image) < 0 ? "−" : "+"}${Math.abs(gainOf(image)).toFixed(2)}`;
}

function drawCard(canvas, note, image) {
  const width = grid.cardWidth - 2, height = Math.round(grid.cardWidth * CARD_SHAPE);
  const items = itemsOf(chosenRun(), image);
  const draw = () => {
    drawScene(canvas, {width, height}, image, items, WHOLE, {isSmall: true});
    note.textContent = noteOf(image);
  };
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  draw();
  whenPictureIsThere(image, () => { if (canvas.isConnected) draw(); });
}

function setCurrent(place) {
  const button = (at) => grid.cards.get(at)?.querySelector("button");
  button(grid.current)?.setAttribute("tabindex", "-1");
  grid.current = place;
  button(place)?.setAttribute("tabindex", "0");
}

function moveAmongCards(event) {
  const page = grid.columns * Math.max(1, Math.floor(window.innerHeight / (cardHeight() + CARD_GAP)));
  const last = grid.images.length - 1;
  const steps = {
    ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid.columns, ArrowUp: -grid.columns, PageDown: page, PageUp: -page,
    Home: -grid.current, End: last - grid.current,
  };
  if (!(event.key in steps) || hasModifier(event)) return;
  event.preventDefault();
  focusCard(Math.min(last, Math.max(0, grid.current + steps[event.key])));
}

function focusCard(place) {
  if (!grid.cards.has(place)) addCard(place);
  setCurrent(place);
  const button = grid.cards.get(place)?.querySelector("button");
  button?.focus({preventScroll: true});
  button?.scrollIntoView({block: "nearest"});
  showCards();
}

function hasModifier(event) {
  return event.ctrlKey || event.metaKey || event.altKey;
}

// --- Pictures

const pictures = new Map(); // HTMLImageElement by image; the most recently used is last

// Returns the decoded picture of an image, or null if it isn't loaded yet or doesn't exist.
function pictureOf(image) {
  const picture = pictures.get(image);
  return picture?.complete && picture.naturalWidth ? picture : null;
}

// Returns why an image has no picture, or "".
function noteOf(image) {
  return printable(data.images.notes[image] ?? "");
}

// Calls `then` when the picture of an image has loaded or has failed to load; never if the image has no picture.
function whenPictureIsThere(image, then) {
  const {pictures: sources, notes} = data.images;
  const source = sources[image];
  if (!source) return;
  let picture = pictures.get(image);
  pictures.delete(image);
  if (!picture) {
    picture = new Image();
    picture.src = source;
    picture.addEventListener("error", () => {
      sources[image] = null;
      notes[image] = `this browser can't show ${source.slice(0, MOST_LETTERS)}`;
    });
  }
  pictures.set(image, picture);
  if (pictures.size > MOST_PICTURES) pictures.delete(pictures.keys().next().value);
  if (pictureOf(image)) then();
  else for (const event of ["load", "error"]) picture.addEventListener(event, then, {once: true});
}
