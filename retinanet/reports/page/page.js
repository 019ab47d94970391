// Starts the page: its tabs, and everything that depends on the thresholds.

const TAB_NAMES = {numbers: "Numbers", images: "Images", labels: "Labels", details: "Details"};

function startTabs() {
  const links = TABS.filter((tab) => document.querySelector(`[data-tab="${tab}"]`)).map((tab) =>
    element("a", {href: `#${tab}`}, TAB_NAMES[tab]));
  document.getElementById("tabs").append(...links);
  const show = () => {
    for (const part of document.querySelectorAll("[data-tab]")) {
      part.classList.toggle("away", part.dataset.tab !== state.tab); // not `hidden`, because printing shows all tabs
    }
    const followsThresholds = ["numbers", "images"].includes(state.tab);
    document.getElementById("thresholds").classList.toggle("away", !followsThresholds);
    for (const link of links) {
      if (link.hash === `#${state.tab}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  };
  // The address determines the tab, so that the browser's Back button leads to the previous tab.
  const follow = () => {
    const tab = document.getElementById(location.hash.slice(1))?.closest("[data-tab]")?.dataset.tab;
    change({tab: tab ?? "numbers"});
  };
  onChange((names) => {
    if (!names.has("tab")) return;
    const inTab = document.getElementById(location.hash.slice(1))?.closest(`[data-tab="${state.tab}"]`);
    if (!inTab) location.hash = state.tab;
    show();
  });
  window.addEventListener("hashchange", follow);
  follow();
  show();
}

function startNumbers() {
  const parts = [startThresholds(), startClassTable(), startClassBars(), startCurves(), startConfusion(), startErrors()];
  startComparison();
  // Links past the controls of all classes, for keyboard users.
  const headings = document.querySelectorAll(".parts h2");
  document.getElementById("jump").append(...[...headings].slice(1).map((heading) =>
    element("a", {href: `#${heading.id || heading.parentElement.id}`}, heading.textContent.split(" at ")[0])));
  let isStale = true; // true if a change hasn't been shown yet, because another tab is open
  const show = (isNew) => {
    const limits = thresholds();
    const counts = data.runs.map((run) => countsAt(run, limits));
    const [showTotals, ...others] = parts;
    showTotals(counts);
    isStale = state.tab !== "numbers" && !isPrinting;
    if (isStale) return;
    const [values, , , confusion] = others.map((part) => part(counts, {isNew}));
    // For the browser's console, and for tests.
    window.report = {data, state, counts, values, confusion, change};
  };
  let isPrinting = false;
  onChange((names) => {
    if (["common", "own", "run"].some((name) => names.has(name))) show(names.has("run"));
    else if (names.has("tab") && isStale) show(true);
  });
  // Charts are drawn again if their width or the colours change.
  const numbers = document.getElementById("numbers");
  let width = numbers.clientWidth; // 0 behind another tab
  new ResizeObserver(([{contentRect}]) => {
    if (contentRect.width && contentRect.width !== width) show(true);
    width = contentRect.width || width;
  }).observe(numbers);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(true));
  for (const event of ["beforeprint", "afterprint"]) {
    window.addEventListener(event, () => {
      isPrinting = event === "beforeprint";
      document.documentElement.classList.toggle("printing", isPrinting); // shows all tabs, in light colours
      show(true);
    });
  }
  show(true);
}

startImages();
startViewer();
startLabels();
startTabs();
startNumbers();
