// Shows the threshold bar, the buttons that set the classes' thresholds, and the command that detects with them.

// Returns a function that takes the counts of each run, and shows precision, recall and F1 of all classes together.
function startThresholds() {
  const slider = element("input", {type: "range", id: "threshold", min: 0, max: 1, step: 0.01});
  const number = element("input", {
    type: "number", id: "threshold_number", min: 0, max: 1, step: 0.01, "aria-label": "Threshold as a number",
  });
  slider.oninput = () => change({common: Number(slider.value)});
  number.onchange = () => {
    const value = typedThreshold(number);
    if (value !== null) change({common: value});
    else showCommon();
  };
  const showCommon = () => {
    slider.value = state.common;
    slider.setAttribute("aria-valuetext", thresholdText(state.common));
    if (document.activeElement !== number || typedThreshold(number) !== state.common) {
      number.value = thresholdText(state.common);
    }
  };
  const best = element("button", {type: "button", onclick: () => change({common: chosenRun().threshold})}, "Best F1");
  best.title = "The threshold with the best F1 of all classes together";
  const totals = element("output", {id: "totals", for: "threshold threshold_number"});
  document.getElementById("thresholds").append(
    element("label", {for: "threshold"}, "Score above"), slider, number, best, ...runChoice(), totals);
  onChange((names) => { if (names.has("common")) showCommon(); });
  showCommon();
  return (counts) => {
    const texts = counts.map((each, run) => {
      const [right, wrong, missed] = [sum(each.right), sum(each.wrong), sum(each.missed)];
      return `${data.runs.length > 1 ? data.runs[run].name + ": " : ""}precision ${share(precision(right, wrong))}, ` +
        `recall ${share(recall(right, missed))}, F1 ${share(f1(right, wrong, missed))}`;
    });
    setText(totals, texts.join(" · "));
  };
}

// Returns the controls that choose the run whose curves, confusion matrix and images are shown, if there are two.
function runChoice() {
  if (data.runs.length < 2) return [];
  const choice = element("select", {id: "run"}, ...data.runs.map((run, row) =>
    element("option", {value: row}, `${run.name}: ${printable(run.source)}`)));
  choice.onchange = () => change({run: Number(choice.value)});
  return [element("label", {for: "run"}, "Show"), choice];
}

// Returns the buttons that set the thresholds of all classes, and the command for predict.
function classThresholds() {
  const least = element("input", {type: "number", id: "least_recall", min: 0.01, max: 1, step: 0.01, value: 0.9});
  const told = element("output", {class: "told", for: "least_recall"});
  const setAll = (ownOf, say) => {
    change({own: ownOf ? data.classes.map((_, label) => ownOf(label)) : data.classes.map(() => null)});
    setText(told, say ?? "");
  };
  const toRecall = () => {
    const wanted = Number(least.value);
    if (!(wanted > 0 && wanted <= 1)) return setText(told, "Type a recall above 0 and up to 1.");
    const reached = data.classes.map((_, label) => recallThreshold(chosenRun(), label, wanted));
    const short = reached.filter((threshold, label) => threshold === null && numObjects[label]).length;
    setAll((label) => reached[label],
      short ? `Classes that never reach it, which keep the common threshold: ${short}` : "");
  };
  const button = (text, onclick) => element("button", {type: "button", onclick}, text);
  const command = element("code", {id: "command"});
  const copied = element("output", {class: "told"});
  const copy = button("Copy", () => {
    getSelection().selectAllChildren(command); // stays selected if the browser doesn't let a page copy
    navigator.clipboard?.writeText(command.textContent).then(() => setText(copied, "Copied"), () => {});
  });
  const show = () => setText(command, predictCommand());
  onChange((names) => { if (["common", "own", "run"].some((name) => names.has(name))) show(); });
  show();
  return [
    element("p", {class: "controls setters"},
      element("span", {}, "Thresholds of the classes:"),
      button("Best F1 of each class", () => setAll((label) => bestThreshold(chosenRun(), label))),
      element("span", {class: "together"},
        button("Recall of at least", toRecall), least, element("label", {for: "least_recall"}, "in each class")),
      button("Same for all", () => setAll(null)), told),
    element("div", {class: "controls"}, element("span", {}, "Detect with these thresholds:"), copy, copied),
    element("pre", {class: "command", tabindex: 0, "aria-label": "Command that detects with these thresholds"}, command),
  ];
}

// Returns the threshold in an input, or null if it isn't a number from 0 to 1.
function typedThreshold(input) {
  const value = Number(input.value);
  return input.value !== "" && value >= 0 && value <= 1 ? value : null;
}

function predictCommand() {
  // A threshold below 0 keeps scores of 0, which a result file may contain, but no detector returns.
  const textOf = (threshold) => thresholdText(Math.max(0, threshold));
  const common = textOf(state.common);
  const others = data.classes
    .map((name, label) => [name, state.own[label] === null ? common : textOf(state.own[label])])
    .filter(([, threshold]) => threshold !== common)
    .map(([name, threshold]) => quoted(`${name}=${threshold}`));
  const checkpoint = chosenRun().checkpoint ?? "FILE"; // a result file without a record doesn't say which
  return ["python -m retinanet.predict SOURCE --checkpoint_path", quoted(checkpoint), "--threshold", common, ...others]
    .join(" ");
}

// Returns a word of a command as a POSIX shell reads it.
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : "'" + word.replaceAll("'", "'\\''") + "'";
}
