// Starts the page: its tabs, and everything that the other files show.

const TAB_NAMES = {numbers: "Numbers", images: "Images", labels: "Labels", details: "Details"};

function startTabs() {
  const links = TABS.filter((tab) => document.querySelector(`[data-tab="${tab}"]`)).map((tab) =>
    element("a", {href: `#${tab}`}, TAB_NAMES[tab]));
  document.getElementById("tabs").append(...links);
  const show = () => {
    for (const part of document.querySelectorAll("[data-tab]")) {
      part.classList.toggle("away", part.dataset.tab !== state.tab); // not `hidden`: a print shows all
    }
    for (const link of links) {
      if (link.hash === `#${state.tab}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  };
  // The address decides, so that the browser's Back leads to the tab before.
  const follow = () => {
    const tab = document.getElementById(location.hash.slice(1))?.closest("[data-tab]")?.dataset.tab;
    change({tab: tab ?? "numbers"});
  };
  onChange((names) => {
    if (!names.has("tab")) return;
    if (location.hash !== `#${state.tab}`) location.hash = state.tab;
    show();
  });
  window.addEventListener("hashchange", follow);
  follow();
  show();
}

startImages();
startViewer();
startLabels();
startTabs();
