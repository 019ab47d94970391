// Shows suspect labels one by one, takes decisions by keys or buttons, keeps them across reloads, and saves them.

const CROP_MARGIN = 2.2; // the part of a picture that is shown, as a multiple of the boxes' sides
// Each decision has its key, its text, whether it makes sense for a suspect, and which fields it writes.
const DECISIONS = {
  right: {key: "r", text: "Right as it is", fits: () => true, writes: []},
  box: {key: "b", text: "Take the suggested box", fits: (one) => hasLabel(one) && hasBox(one), writes: ["bbox"]},
  class: {
    key: "c", text: "Take the suggested class", fits: (one) => hasLabel(one) && hasClass(one),
    writes: ["category_id"],
  },
  both: {
    key: "t", text: "Take both", fits: (one) => hasLabel(one) && hasBox(one) && hasClass(one),
    writes: ["category_id", "bbox"],
  },
  add: {
    key: "a", text: "Add the object", fits: (one) => !hasLabel(one) && hasBox(one) && hasClass(one),
    writes: ["category_id", "bbox"],
  },
  delete: {key: "d", text: "Delete the label", fits: (one) => hasLabel(one), writes: []},
  skip: {key: "s", text: "Skip", fits: () => true, writes: []},
};
const labelling = {suspects: [], decisions: new Map(), history: [], at: 0, isWhole: false, isForgetful: false};

function hasLabel(suspect) {
  return suspect.annotation_id !== null;
}

function hasBox(suspect) {
  return Boolean(suspect.suggested_bbox);
}

function hasClass(suspect) {
  return suspect.suggested_category_id !== null && suspect.suggested_category_id !== suspect.category_id;
}

function startLabels() {
  const section = document.getElementById("labels");
  if (!data.suspects || !section) return;
  labelling.suspects = data.suspects.suspects;
  labelling.names = new Map(data.suspects.classes.map(({id, name}) => [id, printable(name)]));
  labelling.images = new Map(data.images.ids.map((id, image) => [id, image]));
  labelling.storage = `decisions ${data.suspects.annotations.sha256} ${digest(labelling.suspects)}`;
  loadDecisions();
  if (!labelling.suspects.length) {
    section.append(element("p", {}, "No label is suspect."));
    return;
  }
  buildLabels(section);
  labelling.at = Math.max(0, labelling.suspects.findIndex(({id}) => !labelling.decisions.has(id)));
  document.addEventListener("keydown", onLabelKey);
  // No threshold applies to suspects.
  onChange(() => document.getElementById("thresholds").classList.toggle("away", state.tab === "labels"));
  new ResizeObserver(() => drawSuspect()).observe(labelling.frame);
  showSuspect();
}

// Returns a short hash (FNV-1a) that distinguishes these suspects from other suspects of the same set.
function digest(suspects) {
  let hash = 2166136261;
  for (const letter of JSON.stringify(suspects)) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
  return (hash >>> 0).toString(16);
}

// --- The page

function buildLabels(section) {
  const button = (name, text, onclick) => element("button", {type: "button", onclick, "data-decision": name}, text);
  labelling.progress = element("progress", {max: labelling.suspects.length, "aria-label": "Decided"});
  labelling.count = element("span", {});
  labelling.heading = element("h2", {});
  labelling.file = element("bdi", {class: "file"});
  labelling.about = element("p", {class: "about"});
  labelling.note = element("p", {class: "note"});
  labelling.warning = element("p", {class: "warning", role: "alert"});
  labelling.canvas = element("canvas", {role: "img"});
  labelling.frame = element("div", {class: "canvas"}, labelling.canvas);
  labelling.buttons = Object.entries(DECISIONS).map(([name, {key, text}]) =>
    button(name, `${text} (${key})`, () => decide(name)));
  section.append(
    element("div", {class: "tools"}, labelling.progress, labelling.count,
      element("button", {type: "button", onclick: saveDecisions, id: "save-decisions"}, "Save decisions.json")),
    element("div", {role: "status"}, labelling.heading, labelling.file, labelling.about, labelling.note),
    labelling.frame,
    element("div", {class: "decisions", role: "group", "aria-label": "Decision"}, ...labelling.buttons),
    element("div", {class: "tools"},
      button("", "‹ Previous (←)", () => goTo(labelling.at - 1)),
      button("", "Next › (→)", () => goTo(labelling.at + 1)),
      button("", "Undo the last decision (u)", undo), button("", "Whole image or part (w)", toggleWhole)),
    labelling.warning,
    element("p", {class: "keys"}, "White: the label. Dashed: the suggestion. \"convert --decisions\" writes a new dataset " +
      "from the saved file."));
}

