"use strict";
// Everything that comes from data is set as text, never as HTML.
const $ = (id) => document.getElementById(id);
const pictures = new Map(); // number of a sent picture -> its file, for the back button
let about, pending, timer, typed = 0, offset = 0;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((x) => x !== null && x !== undefined));
  return element;
}

async function ask(address, options = {}) {
  const response = await fetch(address, options);
  const answer = await response.json().catch(() => ({ error: "the server sent no answer" }));
  if (!response.ok) throw new Error(answer.error || "the server failed");
  return answer;
}

const titled = (entry) => entry.name || entry.text || entry.id || entry.value;
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const plate = (source) => make("span", { className: "plate" }, make("img", { src: source, alt: "" }));

// The query, as it stands in the address of the page: text, row or picture; gallery, top and modality if chosen.
function query() {
  return new URLSearchParams(location.search);
}

function ready(key, value, file) {
  const next = new URLSearchParams({ [key]: value });
  if ($("gallery").value) next.set("gallery", $("gallery").value);
  if ($("as").value && key === "text") next.set("modality", $("as").value);
  next.set("top", $("top").value);
  if (file) pictures.set(value, file);
  if (location.search !== `?${next}`) history.pushState(null, "", `?${next}`);
  show();
}

function again() {
  const now = query();
  for (const key of ["text", "row", "picture"]) if (now.has(key)) ready(key, now.get(key));
}

function choose(id, value) {
  if (![...$(id).options].some((x) => x.value === value)) $(id).append(option(value, value));
  $(id).value = value;
}

async function show() {
  const now = query();
  $("error").hidden = true;
  if (now.has("gallery")) $("gallery").value = now.get("gallery");
  if (now.has("top")) choose("top", now.get("top"));
  if (now.has("modality")) $("as").value = now.get("modality");
  if (now.has("text")) $("text").value = now.get("text");
  else $("text").value = "";
  pending?.abort();
  pending = new AbortController();
  const { signal } = pending;
  const file = now.has("picture") ? pictures.get(now.get("picture")) : null;
  if (!now.has("text") && !now.has("row") && !file) return welcome(signal);
  $("results").classList.add("busy");
  try {
    now.delete("picture");
    const options = file ? { method: "POST", body: file, headers: { "Content-Type": file.type } } : {};
    draw(await ask(`/api/search?${now}`, { signal, ...options }), file);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    if (!signal.aborted) $("results").classList.remove("busy");
  }
}

function fail(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
  $("results").replaceChildren();
}

function draw(answer, file) {
  const inside = $("results").contains(document.activeElement);
  const { query: asked, gallery, results } = answer;
  const hits = results.filter((r) => r.hit).length;
  const known = asked.label !== undefined;
  const counts = new Map();
  for (const r of results) counts.set(r.label, (counts.get(r.label) || 0) + 1);
  const source = file ? URL.createObjectURL(file) : asked.picture;
  const title = asked.kind === "text" ? `“${asked.value}”` : asked.kind === "image" ? "Your picture" : titled(asked);
  const place = `${asked.modality} → ${gallery.modality}: the nearest ${results.length} of ${gallery.size.toLocaleString("en")}`;
  const classes = [...counts].sort((a, b) => b[1] - a[1]).map(([name, n]) => make("li", { textContent: `${name} ${n}` }));
  const summary = known ? `${hits} of ${results.length} results have its class, ${asked.label}.` : "Classes found:";
  $("said").textContent = `${title}: ${known ? summary : place}`;
  $("results").replaceChildren(
    make("div", { className: "asked" }, source ? plate(source) : null,
      make("div", {},
        make("h2", { textContent: title }),
        known ? make("p", { textContent: summary })
          : make("div", { className: "classes" }, make("span", { textContent: summary }),
            make("ul", { className: "chips" }, ...classes)),
        make("p", { className: "quiet", textContent: `${place}, by ${about.ranked_by}. Click a result for its neighbours.` }))),
    make("ol", { className: "grid" }, ...results.map(tile)));
  if (inside) { // the focus was on a result that is gone
    $("results").focus({ preventScroll: true });
    $("results").scrollIntoView({ block: "start" });
  }
  for (const image of $("results").querySelectorAll("img")) {
    image.addEventListener("error", () => image.remove());
    if (file && image.src === source) image.addEventListener("load", () => URL.revokeObjectURL(source));
  }
}

function tile(result) {
  const known = result.hit !== undefined;
  const button = make("button", { type: "button", className: `tile ${known ? (result.hit ? "hit" : "miss") : ""}` },
    result.picture ? plate(result.picture) : null,
    make("span", { className: result.picture ? "name" : "words", textContent: titled(result) }),
    make("span", { className: "class", textContent: result.label }),
    make("span", { className: "foot" },
      make("span", { textContent: `${result.rank ?? ""}`, title: "rank" }),
      known ? make("span", { className: "mark", textContent: result.hit ? "✓ hit" : "✗ miss" }) : null,
      make("span", { textContent: result.score?.toFixed(about.metric === "hamming" ? 0 : 3) ?? "",
        title: about.metric === "hamming" ? "distance" : "score" })));
  button.title = `neighbours of ${titled(result)}`;
  button.addEventListener("click", () => ready("row", result.address));
  return make("li", {}, button);
}

