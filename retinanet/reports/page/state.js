// Holds the choices made on the page. After a change, the listeners are called with the names of the changed fields.

// The choice of images to show. `text` describes it. `kind` is one of data.kinds, "right", "false positive" or
// "not found" (an object that no detection of its class above the threshold matches). `trueClass` and `foundClass` are
// a cell of the confusion matrix, where data.classes.length is background as the true class, and "not found" as the
// found class. `class` is the class of a detection or of an object that is not found. Scores above `minScore` count
// instead of scores above the threshold. A field that is null allows any value.
const NO_FILTER = {
  text: "", kind: null, class: null, trueClass: null, foundClass: null, minScore: null, maxScore: null,
};

const TABS = ["numbers", "images", "labels", "details"];

const state = {
  common: data.runs[0].threshold, // of all classes without a threshold of their own
  own: data.classes.map(() => null), // the threshold of each class, or null for the common one
  run: 0, // index in data.runs
  filter: NO_FILTER,
  image: null, // index of the image that is shown alone
  tab: "numbers",
};

const listeners = [];

// `listener` is called after each change with the Set of the names in `state` that changed.
function onChange(listener) {
  listeners.push(listener);
}

// Sets fields of the state, such as change({common: 0.5}).
function change(values) {
  const names = Object.keys(values).filter((name) => values[name] !== state[name]);
  if (!names.length) return;
  Object.assign(state, values);
  for (const listener of listeners) listener(new Set(names));
}

// Returns the thresholds of all classes in float32, the precision in which scores are compared.
function thresholds() {
  return Float32Array.from(state.own, (own) => own ?? state.common);
}

function chosenRun() {
  return data.runs[state.run];
}

// Sets the threshold of one class; null makes it follow the common one.
function setOwn(label, threshold) {
  change({own: state.own.with(label, threshold)});
}

// Shows the images that a filter chooses, such as showImages({text: "cat, not found", kind: "not found", class: 3}).
function showImages(filter) {
  change({filter: {...NO_FILTER, ...filter}, tab: "images"});
}
