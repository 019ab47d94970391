// Decodes the page's JSON. Its field names are set in page_data.py; base64 arrays become typed arrays.

const data = decodedData();

function decodedData() {
  const content = JSON.parse(document.getElementById("data").textContent);
  decode(content.images, {width: Int32Array, height: Int32Array});
  decode(content.objects, {image: Int32Array, class: Int32Array, box: Float32Array, crowd: Uint8Array});
  for (const run of content.runs) {
    decode(run, {f1: Float64Array});
    decode(run.detections, {
      image: Int32Array, class: Int32Array, score: Float32Array, box: Float32Array, ignored: Uint8Array,
      kind: Int8Array, match: Int32Array, any: Int32Array, near: Int32Array,
    });
  }
  return content;
}

function decode(part, types) {
  for (const [name, Type] of Object.entries(types)) {
    const text = atob(part[name]);
    const bytes = new Uint8Array(text.length);
    for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
    part[name] = new Type(bytes.buffer);
  }
}

// Characters that a browser would interpret instead of displaying, such as marks that reverse the text around them:
// the same as in runtime/printable.py.
const UNPRINTABLE = /[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]/gu;
const MOST_LETTERS = 300; // of a name; the rest would only slow the page down

// Returns a name from a file as text to display.
function printable(text) {
  const letters = text.length > MOST_LETTERS ? text.slice(0, MOST_LETTERS) + "…" : text;
  return letters.replace(UNPRINTABLE, (letter) => "\\u" + letter.charCodeAt(0).toString(16).padStart(4, "0"));
}

function className(label) {
  return printable(data.classes[label]);
}