function showSuspect() {
  const suspect = labelling.suspects[labelling.at];
  const decision = labelling.decisions.get(suspect.id);
  labelling.heading.textContent = `${labelling.at + 1} of ${labelling.suspects.length}: ${suspect.kind}`;
  labelling.file.textContent = printable(suspect.file_name);
  labelling.about.textContent = aboutSuspect(suspect, decision);
  for (const each of labelling.buttons) {
    const name = each.dataset.decision;
    each.hidden = !DECISIONS[name].fits(suspect);
    each.setAttribute("aria-pressed", String(decision === name));
  }
  labelling.progress.value = labelling.decisions.size;
  const unkept = labelling.isForgetful ? ". This browser doesn't keep decisions: save before you close the page" : "";
  labelling.count.textContent = `${labelling.decisions.size} of ${labelling.suspects.length} decided${unkept}`;
  drawSuspect();
  const image = labelling.images.get(suspect.image_id);
  if (image !== undefined) whenPictureIsThere(image, drawSuspect);
}

function aboutSuspect(suspect, decision) {
  const says = [`a mistake with probability ${suspect.probability.toFixed(2)}`];
  if (suspect.category_id !== null) says.push(`label: ${nameOf(suspect.category_id)}`);
  if (suspect.suggested_category_id !== null || suspect.suggested_bbox) {
    const score = suspect.score === null ? "" : `, score ${suspect.score.toFixed(2)}`;
    says.push(`suggestion: ${nameOf(suspect.suggested_category_id ?? suspect.category_id)}${score}`);
  }
  if (decision) says.push(`decided: ${DECISIONS[decision].text.toLowerCase()}`);
  return says.join("; ");
}

function nameOf(categoryId) {
  return labelling.names.get(categoryId) ?? String(categoryId);
}

// --- The picture

// Returns the boxes of a suspect in the frame of the picture.
function boxesOf(suspect) {
  return {
    label: suspect.picture_bbox ?? suspect.bbox, suggested: suspect.picture_suggested_bbox ?? suspect.suggested_bbox,
    other: suspect.picture_other_bbox ?? suspect.other_bbox ?? null,
  };
}

function itemsOfSuspect(suspect) {
  const {label, suggested, other} = boxesOf(suspect);
  const item = (key, box, style, text) => ({key, box, style, text, partner: null, isFaint: false});
  const short = (categoryId) => Array.from(nameOf(categoryId)).slice(0, LABEL_LETTERS).join("");
  const items = [];
  if (other) items.push(item("other", other, "crowd", "the other label"));
  if (label) items.push(item("label", label, "object", `label: ${short(suspect.category_id)}`));
  const categoryId = suspect.suggested_category_id ?? suspect.category_id;
  if (suggested) items.push(item("suggestion", suggested, "wrong class", `suggestion: ${short(categoryId)}`));
  else if (hasClass(suspect)) items[items.length - 1].text += `, suggestion: ${short(categoryId)}`;
  return items;
}

function drawSuspect() {
  const suspect = labelling.suspects[labelling.at];
  const image = labelling.images.get(suspect.image_id);
  const size = sizeOf(labelling.canvas);
  if (image === undefined || !size.width) return;
  const items = itemsOfSuspect(suspect);
  const view = labelling.isWhole ? WHOLE : viewOf(items.map(({box}) => box), image, size);
  drawScene(labelling.canvas, size, image, items, view);
  labelling.note.textContent = noteOf(image) && `No picture: ${noteOf(image)}`;
  labelling.canvas.setAttribute("aria-label", items.map(({text}) => text).join("; "));
}

// Returns the view that shows all boxes with a margin.
function viewOf(boxes, image, size) {
  const left = Math.min(...boxes.map((box) => box[0])), top = Math.min(...boxes.map((box) => box[1]));
  const width = Math.max(...boxes.map((box) => box[0] + box[2])) - left;
  const height = Math.max(...boxes.map((box) => box[1] + box[3])) - top;
  const imageWidth = data.images.width[image], imageHeight = data.images.height[image];
  const least = Math.max(1, 0.05 * Math.max(imageWidth, imageHeight)); // so that a tiny box is shown with its surroundings
  const wanted = Math.min(
    size.width / (CROP_MARGIN * Math.max(width, least)), size.height / (CROP_MARGIN * Math.max(height, least)));
  const zoom = Math.max(1, wanted / placeOf(size, image, WHOLE).scale);
  const x = (left + width / 2) / imageWidth, y = (top + height / 2) / imageHeight;
  const view = {zoom: Math.min(MOST_ZOOM, zoom), x, y};
  return within(view, size, image);
}