// Before the first query: rows to begin with.
async function welcome(signal) {
  const [modality, count] = Object.entries(about.galleries)[0];
  const first = Math.floor(Math.random() * Math.max(1, count - 12));
  try {
    const { rows } = await ask(`/api/rows?${new URLSearchParams({ modality, offset: first })}`, { signal });
    $("results").replaceChildren(
      make("div", { className: "asked" }, make("div", {}, make("h2", { textContent: "Or begin with one of these rows" }),
        make("p", { className: "quiet", textContent: "Its class is known: hits are framed in green, misses in red." }))),
      make("ol", { className: "grid" }, ...rows.slice(0, 12).map(tile)));
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  }
}

// Rows to pick
async function list(from = 0) {
  const wanted = new URLSearchParams({ modality: $("from").value, find: $("find").value, offset: from });
  const number = ++typed;
  try {
    const { rows, more } = await ask(`/api/rows?${wanted}`);
    if (number !== typed) return; // another letter was typed meanwhile
    offset = from + rows.length;
    const items = rows.map((row) => {
      const button = make("button", { type: "button", title: row.label },
        row.picture ? make("img", { src: row.picture, alt: "", loading: "lazy" }) : null,
        make("span", { textContent: titled(row) }));
      button.addEventListener("click", () => ready("row", row.address));
      return make("li", {}, button);
    });
    if (from) $("rows").append(...items);
    else $("rows").replaceChildren(...(items.length ? items : [make("li", { className: "quiet", textContent: "no such row" })]));
    $("more").hidden = !more;
  } catch (error) {
    fail(error);
  }
}

async function anyRow() {
  const modality = $("from").value, count = about.galleries[modality];
  try {
    const { rows } = await ask(`/api/rows?${new URLSearchParams({ modality, offset: Math.floor(Math.random() * count) })}`);
    if (rows.length) ready("row", rows[0].address);
  } catch (error) {
    fail(error);
  }
}

// A picture that is dropped, pasted or chosen
function picture(file) {
  if (!file) return;
  if (!about.takes.image.modalities.length) return fail(new Error(about.takes.image.why_not));
  if (!/^image\/(png|jpeg|webp|gif|bmp)$/.test(file.type)) return fail(new Error("this is no picture; take a PNG, JPEG, WebP, GIF or BMP file"));
  if (file.size > about.limits.body) return fail(new Error(`the picture has more than ${about.limits.body.toLocaleString("en")} bytes; scale it down`));
  ready("picture", `${pictures.size + 1}`, file);
}

const option = (value, text) => make("option", { value, textContent: text });

function begin() {
  const names = Object.entries(about.galleries);
  const wrong = about.wrong_labels ? `, learned from labels of which ${Math.round(100 * about.wrong_labels)} % were wrong` : "";
  $("run").textContent = `Data: ${about.data}, ${plural(about.class_count, "class").replace("classs", "classes")}; `
    + `rows to find (${about.splits.join(", ")}): ${names.map(([m, n]) => `${m} ${n.toLocaleString("en")}`).join(", ")}. `
    + `Method: ${about.method}${wrong}.`;
  document.title = `${about.data}: search by class`;
  $("gallery").append(option("", names.length > 2 ? "another modality" : "the other modality"), ...names.map(([m]) => option(m, m)));
  $("from").append(...names.map(([m]) => option(m, m)));
  const numbers = [...new Set([5, 10, 20, 50, about.top])].filter((n) => n <= about.limits.top).sort((a, b) => a - b);
  $("top").append(...numbers.map((n) => option(n, n)));
  $("top").value = about.top;
  $("text").maxLength = $("find").maxLength = about.limits.text;
  const { text, image } = about.takes;
  $("as").append(...text.modalities.map((m) => option(m, m)));
  $("asbox").hidden = text.modalities.length < 2;
  if (!text.modalities.length) {
    $("text").disabled = $("go").disabled = true;
    $("text").placeholder = "this run takes no typed text";
    $("closed").textContent = `No text: ${text.why_not}.`;
    $("closed").hidden = false;
    pickRow(true);
  } else $("text").placeholder = "a word or more";
  if (!image.modalities.length) {
    $("file").disabled = true;
    $("drop").classList.add("off");
    $("drop").title = image.why_not;
    $("dropword").textContent = "This run takes no pictures";
  }
  $("attribution").textContent = about.attribution;
  show();
}

function pickRow(open) {
  $("picker").hidden = !open;
  $("pick").setAttribute("aria-expanded", open);
  if (open) list();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("text").value.trim()) ready("text", $("text").value);
});
$("file").addEventListener("change", () => {
  picture($("file").files[0]);
  $("file").value = "";
});
for (const name of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") picture(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((f) => f.type.startsWith("image/"));
  if (file) picture(file);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    $("text").focus();
  }
});
$("pick").addEventListener("click", () => {
  pickRow($("picker").hidden);
  if (!$("picker").hidden) $("find").focus();
});
$("find").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => list(), 150);
});
$("find").addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    $("rows").querySelector("button")?.click();
  }
});
$("from").addEventListener("change", () => list());
$("more").addEventListener("click", () => list(offset));
$("any").addEventListener("click", anyRow);
for (const id of ["gallery", "top", "as"]) $(id).addEventListener("change", again);
window.addEventListener("popstate", show);
ask("/api/about").then((answer) => { about = answer; begin(); }).catch(fail);
