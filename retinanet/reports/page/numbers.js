// Counts at thresholds as evaluation/counts.py does, from the matches that Python found. This file doesn't use the DOM.

const FALSE_KINDS = 5; // kinds of error that detections can have; the last of data.kinds is for objects
const BACKGROUND = data.classes.length; // as a true class in the confusion matrix
const NOT_FOUND = data.classes.length; // as a found class

// Objects of each class; crowds don't count.
const numObjects = new Int32Array(data.classes.length);
// Images with neither objects nor crowds.
const isEmpty = new Uint8Array(data.images.names.length).fill(1);
data.objects.class.forEach((label, object) => {
  if (!data.objects.crowd[object]) numObjects[label]++;
  isEmpty[data.objects.image[object]] = 0;
});
const numEmpty = isEmpty.reduce((sum, one) => sum + one, 0);

// Returns the counts of each class at the `thresholds` of the classes (in float32, in which scores are compared).
function countsAt(run, thresholds) {
  const {score, class: label, match, ignored, kind, image} = run.detections;
  const numClasses = data.classes.length;
  const right = new Int32Array(numClasses), wrong = new Int32Array(numClasses);
  const errors = new Int32Array(FALSE_KINDS * numClasses); // kind by kind
  let wrongOnEmpty = 0;
  const lowest = thresholds.reduce((least, one) => Math.min(least, one), Infinity);
  for (let row = 0; row < score.length && score[row] > lowest; row++) { // sorted by score
    const its = label[row];
    if (!(score[row] > thresholds[its])) continue;
    if (kind[row] >= 0) errors[kind[row] * numClasses + its]++;
    if (match[row] >= 0) right[its]++;
    else if (!ignored[row]) {
      wrong[its]++;
      wrongOnEmpty += isEmpty[image[row]];
    }
  }
  return {right, wrong, missed: numObjects.map((count, its) => count - right[its]), errors, wrongOnEmpty};
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function precision(right, wrong) {
  return right / (right + wrong); // NaN without detections
}

function recall(right, missed) {
  return right / (right + missed); // NaN without objects
}

function f1(right, wrong, missed) {
  return 2 * right / (2 * right + wrong + missed); // NaN with neither
}

// Returns the confusion matrix at a threshold among the classes `shown`, row by row: true classes, then background;
// columns: found classes, then "not found". Objects match detections of any class.
function confusionAt(run, threshold, shown) {
  const {score, class: label, any, ignored} = run.detections;
  const size = shown.length + 1;
  const places = new Int32Array(data.classes.length + 1).fill(-1);
  shown.forEach((its, place) => { places[its] = place; });
  places[BACKGROUND] = shown.length;
  const table = new Int32Array(size * size);
  const isMatched = new Uint8Array(data.objects.class.length);
  const limit = Math.fround(threshold);
  const add = (row, column) => { if (row >= 0 && column >= 0) table[row * size + column]++; };
  for (let row = 0; row < score.length && score[row] > limit; row++) {
    if (any[row] >= 0) {
      isMatched[any[row]] = 1;
      add(places[data.objects.class[any[row]]], places[label[row]]);
    } else if (!ignored[row]) add(shown.length, places[label[row]]);
  }
  data.objects.class.forEach((its, object) => {
    if (!isMatched[object] && !data.objects.crowd[object]) add(places[its], shown.length);
  });
  return table;
}

// Returns the detections of each class by descending score: class c has rows[first[c]..first[c + 1]].
function rowsByClass(run) {
  const {class: label} = run.detections;
  const first = new Int32Array(data.classes.length + 1);
  for (const its of label) first[its + 1]++;
  for (let its = 0; its < data.classes.length; its++) first[its + 1] += first[its];
  const next = first.slice();
  const rows = new Int32Array(label.length);
  label.forEach((its, row) => { rows[next[its]++] = row; });
  return {first, rows};
}

// Returns the largest float32 below a score, the threshold that keeps this score and drops all lower scores.
function thresholdBelow(score) {
  const number = new Float32Array([score]);
  const bits = new Int32Array(number.buffer);
  if (number[0] === 0) bits[0] = -2147483647; // the smallest negative number
  else bits[0] += number[0] > 0 ? -1 : 1;
  return number[0];
}

// Calls `visit(right, seen, score, isLast)` for each detection of the class that isn't ignored, by descending score.
// `isLast` is true for the last detection with its score, because a threshold keeps all equal scores or none.
function sweep(run, label, visit) {
  run.byClass ??= rowsByClass(run);
  const {score, match, ignored} = run.detections;
  const {first, rows} = run.byClass;
  let right = 0, seen = 0, last = NaN;
  for (let place = first[label]; place < first[label + 1]; place++) {
    const row = rows[place];
    if (ignored[row]) continue;
    if (seen) visit(right, seen, last, score[row] !== last);
    seen++;
    if (match[row] >= 0) right++;
    last = score[row];
  }
  if (seen) visit(right, seen, last, true);
}

// Returns the threshold with the best F1 of the class, or null if the class has no true positive.
function bestThreshold(run, label) {
  let best = 0, at = null;
  sweep(run, label, (right, seen, score, isLast) => {
    const value = 2 * right / (seen + numObjects[label]);
    if (isLast && value > best) [best, at] = [value, score];
  });
  return at === null ? null : thresholdBelow(at);
}

// Returns the highest threshold at which the class has a recall of at least `least`, or null if it never reaches that.
function recallThreshold(run, label, least) {
  let at = null;
  sweep(run, label, (right, seen, score) => {
    if (at === null && right / numObjects[label] >= least) at = score;
  });
  return at === null ? null : thresholdBelow(at);
}

// Returns the precision of the class at 101 recalls, as COCO interpolates it, and the score that reaches each recall.
function curveOf(run, label) {
  const values = new Float64Array(101), scores = new Float64Array(101).fill(NaN);
  const points = [];
  sweep(run, label, (right, seen, score) => points.push([right / numObjects[label], right / seen, score]));
  let highest = 0, place = points.length - 1;
  for (let step = 100; step >= 0; step--) {
    while (place >= 0 && points[place][0] >= step * 0.01) highest = Math.max(highest, points[place--][1]);
    if (place === points.length - 1) continue; // the class never reaches this recall
    values[step] = highest;
    scores[step] = points[place + 1][2];
  }
  return {values, scores};
}

// Returns which detections, objects and images a filter of state.js chooses, as typed arrays of 0 and 1.
function chosenBy(run, filter, common, thresholds) {
  const {score, class: label, image, match, any, ignored, kind} = run.detections;
  const detections = new Uint8Array(score.length);
  const objects = new Uint8Array(data.objects.class.length);
  const images = new Uint8Array(data.images.names.length);
  const inMatrix = filter.trueClass !== null || filter.foundClass !== null;
  const isMatched = new Uint8Array(objects.length);
  const lowest = filter.minScore === null ? null : Math.fround(filter.minScore);
  const highest = Math.fround(filter.maxScore ?? Infinity);
  const limit = Math.fround(common);
  for (let row = 0; row < score.length; row++) {
    if (!(score[row] > (lowest ?? (inMatrix ? limit : thresholds[label[row]])))) continue;
    const object = inMatrix ? any[row] : match[row];
    if (object >= 0) isMatched[object] = 1;
    if (score[row] > highest) continue;
    if (filter.class !== null && label[row] !== filter.class) continue;
    if (inMatrix) {
      if (object < 0 && ignored[row]) continue;
      if (filter.foundClass !== null && label[row] !== filter.foundClass) continue;
      const truth = object < 0 ? BACKGROUND : data.objects.class[object];
      if (filter.trueClass !== null && truth !== filter.trueClass) continue;
    } else if (filter.kind === "right") {
      if (object < 0) continue;
    } else if (filter.kind === "false positive") {
      if (object >= 0 || ignored[row]) continue;
    } else if (filter.kind !== null && data.kinds[kind[row]] !== filter.kind) continue;
    detections[row] = 1;
    images[image[row]] = 1;
  }
  const choosesObjects = inMatrix
    ? filter.trueClass !== BACKGROUND && (filter.foundClass === null || filter.foundClass === NOT_FOUND)
    : filter.kind === null || filter.kind === "not found";
  for (let object = 0; choosesObjects && object < objects.length; object++) {
    if (data.objects.crowd[object]) continue;
    if ((inMatrix || filter.kind === "not found") && isMatched[object]) continue;
    const wanted = inMatrix ? filter.trueClass : filter.class;
    if (wanted !== null && data.objects.class[object] !== wanted) continue;
    if (!inMatrix && filter.kind === null && (filter.minScore !== null || filter.maxScore !== null)) continue;
    objects[object] = 1;
    images[data.objects.image[object]] = 1;
  }
  if (isUnfiltered(filter)) images.fill(1);
  return {detections, objects, images};
}

function isUnfiltered(filter) {
  return ["kind", "class", "trueClass", "foundClass", "minScore", "maxScore"].every((name) => filter[name] === null);
}
