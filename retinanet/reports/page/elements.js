// Makes the page's elements and the text in them.

// Returns an element with attributes, handlers (names that start with "on"), and children, which are elements or text.
// Text never becomes markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made[name] = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Sets the text of an element, which costs a layout only if the text changes.
function setText(place, text) {
  if (place.shownText === text) return;
  place.shownText = text;
  place.textContent = text;
}

function share(number) {
  return Number.isNaN(number) ? "-" : number.toFixed(3);
}

// Returns the fewest digits that parse to the same number in float32.
function thresholdText(threshold) {
  const number = Math.fround(threshold);
  for (let digits = 1; digits < 9; digits++) {
    const text = String(Number(number.toPrecision(digits)));
    if (Math.fround(Number(text)) === number) return text;
  }
  return String(Number(number.toPrecision(9)));
}

// Returns a name from a file as an element, so that its writing direction doesn't affect the text around it.
function named(text) {
  return element("bdi", {class: "name", title: text}, text);
}

// Returns the 2D context of a canvas that is `width` x `height` CSS pixels large, sharp on any screen.
function sizedContext(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

// Returns a colour of page.css, such as colour("accent").
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Returns `text`, or as much of its beginning as fits into `width`.
function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let letters = Math.min(text.length, 80);
  while (letters > 1 && context.measureText(text.slice(0, letters) + "…").width > width) letters--;
  return text.slice(0, letters) + "…";
}