function toggleWhole() {
  labelling.isWhole = !labelling.isWhole;
  drawSuspect();
}

// --- Decisions

function decide(name) {
  const suspect = labelling.suspects[labelling.at];
  if (!DECISIONS[name].fits(suspect)) return;
  labelling.history.push([suspect.id, labelling.decisions.get(suspect.id)]);
  labelling.decisions.set(suspect.id, name);
  keepDecisions();
  labelling.warning.textContent = hasLabel(suspect) ? contradictionOf(suspect) : "";
  goTo(nextUndecided());
}

// Returns the place of the next suspect without a decision, after this place and then from the start; or this place if
// there is none.
function nextUndecided() {
  const {suspects, decisions, at} = labelling;
  const isOpen = (place) => !decisions.has(suspects[place].id);
  for (let step = 1; step < suspects.length; step++) {
    if (isOpen((at + step) % suspects.length)) return (at + step) % suspects.length;
  }
  return at;
}

// Returns a warning if the decision contradicts one on another suspect with the same label, or "".
function contradictionOf(suspect) {
  const its = partsOf(suspect);
  const place = labelling.suspects.findIndex((other) => other !== suspect && hasLabel(other) &&
    other.annotation_id === suspect.annotation_id && other.image_id === suspect.image_id &&
    Object.entries(partsOf(other)).some(([part, value]) => part in its && its[part] !== value));
  if (place < 0) return "";
  return `Suspect ${place + 1} already changes this label in another way, which convert refuses. Undo one of the two.`;
}

// Returns the new value, as text, of each part of a label that the decision on a suspect changes, as convert sees it: a
// new box and a new class don't contradict each other.
function partsOf(suspect) {
  const decision = labelling.decisions.get(suspect.id);
  if (decision === "delete") return {category_id: "", bbox: ""};
  const writes = decision ? DECISIONS[decision].writes : [];
  return Object.fromEntries(writes.map((part) => [part, JSON.stringify(suspect[`suggested_${part}`])]));
}

function undo() {
  const last = labelling.history.pop();
  if (!last) return;
  const [id, before] = last;
  if (before === undefined) labelling.decisions.delete(id);
  else labelling.decisions.set(id, before);
  keepDecisions();
  labelling.warning.textContent = "";
  goTo(labelling.suspects.findIndex((suspect) => suspect.id === id));
}

function goTo(place) {
  labelling.at = Math.min(labelling.suspects.length - 1, Math.max(0, place));
  showSuspect();
}

function onLabelKey(event) {
  if (state.tab !== "labels" || state.image !== null || hasModifier(event)) return;
  if (event.target.closest("input, select, textarea")) return;
  const name = Object.keys(DECISIONS).find((each) => DECISIONS[each].key === event.key.toLowerCase());
  const moves = {
    ArrowLeft: () => goTo(labelling.at - 1), ArrowRight: () => goTo(labelling.at + 1), u: undo, w: toggleWhole,
  };
  const run = name ? () => decide(name) : moves[event.key];
  if (!run) return;
  event.preventDefault();
  run();
}

// Decisions survive a reload if the browser lets the page store them, which not every browser does.
function keepDecisions() {
  try {
    localStorage.setItem(labelling.storage, JSON.stringify([...labelling.decisions]));
  } catch {
    labelling.isForgetful = true;
  }
}

function loadDecisions() {
  try {
    const byId = new Map(labelling.suspects.map((suspect) => [suspect.id, suspect]));
    for (const [id, name] of JSON.parse(localStorage.getItem(labelling.storage) ?? "[]")) {
      if (byId.has(id) && DECISIONS[name]?.fits(byId.get(id))) labelling.decisions.set(id, name);
    }
  } catch {
    labelling.isForgetful = true;
  }
}

// Returns a suspect's decision in the form that decisions.json has.
function decisionOf(suspect) {
  const decision = labelling.decisions.get(suspect.id);
  const {writes} = DECISIONS[decision];
  return {
    suspect: suspect.id, decision, image_id: suspect.image_id, file_name: suspect.file_name,
    annotation_id: suspect.annotation_id,
    category_id: writes.includes("category_id") ? suspect.suggested_category_id : null,
    bbox: writes.includes("bbox") ? suspect.suggested_bbox : null,
  };
}

function saveDecisions() {
  const decided = labelling.suspects.filter(({id}) => labelling.decisions.has(id));
  const content = {
    set_name: data.suspects.set_name, annotations: data.suspects.annotations, decisions: decided.map(decisionOf),
  };
  const url = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], {type: "application/json"}));
  element("a", {href: url, download: "decisions.json"}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000); // the download may start late
}
